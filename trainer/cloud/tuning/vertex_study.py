"""Study of a hyperparameter tuning job on Vertex AI, read from the service's description of the job.

The service omits zeros, and accepts studies that a job file of this package could not have.
"""

import math
from collections.abc import Mapping
from typing import Any

from trainer.cloud.jobs import study_spec
from trainer.cloud.jobs.study_spec import Child, Metric, Parameter, StudySpec
from trainer.cloud.tuning.study_report import Study
from trainer.cloud.tuning.trial_store import Measurement, TrialRecord
from trainer.cloud.vertex.client import TUNING, Job
from trainer.errors import ConfigError


def to_study(job: Job) -> Study:
    """Returns the study of a tuning job, finished or not. Of several metrics, the first one ranks the trials.

    Raises:
        ConfigError: If it is a custom job.
    """
    if job.kind is not TUNING:
        raise ConfigError(f"{job.name} is a custom job, which has no trials; give the name of a tuning job.")
    raw = job.raw.get("studySpec", {})
    spec = StudySpec(
        metrics=tuple(
            Metric(metric_id=metric["metricId"], goal=metric.get("goal", "MAXIMIZE")) for metric in raw["metrics"]
        ),
        parameters=tuple(map(_to_parameter, raw["parameters"])),
        algorithm=None,
        measurement_selection=raw.get("measurementSelectionType", "LAST_MEASUREMENT"),
        early_stopping=None,
        raw=raw,
    )
    metric_id = spec.metrics[0].metric_id
    return Study(spec=spec, folder=job.name, trials=tuple(_to_record(trial, metric_id) for trial in job.trials))


def _to_parameter(raw: Mapping[str, Any]) -> Parameter:
    key = next(key for key in study_spec.VALUE_SPECS if key in raw)
    spec, values = raw[key], tuple(raw[key].get("values", ()))
    return Parameter(
        parameter_id=raw["parameterId"],
        kind=study_spec.VALUE_SPECS[key],
        bounds=None if values else (float(spec.get("minValue", 0)), float(spec.get("maxValue", 0))),
        values=values,
        scale=study_spec.SCALES.get(raw.get("scaleType"), "linear"),
        children=tuple(
            Child(parent_values=(), parameter=_to_parameter(child["parameterSpec"]))
            for child in raw.get("conditionalParameterSpecs", ())
        ),
    )


def _to_record(raw: Mapping[str, Any], metric_id: str) -> TrialRecord:
    final = raw.get("finalMeasurement")
    return TrialRecord(
        id=raw["id"],
        state=raw.get("state", "REQUESTED"),
        parameters={parameter["parameterId"]: parameter.get("value", 0) for parameter in raw.get("parameters", ())},
        final_measurement=_to_measurement(final, metric_id) if final and raw.get("state") == "SUCCEEDED" else None,
        start_time=raw.get("startTime", ""),
        end_time=raw.get("endTime"),
        infeasible_reason=raw.get("infeasibleReason"),
    )


def _to_measurement(raw: Mapping[str, Any], metric_id: str) -> Measurement | None:
    values = {metric.get("metricId"): metric.get("value", 0.0) for metric in raw.get("metrics", ())}
    value = float(values.get(metric_id, "nan"))
    return Measurement(step=int(raw.get("stepCount", 0)), value=value) if math.isfinite(value) else None
