"""Client of Vertex AI's job service: creates, reads, lists and cancels custom jobs and tuning jobs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from trainer.cloud.vertex import sdk
from trainer.cloud.vertex.api_errors import translate_errors
from trainer.cloud.vertex.endpoint import Endpoint
from trainer.cloud.vertex.resource_name import ResourceName, number_of
from trainer.errors import ConfigError, JobError, quote, status_of

_MAX_PAGE_SIZE = 100


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """A kind of job, and the names that the API has for it."""

    label: str
    """Name in the output of the commands."""
    collection: str
    """Collection in a resource name."""
    message_class: str
    """Class in the SDK."""
    method_suffix: str
    """End of the names of the SDK's methods, as in `create_custom_job`."""


CUSTOM = JobKind(label="custom", collection="customJobs", message_class="CustomJob", method_suffix="custom_job")
TUNING = JobKind(
    label="tuning",
    collection="hyperparameterTuningJobs",
    message_class="HyperparameterTuningJob",
    method_suffix="hyperparameter_tuning_job",
)
KINDS = (CUSTOM, TUNING)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the service describes it."""

    name: str
    """Resource name: projects/PROJECT/locations/REGION/COLLECTION/ID."""
    display_name: str
    kind: JobKind
    state: str
    """PENDING, RUNNING, SUCCEEDED and so on."""
    create_time: str
    """Time in RFC 3339 format, such as 2026-01-31T12:00:00Z. Empty: unknown."""
    error: str
    """Reason for a failure. Empty: the job has not failed, or the service gives no reason."""
    labels: Mapping[str, str]
    raw: Mapping[str, Any]
    """The complete answer of the service, as JSON."""

    @property
    def has_ended(self) -> bool:
        """True if the state is final."""
        return self.state in sdk.FINAL_STATES

    @property
    def trials(self) -> Sequence[Mapping[str, Any]]:
        """Trials of a tuning job as the service describes them. Empty: none has started, or this is a custom job."""
        return self.raw.get("trials", ())

    @property
    def shells(self) -> dict[str, str]:
        """Addresses of the interactive shells of running replicas, by replica. Empty unless `enableWebAccess`."""
        shells = dict(self.raw.get("webAccessUris", {}))
        for trial in self.trials:
            shells |= {f"trial {trial.get('id')} {name}": uri for name, uri in trial.get("webAccessUris", {}).items()}
        return shells


def console_url(name: str) -> str:
    """Returns the URL of a job's page in the Google Cloud console.

    Args:
        name: Full name of the job, as the service returns it.

    Raises:
        JobError: If it is not the name of a job.
    """
    job = ResourceName.parse(name)
    if job is None:
        raise JobError(f"the service has returned {quote(name)}, which is not the name of a job.")
    page = f"https://console.cloud.google.com/ai/platform/locations/{job.region}/training/{job.number}"
    return f"{page}?project={job.project}"


class JobClient:
    """The jobs of a project in a region. Every method raises `JobError`, one sentence, for an error of the service.

    Raises:
        ConfigError: If Google's SDK is not installed.
        JobError: If there are no credentials.
    """

    def __init__(self, endpoint: Endpoint):
        self._service = sdk.connect(endpoint, "JobServiceClient")
        self.endpoint = endpoint

    def to_message(self, kind: JobKind, body: Mapping[str, Any]) -> Any:
        """Returns a job as the SDK's message.

        Args:
            kind: Kind of the job.
            body: The CustomJob or HyperparameterTuningJob as JSON.

        Raises:
            ConfigError: If the SDK rejects the body.
        """
        return sdk.to_message(kind.message_class, body, "job file")

    def create(self, kind: JobKind, body: Mapping[str, Any], *, retries: bool = True) -> Job:
        """Creates a job. The first arguments are those of `to_message`.

        Args:
            kind: Kind of the job.
            body: The CustomJob or HyperparameterTuningJob as JSON.
            retries: Whether to try again for a while if the service reports an exhausted quota.
        """
        message = self.to_message(kind, body)
        advice = "check with python -m trainer jobs list whether the job exists before you submit it again."
        with translate_errors(self.endpoint, advice=advice):
            request = {"parent": self.endpoint.parent, kind.method_suffix: message}
            return _to_job(self._call("create", kind, request, retries=retries), kind)

    def get(self, name: str) -> Job:
        """Returns a job by its resource name, or by its ID, which may be of either kind."""
        kinds, job_id = _parse_name(name)
        for kind in kinds[:-1]:
            try:
                return self._get(kind, job_id)
            except JobError as error:
                if status_of(error) != HTTPStatus.NOT_FOUND:
                    raise
        return self._get(kinds[-1], job_id)

    def list(self, limit: int, filter: str = "") -> list[Job]:
        """Returns the newest jobs of both kinds, newest first.

        Args:
            limit: Maximum number of jobs.
            filter: Expression in the API's language, such as `labels.team=vision`. Empty: all jobs.
        """
        jobs: list[Job] = []
        request = {"parent": self.endpoint.parent, "page_size": min(limit, _MAX_PAGE_SIZE), "filter": filter}
        for kind in KINDS:
            with translate_errors(self.endpoint):
                messages = self._call("list", kind, request, plural="s")
                for _, message in zip(range(limit), messages, strict=False):
                    jobs.append(_to_job(message, kind))
        return sorted(jobs, key=lambda job: job.create_time, reverse=True)[:limit]

    def cancel(self, name: str) -> Job:
        """Requests that a job be canceled, which takes a while. Returns the job as it was before."""
        job = self.get(name)
        if job.has_ended:
            raise JobError(f"{job.name} has already ended ({job.state}), so it cannot be canceled; choose another job.")
        with translate_errors(self.endpoint, job_name=name):
            self._call("cancel", job.kind, {"name": self._resource_name(job.kind, number_of(name))})
        return job

    def _get(self, kind: JobKind, job_id: str) -> Job:
        with translate_errors(self.endpoint, job_name=job_id):
            return _to_job(self._call("get", kind, {"name": self._resource_name(kind, job_id)}), kind)

    def _resource_name(self, kind: JobKind, job_id: str) -> str:
        return f"{self.endpoint.parent}/{kind.collection}/{job_id}"

    def _call(self, verb: str, kind: JobKind, request: dict[str, Any], plural: str = "", retries: bool = True) -> Any:
        method = getattr(self._service, f"{verb}_{kind.method_suffix}{plural}")
        retry = sdk.retry(is_repeatable=verb != "create") if retries else None
        return method(request=request, retry=retry, timeout=sdk.TIMEOUT_SECS)


def _to_job(message: Any, kind: JobKind) -> Job:
    raw = sdk.to_json(message)
    return Job(
        name=raw.get("name", ""),
        display_name=raw.get("displayName", ""),
        kind=kind,
        state=sdk.state_of(raw),
        create_time=raw.get("createTime", ""),
        error=raw.get("error", {}).get("message", ""),
        labels=raw.get("labels", {}),
        raw=raw,
    )


def _parse_name(name: str) -> tuple[tuple[JobKind, ...], str]:
    """Returns the kinds that a job of this name may have, and its ID."""
    if re.fullmatch(r"[\w-]+", name):
        return KINDS, name
    resource = ResourceName.parse(name)
    kinds = tuple(kind for kind in KINDS if resource is not None and kind.collection == resource.collection)
    if resource is None or not kinds:
        raise ConfigError(
            f"{name!r} is not the name of a job; give its number, or "
            "projects/PROJECT/locations/REGION/customJobs/NUMBER."
        )
    return kinds, resource.number
