"""What is sent for a job file."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.cloud.jobs.job_spec import JobFile, TuningSpec
from trainer.cloud.vertex.client import CUSTOM, TUNING, Endpoint, JobKind
from trainer.errors import ConfigError

_PROGRAMS = ("containerSpec", "pythonPackageSpec")
DEFAULT_DISPLAY_NAME = "gan-trainer"
_LONGEST_DISPLAY_NAME = 128
_PLACEHOLDERS = {"BUCKET": "your bucket for BUCKET", "PROJECT": "your project for PROJECT"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A job to be made."""

    kind: JobKind
    body: Mapping[str, Any]
    """A CustomJob or a HyperparameterTuningJob, enumerations by name."""

    def told(self, place: Endpoint) -> dict[str, Any]:
        """The HTTP request, for JSON."""
        url = f"{place.address}/v1/{place.parent}/{self.kind.collection}"
        return {"method": "POST", "url": url, "body": self.body}


def request(job: JobFile, display_name: str | None = None) -> Request:
    """The request for a job file.

    Args:
        job: As `jobspec.parse` returned it.
        display_name: What it is called. None: as the file says, else gan-trainer.

    Raises:
        ConfigError: The name is too long.
    """
    is_tuning = isinstance(job, TuningSpec)
    name = display_name or (job.display_name if isinstance(job, TuningSpec) else None) or DEFAULT_DISPLAY_NAME
    if len(name) > _LONGEST_DISPLAY_NAME:
        raise ConfigError(f"the display name has {len(name)} characters; the most is {_LONGEST_DISPLAY_NAME}.")
    content: Mapping[str, Any] = job.raw if is_tuning else {"jobSpec": job.raw}
    return Request(
        kind=TUNING if is_tuning else CUSTOM,
        body={"displayName": name} | {key: value for key, value in content.items() if key != "displayName"},
    )


def with_changes(content: Any, *, args: Sequence[str] | None, service_account: str | None) -> Any:
    """The content of a file with what the command line changes in it; what is no job is left to `jobspec.parse`.

    Args:
        content: As YAML gives it.
        args: Of every pool, as gcloud's --args. None: as the file says.
        service_account: That the job runs as. None: as the file says.
    """
    content = copy.deepcopy(content)
    spec = job_spec(content)
    if service_account is not None and spec is not None:
        spec["serviceAccount"] = service_account
    for program in programs(content) if args is not None else ():
        program["args"] = list(args or ())
    return content


def job_spec(content: Any) -> dict[str, Any] | None:
    """The CustomJobSpec in the content of a file, whatever is wrong with it; None where there is none."""
    spec = content.get("trialJobSpec", content) if isinstance(content, dict) else None
    return spec if isinstance(spec, dict) else None


def programs(content: Any) -> list[dict[str, Any]]:
    """The containerSpec or pythonPackageSpec of every pool in the content of a file."""
    pools = (job_spec(content) or {}).get("workerPoolSpecs")
    pools = pools if isinstance(pools, list) else []
    found = [pool.get(key) for pool in pools if isinstance(pool, dict) for key in _PROGRAMS]
    return [program for program in found if isinstance(program, dict)]


def check_names(body: Mapping[str, Any]) -> None:
    """Refuses the placeholders of the job files that come with this package.

    Raises:
        ConfigError: There is one.
    """
    for text in _texts(body):
        for placeholder, own in _PLACEHOLDERS.items():
            if re.search(rf"(?<![\w$])(?<!\$[{{(]){placeholder}(?!\w)", text):  # $PROJECT is a variable
                raise ConfigError(f"{text!r} holds a placeholder; write the name of {own}.")


def _texts(value: Any) -> list[str]:
    """Every text in a JSON value, the names of variables left out."""
    if isinstance(value, Mapping):
        return [text for key, member in value.items() if key != "name" for text in _texts(member)]
    if isinstance(value, list):
        return [text for member in value for text in _texts(member)]
    return [value] if isinstance(value, str) else []
