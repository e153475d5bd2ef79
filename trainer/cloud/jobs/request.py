"""The request that creates the job of a file."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.cloud.jobs.job_spec import JobFile, TuningSpec
from trainer.cloud.vertex.client import CUSTOM, TUNING, JobKind
from trainer.cloud.vertex.endpoint import Endpoint
from trainer.errors import ConfigError

_PROGRAM_KEYS = ("containerSpec", "pythonPackageSpec")
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
        ConfigError: If the name is too long.
    """
    is_tuning = isinstance(job, TuningSpec)
    name = display_name or (job.display_name if isinstance(job, TuningSpec) else None) or DEFAULT_DISPLAY_NAME
    if len(name) > _MAX_DISPLAY_NAME_LENGTH:
        raise ConfigError(
            f"the display name has {len(name)} characters, more than {_MAX_DISPLAY_NAME_LENGTH}; shorten it."
        )
    content: Mapping[str, Any] = job.raw if is_tuning else {"jobSpec": job.raw}
    return Request(
        kind=TUNING if is_tuning else CUSTOM,
        body={"displayName": name} | {key: value for key, value in content.items() if key != "displayName"},
    )


def with_overrides(content: Any, *, args: Sequence[str] | None, service_account: str | None) -> Any:
    """Returns the content of a file with the values that the command line overrides.

    Invalid content is left to `job_spec.parse`.

    Args:
        content: Parsed YAML.
        args: Args of every pool, as in gcloud's --args. None: those of the file.
        service_account: Account that the job runs as. None: that of the file.
    """
    content = copy.deepcopy(content)
    spec = custom_job_spec(content)
    if service_account is not None and spec is not None:
        spec["serviceAccount"] = service_account
    for program in programs(content) if args is not None else ():
        program["args"] = list(args or ())
    return content


def custom_job_spec(content: Any) -> dict[str, Any] | None:
    """Returns the CustomJobSpec in unvalidated content, or None if there is no object in its place."""
    spec = content.get("trialJobSpec", content) if isinstance(content, dict) else None
    return spec if isinstance(spec, dict) else None


def programs(content: Any) -> list[dict[str, Any]]:
    """Returns the containerSpec or pythonPackageSpec of every pool in unvalidated content."""
    pools = (custom_job_spec(content) or {}).get("workerPoolSpecs")
    pools = pools if isinstance(pools, list) else []
    specs = [pool.get(key) for pool in pools if isinstance(pool, dict) for key in _PROGRAM_KEYS]
    return [spec for spec in specs if isinstance(spec, dict)]


def check_placeholders(body: Mapping[str, Any]) -> None:
    """Rejects the placeholders in the job files that come with this package.

    Raises:
        ConfigError: If the body of a request has one.
    """
    for text in _texts(body):
        for placeholder, replacement in _PLACEHOLDERS.items():
            if re.search(rf"(?<![\w$])(?<!\$[{{(]){placeholder}(?!\w)", text):  # $PROJECT is a variable
                raise ConfigError(f"{text!r} has the placeholder {placeholder}; replace it with {replacement}.")


def _texts(value: Any) -> list[str]:
    """Returns every string in a JSON value, except the names of environment variables."""
    if isinstance(value, Mapping):
        return [text for key, member in value.items() if key != "name" for text in _texts(member)]
    if isinstance(value, list):
        return [text for member in value for text in _texts(member)]
    return [value] if isinstance(value, str) else []
