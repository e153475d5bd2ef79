"""Job files: the `--config` of `gcloud ai custom-jobs create` and `gcloud ai hp-tuning-jobs create`.

A whole file is validated before anything starts.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from google.protobuf.descriptor import Descriptor

from trainer.cloud.jobs import api_schema
from trainer.cloud.jobs.scalars import seconds
from trainer.cloud.jobs.schema_validation import camel_case, fail, validate
from trainer.cloud.jobs.study_spec import StudySpec, parse_study
from trainer.cloud.jobs.variables import expand
from trainer.cloud.jobs.worker_pools import Pool, parse_pools, parse_uri
from trainer.cloud.jobs.yaml_file import read_yaml
from trainer.environment import without_slash
from trainer.errors import ConfigError
from trainer.registry import nearest_name

_PROGRAM_KEYS = ("containerSpec", "pythonPackageSpec")
JOB_ID = "{job_id}"
"""Stands for a new ID in the output folder of a job that `submit` sends or `local` runs."""


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
    """Validated CustomJobSpec, as the request sends it."""
    path: str
    """Path to the spec in the file, with its dot: empty, `jobSpec.` or `trialJobSpec.`."""
    envelope: Mapping[str, Any]
    """Keys beside `jobSpec` in a whole CustomJob, such as `labels`; empty for a bare CustomJobSpec or a trial."""


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
    path: str | os.PathLike[str], *, is_local: bool = False, change: Callable[[Any], Any] | None = None
) -> JobFile:
    """Reads a job file from disk or from a bucket.

    Args:
        path: Path of the file.
        is_local: Whether the job runs on this machine, where the output directory and packages may be local paths.
        change: Function that changes the parsed YAML before it is validated. None: variables become their names.

    Raises:
        ConfigError: If the file is not YAML, its content is invalid, or PyYAML or Google's SDK is not installed.
        StorageError: If the file cannot be read.
    """
    content = read_yaml(path)
    with errors_of_file(path):
        return parse(change(content) if change else expand(content, {}), is_local=is_local)


@contextlib.contextmanager
def errors_of_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Adds the path of a job file to the messages of errors in its content."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{os.fspath(path)}: {error}") from error


def parse(content: Any, *, is_local: bool = False) -> JobFile:
    """Parses a CustomJobSpec, a CustomJob or a HyperparameterTuningJob, whichever the keys resemble most.

    Args:
        content: Parsed YAML.
        is_local: Whether the job runs on this machine, as in `read`.

    Raises:
        ConfigError: If there is a mistake; the message has the path to the first one.
    """
    if not isinstance(content, Mapping):
        raise ConfigError("the file has no keys; it must be a CustomJobSpec, a CustomJob or a HyperparameterTuningJob.")
    names = "CustomJobSpec", "CustomJob", "HyperparameterTuningJob"
    spec, custom, tuning = messages = [api_schema.root_message(name) for name in names]
    best = max(messages, key=lambda message: _num_similar_keys(content, message))
    if best is tuning:
        return _parse_tuning_job(validate(content, tuning), is_local)
    if best is custom:
        envelope = validate(content, custom)
        return _parse_job(envelope.pop("jobSpec"), "jobSpec.", is_local, envelope)
    return _parse_job(validate(content, spec), "", is_local)


def custom_job_spec(content: Any) -> dict[str, Any] | None:
    """Returns the CustomJobSpec in unvalidated content, or None if there is no object in its place."""
    spec = content.get("trialJobSpec", content.get("jobSpec", content)) if isinstance(content, dict) else None
    return spec if isinstance(spec, dict) else None


def programs(content: Any) -> list[dict[str, Any]]:
    """Returns the containerSpec or pythonPackageSpec of every pool in unvalidated content."""
    pools = (custom_job_spec(content) or {}).get("workerPoolSpecs")
    pools = pools if isinstance(pools, list) else []
    specs = [pool.get(key) for pool in pools if isinstance(pool, dict) for key in _PROGRAM_KEYS]
    return [spec for spec in specs if isinstance(spec, dict)]


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


def _parse_job(
    raw: dict[str, Any], prefix: str, is_local: bool, envelope: Mapping[str, Any] = MappingProxyType({})
) -> JobSpec:
    """Parses a validated `CustomJobSpec`; `prefix` is the path to it, with its dot."""
    output = raw.get("baseOutputDirectory", {}).get("outputUriPrefix")
    if output is not None:
        output = parse_uri(output, f"{prefix}baseOutputDirectory.outputUriPrefix", is_local)
    return JobSpec(
        pools=parse_pools(raw["workerPoolSpecs"], f"{prefix}workerPoolSpecs", is_local),
        base_output_uri=output and without_slash(output),
        scheduling=_parse_scheduling(raw.get("scheduling", {}), f"{prefix}scheduling"),
        raw=raw,
        path=prefix,
        envelope=envelope,
    )


def _parse_scheduling(raw: dict[str, Any], path: str) -> Scheduling:
    restart, disable = raw.get("restartJobOnWorkerRestart", False), raw.get("disableRetries", False)
    if restart and disable:
        fail(path, "has both restartJobOnWorkerRestart and disableRetries, which disables restarts; keep one of them.")
    timeout = raw.get("timeout")
    return Scheduling(
        timeout_secs=None if timeout is None else seconds(timeout),
        restart_job_on_worker_restart=restart,
        disable_retries=disable,
    )
