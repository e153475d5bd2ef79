"""The request that creates the job of a file, and the file of the same job for gcloud."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.cloud.jobs.job_spec import JobFile, JobSpec, TuningSpec
from trainer.cloud.jobs.yaml_file import to_yaml
from trainer.cloud.vertex.client import CUSTOM, TUNING, JobKind
from trainer.cloud.vertex.endpoint import Endpoint
from trainer.errors import UNSAFE, ConfigError, quote

DEFAULT_DISPLAY_NAME = "gan-trainer"
_MAX_DISPLAY_NAME_LENGTH = 128
_PLACEHOLDERS = {"BUCKET": "your bucket", "PROJECT": "your project"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request that creates a job."""

    kind: JobKind
    body: Mapping[str, Any]
    """A CustomJob or a HyperparameterTuningJob; enumerations are names."""

    def to_http(self, endpoint: Endpoint) -> dict[str, Any]:
        """Returns the method, URL and body of the HTTP request."""
        url = f"{endpoint.url}/v1/{endpoint.parent}/{self.kind.collection}"
        return {"method": "POST", "url": url, "body": self.body}


def create_request(job: JobFile, display_name: str | None = None) -> Request:
    """Returns the request for a job file.

    Args:
        job: Parsed job file.
        display_name: Name of the job. None: the name in the file, or `DEFAULT_DISPLAY_NAME`.

    Raises:
        ConfigError: If the name is too long, or has a line break or another control character.
    """
    content = _whole_job(job)
    name = display_name or content.get("displayName") or DEFAULT_DISPLAY_NAME
    if len(name) > _MAX_DISPLAY_NAME_LENGTH:
        raise ConfigError(
            f"the display name has {len(name)} characters, more than {_MAX_DISPLAY_NAME_LENGTH}; shorten it."
        )
    if UNSAFE.search(name):
        raise ConfigError(f"the display name {quote(name)} has a line break or a control character; remove it.")
    return Request(
        kind=TUNING if isinstance(job, TuningSpec) else CUSTOM,
        body={"displayName": name} | {key: value for key, value in content.items() if key != "displayName"},
    )


def render(job: JobFile, request: Request, endpoint: Endpoint) -> str:
    """Returns the file for `gcloud ai custom-jobs create` or `gcloud ai hp-tuning-jobs create`.

    gcloud takes the name, the labels and the key of a job as flags. The first line of the file has the whole command.

    Args:
        job: Parsed job file.
        request: Request of the job.
        endpoint: Project and region of the job.
    """
    is_custom = isinstance(job, JobSpec)
    whole, body = _whole_job(job), request.body
    flags = {"project": endpoint.project, "region": endpoint.region, "display-name": body["displayName"]}
    flags = {name: value for name, value in flags.items() if value != name.upper()}
    content: Any = {key: body[key] for key in whole}  # with another name, if a flag gives one
    if is_custom:
        content = body["jobSpec"]
        labels = whole.get("labels")
        key = whole.get("encryptionSpec", {}).get("kmsKeyName")
        flags |= {"labels": ",".join(f"{name}={value}" for name, value in labels.items())} if labels else {}
        flags |= {"kms-key": key} if key else {}
    kind = "custom-jobs" if is_custom else "hp-tuning-jobs"
    words = [f"--{name}={value}" for name, value in flags.items()]
    command = shlex.join(["gcloud", "ai", kind, "create", *words, "--config=FILE"])
    return f"# {command}\n{to_yaml(content)}"


def check_placeholders(body: Mapping[str, Any], *, is_of_file: bool = True) -> None:
    """Rejects the placeholders in the job files and commands that come with this package.

    Args:
        body: Body of a request.
        is_of_file: Whether the body is that of a job file, in which a flag may set the value of a variable.

    Raises:
        ConfigError: If the body of a request has one.
    """
    for text in _texts(body):
        for placeholder, replacement in _PLACEHOLDERS.items():
            if re.search(rf"(?<![\w$])(?<!\$[{{(]){placeholder}(?!\w)", text):  # $PROJECT is a variable of a shell
                variable = (
                    f"pass --{placeholder.lower()}={placeholder} with {replacement} if the file has "
                    f"${{{placeholder}}}, or "
                )
                raise ConfigError(
                    f"{quote(text)} has the placeholder {placeholder}; {variable if is_of_file else ''}replace it with "
                    f"{replacement}."
                )


def _whole_job(job: JobFile) -> Mapping[str, Any]:
    """Returns the CustomJob or HyperparameterTuningJob of a file, which has a name only if the file has one."""
    return job.raw if isinstance(job, TuningSpec) else {**job.envelope, "jobSpec": job.raw}


def _texts(value: Any) -> list[str]:
    """Returns every string in a JSON value, except the names of environment variables."""
    if isinstance(value, Mapping):
        return [text for key, member in value.items() if key != "name" for text in _texts(member)]
    if isinstance(value, list):
        return [text for member in value for text in _texts(member)]
    return [value] if isinstance(value, str) else []
