"""Vertex AI's job service, or a stand-in for it: sends, reads, lists and cancels jobs of both kinds."""

import importlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.cloud.vertex.api_errors import explained, passes
from trainer.errors import ConfigError, JobError

ENDPOINT_VARIABLE = "GAN_TRAINER_VERTEX_ENDPOINT"
_TIMEOUT_SECS = 60.0
_RETRY_SECS = 60.0
_FIRST_PAUSE_SECS = 1.0
_LONGEST_PAUSE_SECS = 10.0
_STATE = "JOB_STATE_"
_OVER = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED")


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """A kind of job."""

    word: str
    """What users call it."""
    collection: str
    """Its part of a resource name."""
    message: str
    """Its class in the SDK."""
    method: str
    """Its part of the names of the SDK's methods."""


CUSTOM = JobKind(word="custom", collection="customJobs", message="CustomJob", method="custom_job")
TUNING = JobKind(
    word="tuning",
    collection="hyperparameterTuningJobs",
    message="HyperparameterTuningJob",
    method="hyperparameter_tuning_job",
)
KINDS = (CUSTOM, TUNING)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the service tells it."""

    name: str
    """projects/PROJECT/locations/REGION/COLLECTION/ID."""
    display_name: str
    kind: JobKind
    state: str
    """PENDING, RUNNING, SUCCEEDED and so on."""
    created: str
    """A moment, as in 2026-01-31T12:00:00Z. Empty: not told."""
    error: str
    """Why it failed. Empty: it did not, or nobody knows."""
    raw: Mapping[str, Any]
    """All that the service told, as JSON has it."""

    @property
    def is_over(self) -> bool:
        """Whether its state is its last."""
        return self.state in _OVER


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where jobs run, and who is asked; `PROJECT` and `REGION` stand for names that are not given yet.

    Raises:
        ConfigError: The region or the endpoint cannot be one.
    """

    project: str
    region: str
    endpoint: str | None = None
    """http:// or https:// of a stand-in, which is asked without credentials. None: Vertex AI."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9.:-]*|PROJECT", self.project):
            raise ConfigError(f"project={self.project} is no project; give its ID, as in --project=my-project.")
        if not re.fullmatch(r"[a-z]+-[a-z]+\d+|REGION", self.region):
            raise ConfigError(f"region={self.region} is no region; give one, as in --region=us-central1.")
        if self.endpoint is not None and not re.fullmatch(r"https?://[^/\s:]+(:\d+)?", self.endpoint):
            raise ConfigError(
                f"api_endpoint={self.endpoint} is no address; give it as http://HOST:PORT, or leave it out (and unset "
                f"{ENDPOINT_VARIABLE}) for Vertex AI."
            )

    @property
    def parent(self) -> str:
        """The resource that jobs belong to."""
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def address(self) -> str:
        """The server, with its scheme."""
        return self.endpoint or f"https://{self.region}-aiplatform.googleapis.com"


def place(project: str, region: str, api_endpoint: str | None = None) -> Endpoint:
    """Where jobs run; the endpoint is `api_endpoint`, else that of the environment variable, else Vertex AI's own."""
    endpoint = api_endpoint or os.environ.get(ENDPOINT_VARIABLE) or None
    return Endpoint(project=project, region=region, endpoint=endpoint and endpoint.rstrip("/"))


def console_address(name: str) -> str:
    """The page of a job in Google's console."""
    _, project, _, region, _, number = name.split("/")
    return f"https://console.cloud.google.com/ai/platform/locations/{region}/training/{number}?project={project}"


class Jobs:
    """The jobs of a project in a region. Every method raises JobError, one sentence, where the service refuses.

    Raises:
        ConfigError: The project or the region is a placeholder, or Google's SDK is not installed.
        JobError: There are no credentials.
    """

    def __init__(self, place: Endpoint):
        for name, value in (("project", place.project), ("region", place.region)):
            if value == name.upper():
                raise ConfigError(f"--{name}={value} is a placeholder; give the name of your own.")
        try:
            from google.auth.credentials import AnonymousCredentials

            aiplatform_v1 = importlib.import_module("google.cloud.aiplatform_v1")
        except ImportError as error:
            raise ConfigError(
                "Vertex AI needs google-cloud-aiplatform; run pip install 'gan-trainer[vertex]'."
            ) from error
        self.place = place
        self._sdk = aiplatform_v1
        self._unreadable = importlib.import_module("google.protobuf.json_format").ParseError
        with explained(place):
            self._client = aiplatform_v1.JobServiceClient(
                transport="rest",
                credentials=AnonymousCredentials() if place.endpoint else None,
                client_options={"api_endpoint": place.endpoint or place.address.removeprefix("https://")},
            )

    def message(self, kind: JobKind, body: Mapping[str, Any]) -> Any:
        """A job as the SDK's message.

        Args:
            kind: Of the job.
            body: The CustomJob or HyperparameterTuningJob, as JSON has it.

        Raises:
            ConfigError: It cannot be one.
        """
        try:
            return getattr(self._sdk, kind.message).from_json(json.dumps(body))
        except self._unreadable as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ConfigError(f"Google's SDK does not take the job ({reason}); correct it.") from error

    def create(self, kind: JobKind, body: Mapping[str, Any]) -> Job:
        """Sends a job, given as to `message`."""
        message = self.message(kind, body)
        with explained(self.place, creating=True):
            return self._told(self._call("create", kind, {"parent": self.place.parent, kind.method: message}), kind)

    def get(self, name: str) -> Job:
        """A job by its resource name, or by its number, which may be of either kind."""
        kinds, number = _parsed(name)
        for kind in kinds[:-1]:
            try:
                return self._get(kind, number)
            except JobError as error:
                if getattr(error.__cause__, "code", None) != 404:
                    raise
        return self._get(kinds[-1], number)

    def list(self, limit: int) -> list[Job]:
        """The newest jobs of both kinds, the newest first."""
        found: list[Job] = []
        for kind in KINDS:
            with explained(self.place):
                pages = self._call("list", kind, {"parent": self.place.parent, "page_size": min(limit, 100)}, "s")
                for _, message in zip(range(limit), pages, strict=False):
                    found.append(self._told(message, kind))
        return sorted(found, key=lambda job: job.created, reverse=True)[:limit]

    def cancel(self, name: str) -> Job:
        """Asks to cancel a job, which takes a while; returns it as it was."""
        job = self.get(name)
        if job.is_over:
            raise JobError(f"{job.name} is over ({job.state}); there is nothing to cancel.")
        with explained(self.place, name=name):
            self._call("cancel", job.kind, {"name": self._name(job.kind, name.rpartition("/")[2])})
        return job

    def _get(self, kind: JobKind, number: str) -> Job:
        with explained(self.place, name=number):
            return self._told(self._call("get", kind, {"name": self._name(kind, number)}), kind)

    def _name(self, kind: JobKind, number: str) -> str:
        return f"{self.place.parent}/{kind.collection}/{number}"

    def _call(self, verb: str, kind: JobKind, request: dict[str, Any], plural: str = "") -> Any:
        from google.api_core import exceptions as api
        from google.api_core.retry import Retry, if_exception_type

        # A service that fails may have taken a job all the same, and a second one would be billed as well.
        again = if_exception_type(api.TooManyRequests) if verb == "create" else passes
        retry = Retry(again, initial=_FIRST_PAUSE_SECS, maximum=_LONGEST_PAUSE_SECS, timeout=_RETRY_SECS)
        method = getattr(self._client, f"{verb}_{kind.method}{plural}")
        return method(request=request, retry=retry, timeout=_TIMEOUT_SECS)

    def _told(self, message: Any, kind: JobKind) -> Job:
        raw = json.loads(
            type(message).to_json(
                message, use_integers_for_enums=False, always_print_fields_with_no_presence=False, indent=None
            )
        )
        return Job(
            name=raw.get("name", ""),
            display_name=raw.get("displayName", ""),
            kind=kind,
            state=raw.get("state", f"{_STATE}UNSPECIFIED").removeprefix(_STATE),
            created=raw.get("createTime", ""),
            error=raw.get("error", {}).get("message", ""),
            raw=raw,
        )


def _parsed(name: str) -> tuple[tuple[JobKind, ...], str]:
    """The kinds that a job of this name may be of, and its number."""
    collection, number = (["", *name.split("/")])[-2:]
    kinds = KINDS if "/" not in name else tuple(kind for kind in KINDS if kind.collection == collection)
    if not kinds or not re.fullmatch(r"[\w-]+", number):
        raise ConfigError(
            f"{name!r} names no job; give its number, or projects/PROJECT/locations/REGION/customJobs/NUMBER."
        )
    return kinds, number
