"""Trials of a local study and the file that stores them, which has the format of Vertex AI's answer about a job."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from trainer.cloud.jobs.job_spec import TuningSpec
from trainer.cloud.jobs.study_spec import Parameter, StudySpec, Value
from trainer.errors import ConfigError, StorageError, count_of, quote
from trainer.storage import Location, check_new_file, check_relative_name, documents, read_json, read_json_lines

State = Literal["REQUESTED", "ACTIVE", "STOPPING", "SUCCEEDED", "INFEASIBLE"]

FILE_NAME = "trials.json"
_ID = re.compile(r"[1-9][0-9]{0,8}")
_ROUNDING = 1e-9
"""Relative error of a number that Optuna has suggested on a logarithmic scale."""
_OPTIONAL_NUMBER = documents.optional(documents.numeric)
_MEASUREMENT = documents.record(
    {
        "stepCount": documents.text("[0-9]{1,18}", "a whole number as text"),
        "metrics": documents.list_of(documents.record({"value": documents.number}), length=1),
    }
)
_TRIAL = documents.record(
    {
        "id": documents.anything,
        "state": documents.text("|".join(get_args(State))),
        "parameters": documents.list_of(
            documents.record({"parameterId": documents.text(), "value": documents.anything})
        ),
        "measurements": documents.list_of(_MEASUREMENT),
        "finalMeasurement": documents.optional(_MEASUREMENT),
        "startTime": documents.text(),
        "endTime": documents.optional(documents.text()),
        "infeasibleReason": documents.optional(documents.text()),
    }
)
_ARGS = "trainerArgs"
"""Key of the args of each pool, which Vertex AI's answer does not have."""
_SCHEMA = documents.record(
    {
        "studySpec": documents.map_of(documents.anything),
        "trials": documents.list_of(_TRIAL),
        _ARGS: documents.optional(documents.list_of(documents.list_of(documents.text()))),
    }
)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Value of the metric at a step."""

    step: int
    value: float


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """State of one trial."""

    id: str
    """Number of the trial, from 1."""
    state: State
    """REQUESTED: not started. ACTIVE: running. STOPPING: requested to stop early. INFEASIBLE: failed,
    or reported no metric."""
    parameters: Mapping[str, Value]
    """Parameters of this trial; conditional ones follow their parents."""
    measurements: tuple[Measurement, ...] = ()
    """Measurements by ascending step."""
    final_measurement: Measurement | None = None
    """Measurement that represents the trial. None: the trial has not succeeded."""
    start_time: str
    """UTC time in RFC 3339 format."""
    end_time: str | None = None
    """UTC time in RFC 3339 format. None: the trial has not ended."""
    infeasible_reason: str | None = None
    """Reason for a failure. None: the trial has not failed."""

    @property
    def has_ended(self) -> bool:
        """True if the trial will not change any more."""
        return self.state in ("SUCCEEDED", "INFEASIBLE")


def to_flags(parameters: Mapping[str, Value]) -> tuple[str, ...]:
    """Returns parameters as arguments of a trial, with whole numbers written as integers: `--units=3`."""
    return tuple(f"--{name}={_format_value(value)}" for name, value in parameters.items())


def select_measurement(measurements: Sequence[Measurement], study: StudySpec) -> Measurement | None:
    """Returns the measurement that represents a trial: the best or the last. None: the trial has no measurement."""
    if not measurements or study.measurement_selection == "LAST_MEASUREMENT":
        return measurements[-1] if measurements else None
    best = min if study.metrics[0].goal == "MINIMIZE" else max
    return best(measurements, key=lambda measurement: measurement.value)


def merge_measurements(old: Iterable[Measurement], new: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """Returns all measurements by ascending step. A new measurement replaces an old one of the same step."""
    by_step = {measurement.step: measurement for measurement in (*old, *new)}
    return tuple(by_step[step] for step in sorted(by_step))


def read_metric_file(path: Path, metric_id: str) -> tuple[Measurement, ...]:
    """Returns what a trial has reported for a metric so far, in the order of the file.

    Raises:
        ConfigError: If the file cannot be read, or a line is not a report of metrics.
    """
    fields = ("global_step", metric_id)
    try:
        lines, num_unreadable = read_json_lines(path, documents.record(dict.fromkeys(fields, _OPTIONAL_NUMBER)))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); delete it.") from error
    if num_unreadable:
        raise ConfigError(
            f"{path} has {count_of(num_unreadable, 'line')} that are not reports of a metric; delete them."
        )
    values = [(line.get("global_step"), line.get(metric_id)) for line in lines]
    reports = [(float(step or 0), float(value)) for step, value in values if value is not None]
    return tuple(
        Measurement(step=int(step), value=value)
        for step, value in reports
        if math.isfinite(step) and math.isfinite(value)
    )


def write(file: Location, spec: TuningSpec, records: Iterable[TrialRecord]) -> None:
    """Writes the file of a study atomically."""
    content = {
        **({"displayName": spec.display_name} if spec.display_name else {}),
        "studySpec": spec.study.raw,
        "maxTrialCount": spec.max_trial_count,
        "parallelTrialCount": spec.parallel_trial_count,
        "maxFailedTrialCount": spec.max_failed_trial_count,
        _ARGS: _args(spec),
        "trials": [_to_json(record, spec.study.metrics[0].metric_id) for record in records],
    }
    file.write_bytes((json.dumps(content, indent=2) + "\n").encode())


def read(file: Location, spec: TuningSpec) -> dict[str, TrialRecord]:
    """Returns the trials in a study's file by ID. Empty: the file does not exist.

    Raises:
        ConfigError: If the file belongs to another study, or is not the file of a study.
        StorageError: If it is a folder, a pipe or a device, if the ID of a trial is not a number or occurs twice, or if
            its parameters are not those that the study requires and allows.
    """
    check_new_file(file)
    if not file.exists():
        return {}
    remedy = "it is not the file of a local study, so move it away to start one in this folder"
    content = read_json(file, _SCHEMA, remedy=remedy, error=ConfigError)
    study, records = content["studySpec"], [_from_json(trial) for trial in content["trials"]]
    if study != json.loads(json.dumps(spec.study.raw)):
        keys = sorted(key for key in {*study, *spec.study.raw} if study.get(key) != spec.study.raw.get(key))
        raise ConfigError(
            f"studySpec differs from the one in {file} ({', '.join(keys)} changed); undo the change, or give the study "
            "another folder."
        )
    _check_args(content.get(_ARGS), spec, file)
    by_id: dict[str, TrialRecord] = {}
    for record in records:
        _check(record, spec.study, file)
        if record.id in by_id:
            raise StorageError(f"{file} has two trials with the ID {record.id}; correct the file.")
        by_id[record.id] = record
    return by_id


def _args(spec: TuningSpec) -> list[list[str]]:
    """Returns the args of each pool of a trial, without its parameters."""
    return [list(pool.program.args) for pool in spec.trial.pools]


def _check_args(stored: object, spec: TuningSpec, file: Location) -> None:
    """Rejects args that differ from those of the trials in the file. Earlier versions have not stored them."""
    args = _args(spec)
    if stored in (None, args):
        return
    before = {arg for pool in stored for arg in pool} if isinstance(stored, list) else set()
    after = {arg for pool in args for arg in pool}
    removed, added = (" ".join(sorted(texts)) or "none" for texts in (before - after, after - before))
    raise ConfigError(
        f"the args differ from those of the trials in {file} (before: {quote(removed)}, now: {quote(added)}), so that "
        "trials could not be compared; use the same args, or give the study another folder."
    )


def _check(record: TrialRecord, study: StudySpec, file: Location) -> None:
    """Checks the ID, which becomes the name of a folder, and the parameters, which become flags."""
    if not _ID.fullmatch(check_relative_name(record.id, file)):
        raise StorageError(
            f"{file} has a trial with the ID {quote(record.id)}, which is not a number; correct the file."
        )
    rest, active, problem = dict[str, Any](record.parameters), list(study.parameters), ""
    while active and not problem:
        parameter = active.pop(0)
        name = parameter.parameter_id
        if name not in rest:
            problem = f"without {quote(name)}, which the parameters of studySpec require"
        elif not _allows(parameter, value := rest.pop(name)):
            problem = f"with {quote(name)}={quote(value)}, which the parameters of studySpec do not allow"
        else:
            active += [child.parameter for child in parameter.children if value in child.parent_values]
    if rest and not problem:
        name, value = next(iter(rest.items()))
        is_known = name in {parameter.parameter_id for parameter in study.all_parameters()}
        reason = "the other parameters of the trial exclude" if is_known else "studySpec does not have"
        problem = f"with {quote(name)}={quote(value)}, which {reason}"
    if problem:
        raise StorageError(
            f"{file} has a trial {record.id} {problem}; correct the file, or give the study another folder."
        )


def _allows(parameter: Parameter, value: object) -> bool:
    """Returns whether a trial may have a value. Rounding may have moved a number out of the bounds."""
    if isinstance(value, bool) or not isinstance(value, str | float | int):
        return False
    if parameter.bounds is not None and not isinstance(value, str):
        low, high = parameter.bounds
        tolerance = _ROUNDING * max(abs(low), abs(high))
        if not low - tolerance <= value <= high + tolerance:
            return False
        value = min(max(value, low), high)
    return parameter.allows(value)


def _format_value(value: Value) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if value == int(value) else repr(value)


def _to_json(record: TrialRecord, metric_id: str) -> dict[str, Any]:
    def to_json(measurement: Measurement) -> dict[str, Any]:
        metrics = [{"metricId": metric_id, "value": measurement.value}]
        return {"stepCount": str(measurement.step), "metrics": metrics}

    content = {
        "id": record.id,
        "state": record.state,
        "parameters": [{"parameterId": name, "value": value} for name, value in record.parameters.items()],
        "finalMeasurement": record.final_measurement and to_json(record.final_measurement),
        "measurements": [to_json(measurement) for measurement in record.measurements],
        "startTime": record.start_time,
        "endTime": record.end_time,
        "infeasibleReason": record.infeasible_reason,
    }
    return {key: value for key, value in content.items() if value is not None}


def _from_json(content: Mapping[str, Any]) -> TrialRecord:
    def from_json(measurement: Mapping[str, Any]) -> Measurement:
        return Measurement(step=int(measurement["stepCount"]), value=float(measurement["metrics"][0]["value"]))

    final_measurement = content.get("finalMeasurement")
    return TrialRecord(
        id=content["id"],
        state=content["state"],
        parameters={parameter["parameterId"]: parameter["value"] for parameter in content["parameters"]},
        measurements=tuple(from_json(measurement) for measurement in content["measurements"]),
        final_measurement=None if final_measurement is None else from_json(final_measurement),
        start_time=content["startTime"],
        end_time=content.get("endTime"),
        infeasible_reason=content.get("infeasibleReason"),
    )
