"""Job files: the `--config` of `gcloud ai custom-jobs create` and `gcloud ai hp-tuning-jobs create`.

A whole file is validated before anything starts.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor

from trainer.cloud.jobs import api_schema
from trainer.cloud.jobs.schema_validation import camel_case, fail, validate
from trainer.cloud.jobs.study_spec import StudySpec, parse_study
from trainer.cloud.jobs.worker_pools import Pool, parse_pools, parse_uri
from trainer.cloud.jobs.yaml_file import read_yaml
from trainer.cloud.vertex.environment import without_slash
from trainer.errors import ConfigError
from trainer.registry import nearest_name


@dataclass(frozen=True, kw_only=True)
class Scheduling:
    """Time limit and restarts of a job."""

    timeout_secs: float | None
    """Time limit in seconds. None: Vertex AI's default, 7 days."""
    restart_job_on_worker_restart: bool
    disable_retries: bool


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """A `CustomJobSpec`."""

    pools: tuple[Pool, ...]
    """Pools that have machines. The first holds the chief."""
    base_output_uri: str | None
    """Run directory without a trailing slash: a `gs://` URI, or also a local path if the job runs on this machine.

    None: Vertex AI passes no directories to the trainer."""
    scheduling: Scheduling
    raw: Mapping[str, Any]
    """Validated content of the file, as the request sends it."""


@dataclass(frozen=True, kw_only=True)
class TuningSpec:
    """A `HyperparameterTuningJob`."""

    display_name: str | None
    """Name in the file. None: the command line or a default gives it."""
    study: StudySpec
    max_trial_count: int
    parallel_trial_count: int
    max_failed_trial_count: int
    """Number of failed trials that ends the job. 0: Vertex AI decides."""
    trial: JobSpec
    """Job of each trial. The parameters follow its args as `--NAME=value`."""
    raw: Mapping[str, Any]
    """Validated content of the file, as the request sends it."""


JobFile = JobSpec | TuningSpec


def read(
    path: str | os.PathLike[str], *, is_local: bool = False, change: Callable[[Any], Any] = lambda content: content
) -> JobFile:
    """Reads a job file from disk or from a bucket.

    Args:
        path: Path of the file.
        is_local: Whether the job runs on this machine, where the output directory and packages may be local paths.
        change: Function that changes the parsed YAML before it is validated.

    Raises:
        ConfigError: If the file is not YAML, its content is invalid, or PyYAML or Google's SDK is not installed.
        StorageError: If the file cannot be read.
    """
    content = change(read_yaml(path))
    try:
        return parse(content, is_local=is_local)
    except ConfigError as error:
        raise ConfigError(f"{os.fspath(path)}: {error}") from error


def parse(content: Any, *, is_local: bool = False) -> JobFile:
    """Parses a custom job or a hyperparameter tuning job, whichever the keys resemble more.

    Args:
        content: Parsed YAML.
        is_local: Whether the job runs on this machine, as in `read`.

    Raises:
        ConfigError: If there is a mistake; the message has the path to the first one.
    """
    if not isinstance(content, Mapping):
        raise ConfigError("the file has no keys; it must be a CustomJobSpec or a HyperparameterTuningJob.")
    for key in ("jobSpec", "job_spec"):
        if key in content:
            fail(key, "is part of a CustomJob, but a file holds only its CustomJobSpec; keep what is under that key.")
    custom, tuning = (api_schema.root_message(name) for name in ("CustomJobSpec", "HyperparameterTuningJob"))
    if _num_similar_keys(content, tuning) > _num_similar_keys(content, custom):
        return _parse_tuning_job(validate(content, tuning), is_local)
    return _parse_job(validate(content, custom), "", is_local)


def _num_similar_keys(content: Mapping[Any, Any], message: Descriptor) -> int:
    """Returns how many keys resemble keys of a message, so that a misspelled key counts."""
    known = api_schema.fields(message)
    return sum(nearest_name(camel_case(str(key)), known, cutoff=0.8) is not None for key in content)


def _parse_tuning_job(raw: dict[str, Any], is_local: bool) -> TuningSpec:
    maximum, parallel, failed = (raw.get(f"{name}TrialCount", 0) for name in ("max", "parallel", "maxFailed"))
    if parallel < 1:
        fail("parallelTrialCount", f"is {parallel}; the minimum is 1.")
    if maximum < parallel:
        fail("maxTrialCount", f"is {maximum}, less than parallelTrialCount={parallel}; change one of them.")
    if failed < 0:
        fail("maxFailedTrialCount", f"is {failed}; the minimum is 0, which leaves the choice to Vertex AI.")
    return TuningSpec(
        display_name=raw.get("displayName"),
        study=parse_study(raw["studySpec"], "studySpec"),
        max_trial_count=maximum,
        parallel_trial_count=parallel,
        max_failed_trial_count=failed,
        trial=_parse_job(raw["trialJobSpec"], "trialJobSpec.", is_local),
        raw=raw,
    )


def _parse_job(raw: dict[str, Any], prefix: str, is_local: bool) -> JobSpec:
    """Parses a validated `CustomJobSpec`; `prefix` is the path to it, with its dot."""
    output = raw.get("baseOutputDirectory", {}).get("outputUriPrefix")
    if output is not None:
        output = parse_uri(output, f"{prefix}baseOutputDirectory.outputUriPrefix", is_local)
    return JobSpec(
        pools=parse_pools(raw["workerPoolSpecs"], f"{prefix}workerPoolSpecs", is_local),
        base_output_uri=output and without_slash(output),
        scheduling=_parse_scheduling(raw.get("scheduling", {}), f"{prefix}scheduling"),
        raw=raw,
    )


def _parse_scheduling(raw: dict[str, Any], path: str) -> Scheduling:
    restart, disable = raw.get("restartJobOnWorkerRestart", False), raw.get("disableRetries", False)
    if restart and disable:
        fail(path, "has both restartJobOnWorkerRestart and disableRetries, which disables restarts; keep one of them.")
    timeout = raw.get("timeout")
    return Scheduling(
        timeout_secs=None if timeout is None else float(timeout.removesuffix("s")),
        restart_job_on_worker_restart=restart,
        disable_retries=disable,
    )
