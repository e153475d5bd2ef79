"""What is known of each trial of a local study, and the file that it is kept in: Vertex AI's answer about a job."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.cloud.jobs.job_spec import TuningSpec
from trainer.cloud.jobs.study_spec import Parameter, StudySpec, Value
from trainer.errors import ConfigError, StorageError, quote
from trainer.storage import Location, check_relative_name, read_json_lines

State = Literal["ACTIVE", "STOPPING", "SUCCEEDED", "INFEASIBLE"]

FILE_NAME = "trials.json"
_ID = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The metric after some steps."""

    step: int
    value: float


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial, as it stands."""

    id: str
    """Its number, from 1 on."""
    state: State
    """ACTIVE: it runs. STOPPING: it was asked to end early. INFEASIBLE: it failed, or measured nothing."""
    parameters: Mapping[str, Value]
    """Those that this trial has, conditional ones after their parents."""
    measurements: tuple[Measurement, ...] = ()
    """In the order of their steps."""
    final: Measurement | None = None
    """The measurement that counts. None: the trial has not succeeded."""
    start_time: str
    """RFC 3339, in UTC."""
    end_time: str | None = None
    """None: it has not ended."""
    infeasible_reason: str | None = None
    """Why it failed. None: it did not."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("SUCCEEDED", "INFEASIBLE")


def flags(parameters: Mapping[str, Value]) -> tuple[str, ...]:
    """Parameters as the arguments that a trial gets; whole numbers without a point: `--units=3`."""
    return tuple(f"--{name}={_text(value)}" for name, value in parameters.items())


def selected(measurements: Iterable[Measurement], study: StudySpec) -> Measurement | None:
    """The measurement that counts for a trial, the best or the last. None: there is none."""
    found = list(measurements)
    if not found or study.measurement_selection == "LAST_MEASUREMENT":
        return found[-1] if found else None
    return (min if study.metrics[0].goal == "MINIMIZE" else max)(found, key=lambda one: one.value)


def merged(known: Iterable[Measurement], found: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """Measurements in the order of their steps; of two at one step the one that was found counts."""
    by_step = {one.step: one for one in (*known, *found)}
    return tuple(by_step[step] for step in sorted(by_step))


def read_metric_file(path: Path, metric_id: str) -> tuple[Measurement, ...]:
    """What a trial has reported of a metric so far, in the order of the file.

    Raises:
        ConfigError: A line is none of a metric file's.
    """
    found = []
    try:
        for line in read_json_lines(path):
            value = float(line.get(metric_id, "nan"))
            if math.isfinite(value):
                found.append(Measurement(step=int(float(line.get("global_step", 0))), value=value))
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} has a line that is no report of a metric ({error}); delete it.") from error
    return tuple(found)


def write(file: Location, spec: TuningSpec, records: Iterable[TrialRecord]) -> None:
    """Writes the file of a study, whole or not at all."""
    content = {
        **({"displayName": spec.display_name} if spec.display_name else {}),
        "studySpec": spec.study.raw,
        "maxTrialCount": spec.max_trial_count,
        "parallelTrialCount": spec.parallel_trial_count,
        "maxFailedTrialCount": spec.max_failed_trial_count,
        "trials": [_to_rest(record, spec.study.metrics[0].metric_id) for record in records],
    }
    file.write_bytes((json.dumps(content, indent=2) + "\n").encode())


def read(file: Location, spec: TuningSpec) -> dict[str, TrialRecord]:
    """The trials of a study's file by their ids; none where the file does not exist.

    Raises:
        ConfigError: It is the file of another study, or of none.
        StorageError: A trial has an id that is no number, or a parameter that is not the study's.
    """
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_bytes())
        study, records = content["studySpec"], [_from_rest(trial) for trial in content["trials"]]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{file} is not the file of a local study; move it away to begin one there.") from error
    if study != json.loads(json.dumps(spec.study.raw)):
        keys = sorted(key for key in {*study, *spec.study.raw} if study.get(key) != spec.study.raw.get(key))
        raise ConfigError(
            f"studySpec is not what {file} was begun with ({', '.join(keys)} changed); "
            "undo the change, or give the study another folder."
        )
    for record in records:
        _check(record, spec.study, file)
    return {record.id: record for record in records}


def _check(record: TrialRecord, study: StudySpec, file: Location) -> None:
    """Refuses an id that is no number, since a folder is named by it, and parameters that are not the study's, since
    they become flags."""
    if not _ID.fullmatch(check_relative_name(record.id, file)):
        raise StorageError(f"{file} has a trial with the id {quote(record.id)}, expected a number; correct the file.")
    for name, value in record.parameters.items():
        same = [one for one in study.all_parameters() if one.parameter_id == name]
        if not any(_may_be(one, value) for one in same):
            raise StorageError(
                f"{file} has a trial with {quote(name)}={quote(value)}, which the parameters of studySpec do not "
                "allow; correct the file, or give the study another folder."
            )


def _may_be(parameter: Parameter, value: object) -> bool:
    """Whether a parameter may have a value, one that rounding has put just outside of its bounds included."""
    if isinstance(value, str) or parameter.bounds is None:
        return isinstance(value, str | float | int) and value in parameter.values
    return isinstance(value, float | int) and not isinstance(value, bool) and -1e308 < value < 1e308


def _text(value: Value) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if value == int(value) else repr(value)


def _to_rest(record: TrialRecord, metric_id: str) -> dict[str, Any]:
    def measurement(one: Measurement) -> dict[str, Any]:
        return {"stepCount": str(one.step), "metrics": [{"metricId": metric_id, "value": one.value}]}

    content = {
        "id": record.id,
        "state": record.state,
        "parameters": [{"parameterId": name, "value": value} for name, value in record.parameters.items()],
        "finalMeasurement": record.final and measurement(record.final),
        "measurements": [measurement(one) for one in record.measurements],
        "startTime": record.start_time,
        "endTime": record.end_time,
        "infeasibleReason": record.infeasible_reason,
    }
    return {key: value for key, value in content.items() if value is not None}


def _from_rest(content: Mapping[str, Any]) -> TrialRecord:
    def measurement(one: Mapping[str, Any]) -> Measurement:
        return Measurement(step=int(one["stepCount"]), value=float(one["metrics"][0]["value"]))

    return TrialRecord(
        id=content["id"],
        state=content["state"],
        parameters={one["parameterId"]: one["value"] for one in content["parameters"]},
        measurements=tuple(measurement(one) for one in content["measurements"]),
        final=measurement(content["finalMeasurement"]) if "finalMeasurement" in content else None,
        start_time=content["startTime"],
        end_time=content.get("endTime"),
        infeasible_reason=content.get("infeasibleReason"),
    )
