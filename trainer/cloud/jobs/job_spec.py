"""Job files, the `--config` of `gcloud ai custom-jobs create` and `gcloud ai hp-tuning-jobs create`, as pure data.

A file is checked whole before anything is started or billed, without Google's SDK.
"""

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainer.cloud.jobs.api_schema import MESSAGES
from trainer.cloud.jobs.schema_validation import camel_case, conform, fail, specified
from trainer.cloud.jobs.study_spec import StudySpec, parse_study
from trainer.cloud.jobs.worker_pools import Pool, may_lie_at, parse_pools
from trainer.cloud.jobs.yaml_file import read_yaml
from trainer.cloud.vertex.environment import without_slash
from trainer.errors import ConfigError

Strategy = Literal["STANDARD", "SPOT", "FLEX_START"]

_STRATEGIES: dict[str | None, Strategy] = {
    None: "STANDARD",
    "STANDARD": "STANDARD",
    "ON_DEMAND": "STANDARD",
    "SPOT": "SPOT",
    "LOW_COST": "SPOT",
    "FLEX_START": "FLEX_START",
}
"""Today's words for strategies."""


@dataclass(frozen=True, kw_only=True)
class Scheduling:
    """When a job is started, restarted and stopped. None: as Vertex AI does by itself."""

    timeout_secs: float | None
    """None: 7 days."""
    max_wait_secs: float | None
    """How long a job of strategy FLEX_START waits for machines. None: a day."""
    restart_job_on_worker_restart: bool
    disable_retries: bool
    strategy: Strategy


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """A `CustomJobSpec`."""

    pools: tuple[Pool, ...]
    """Those that have machines; the first holds the chief."""
    base_output_uri: str | None
    """`gs://` of the run directory, without a slash at the end. None: Vertex AI names no folders to the trainer.

    A local path where the file was read for a rehearsal."""
    scheduling: Scheduling
    raw: Mapping[str, Any]
    """What is sent: the file's content, with numbers as numbers."""


@dataclass(frozen=True, kw_only=True)
class TuningSpec:
    """A `HyperparameterTuningJob`."""

    display_name: str | None
    """None: the command line gives it."""
    study: StudySpec
    max_trial_count: int
    parallel_trial_count: int
    max_failed_trial_count: int
    """Trials that may fail before the job does. 0: Vertex AI decides."""
    trial: JobSpec
    """The job of each trial; the parameters come after its args as `--NAME=value`."""
    raw: Mapping[str, Any]
    """What is sent: the file's content, with numbers as numbers."""


JobFile = JobSpec | TuningSpec


def read(
    path: str | os.PathLike[str], *, rehearsal: bool = False, change: Callable[[Any], Any] = lambda content: content
) -> JobFile:
    """Reads a job file, local or in a bucket.

    Args:
        path: The file.
        rehearsal: Whether it is for this machine, where the output folder and packages may have local paths.
        change: Of the content, before it is read as a job.

    Raises:
        ConfigError: It is not YAML, PyYAML is not installed, or `parse` refuses what it says.
        StorageError: It cannot be read.
    """
    content = change(read_yaml(path))
    try:
        return parse(content, rehearsal=rehearsal)
    except ConfigError as error:
        raise ConfigError(f"{os.fspath(path)}: {error}") from error


def parse(content: Any, *, rehearsal: bool = False) -> JobFile:
    """The job that the content of a file describes; a tuning job where its keys are those of one.

    Args:
        content: As YAML gives it.
        rehearsal: As `read` has it.

    Raises:
        ConfigError: The first mistake, with the path to it.
    """
    if not isinstance(content, Mapping):
        raise ConfigError("the file holds no keys; it must be a CustomJobSpec or a HyperparameterTuningJob.")
    for key in ("jobSpec", "job_spec"):
        if key in content:
            fail(key, "is part of a CustomJob, and a file holds its CustomJobSpec alone; keep what is under that key.")
    if _likeness(content, "HyperparameterTuningJob") > _likeness(content, "CustomJobSpec"):
        return _tuning(conform(content, "HyperparameterTuningJob"), rehearsal)
    return _job(conform(content, "CustomJobSpec"), "", rehearsal)


def _likeness(content: Mapping[Any, Any], message: str) -> int:
    """How many keys look like those of a message, misspelt ones counted."""
    known = MESSAGES[message]
    return sum(bool(difflib.get_close_matches(camel_case(str(key)), known, n=1, cutoff=0.8)) for key in content)


def _tuning(raw: dict[str, Any], rehearsal: bool) -> TuningSpec:
    most, parallel, failed = (raw.get(f"{what}TrialCount", 0) for what in ("max", "parallel", "maxFailed"))
    if parallel < 1:
        fail("parallelTrialCount", f"is {parallel}; the least is 1.")
    if most < parallel:
        fail("maxTrialCount", f"is {most}, fewer than parallelTrialCount={parallel}; raise it or lower the other.")
    if failed < 0:
        fail("maxFailedTrialCount", f"is {failed}; the least is 0, which leaves the choice to Vertex AI.")
    return TuningSpec(
        display_name=raw.get("displayName"),
        study=parse_study(raw["studySpec"], "studySpec"),
        max_trial_count=most,
        parallel_trial_count=parallel,
        max_failed_trial_count=failed,
        trial=_job(raw["trialJobSpec"], "trialJobSpec.", rehearsal),
        raw=raw,
    )


def _job(raw: dict[str, Any], prefix: str, rehearsal: bool) -> JobSpec:
    """The job of an object that conforms to `CustomJobSpec`; `prefix` is the path to it, with its dot."""
    output = raw.get("baseOutputDirectory", {}).get("outputUriPrefix")
    if output is not None and not may_lie_at(output, rehearsal):
        fail(f"{prefix}baseOutputDirectory.outputUriPrefix", f"is {output!r}; it must be gs://BUCKET/NAME.")
    return JobSpec(
        pools=parse_pools(raw["workerPoolSpecs"], f"{prefix}workerPoolSpecs", rehearsal),
        base_output_uri=output and without_slash(output),
        scheduling=_scheduling(raw.get("scheduling", {}), f"{prefix}scheduling"),
        raw=raw,
    )


def _scheduling(raw: dict[str, Any], path: str) -> Scheduling:
    restart, disable = raw.get("restartJobOnWorkerRestart", False), raw.get("disableRetries", False)
    if restart and disable:
        fail(path, "has restartJobOnWorkerRestart and disableRetries, which switches it off; keep one of them.")
    return Scheduling(
        timeout_secs=_seconds(raw.get("timeout")),
        max_wait_secs=_seconds(raw.get("maxWaitDuration")),
        restart_job_on_worker_restart=restart,
        disable_retries=disable,
        strategy=_STRATEGIES[specified(raw.get("strategy"))],
    )


def _seconds(duration: str | None) -> float | None:
    return None if duration is None else float(duration.removesuffix("s"))
