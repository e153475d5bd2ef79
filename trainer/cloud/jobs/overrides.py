"""Values of a job file that the command line overrides."""

import copy
import datetime
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.cloud.jobs.job_spec import JOB_ID, custom_job_spec, programs
from trainer.cloud.jobs.worker_pools import parse_uri
from trainer.errors import ConfigError, count_of, quote

_MAX_ARGS = 10_000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Values that replace those of the file. None keeps the value of the file."""

    args: Sequence[str] | None = None
    """Args of every pool, as in gcloud's --args."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Values of the CustomJobSpec by key, such as `serviceAccount`; those of None are ignored."""
    scheduling: Mapping[str, Any] = field(default_factory=dict)
    """Values of `scheduling`."""
    job: Mapping[str, Any] = field(default_factory=dict)
    """Values beside the CustomJobSpec: `encryptionSpec`."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that are added to those of the file."""
    study: Mapping[str, int | None] = field(default_factory=dict)
    """Values of a tuning job: `maxTrialCount` and `parallelTrialCount`."""
    job_id: str | None = None
    """ID that replaces `JOB_ID` in the output folder of the file or of `spec`."""

    def apply(self, content: Any) -> Any:
        """Returns the content of a file with these values. Invalid content is left to `job_spec.parse`.

        Args:
            content: Parsed YAML.

        Raises:
            ConfigError: If there are too many args, or the file has no study for the values of a study.
        """
        content = copy.deepcopy(content)
        spec = custom_job_spec(content)
        if spec is None:
            return content
        _update(spec, self.spec)
        folder = spec.get("baseOutputDirectory")
        if self.job_id is not None and isinstance(folder, dict) and isinstance(folder.get("outputUriPrefix"), str):
            uri = folder["outputUriPrefix"].replace(JOB_ID, self.job_id)
            spec["baseOutputDirectory"] = folder | {"outputUriPrefix": uri}
        _update_member(spec, "scheduling", self.scheduling)
        if self.args is not None:
            if len(self.args) > _MAX_ARGS:
                raise ConfigError(f"--args has {count_of(len(self.args), 'arg')}; at most {_MAX_ARGS:,} are allowed.")
            for program in programs(content):
                program["args"] = list(self.args)
        study = _without_none(self.study)
        if study and spec is content.get("trialJobSpec"):
            content |= study
        elif study:
            raise ConfigError(
                "--max_trials and --parallel_trials are for tuning jobs, and the file is a custom job; remove them."
            )
        if not _without_none(self.job) and not self.labels:
            return content
        if spec is content:
            content = {"jobSpec": spec}
        _update(content, self.job)
        _update_member(content, "labels", self.labels)
        return content


def new_job_id() -> str:
    """Returns an ID of the time and a random number, for `Overrides.job_id`."""
    return f"{datetime.datetime.now(datetime.timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def parse_output_folder(uri: str | None, *, is_local: bool) -> dict[str, str] | None:
    """Returns the value of `--base_output_dir` in the form of a job file. None: the flag was not passed.

    Args:
        uri: Value of the flag.
        is_local: Whether the job runs on this machine, and may write to a local folder.

    Raises:
        ConfigError: If the job cannot use the folder.
    """
    return None if uri is None else {"outputUriPrefix": parse_uri(uri, "base_output_dir", is_local)}


def parse_labels(texts: Sequence[str]) -> dict[str, str]:
    """Parses the values of `--labels`, such as `team=gan,phase=1`.

    Raises:
        ConfigError: If a label has no name or no value, or occurs twice with different values.
    """
    labels: dict[str, str] = {}
    for part in (part.strip() for text in texts for part in text.split(",")):
        name, equals, value = part.partition("=")
        if not name or not equals:
            raise ConfigError(f"--labels has {quote(part)}; write --labels=NAME=VALUE,NAME=VALUE.")
        if labels.setdefault(name, value) != value:
            raise ConfigError(f"--labels has {quote(name)} twice with different values; keep one.")
    return labels


def parse_timeout(text: str | None) -> str | None:
    """Returns a duration such as `90m` in the form of a job file: `5400s`.

    Raises:
        ConfigError: If it is not a positive number of seconds, minutes, hours or days.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    secs = int(match[1]) * _UNITS[match[2] or "s"] if match else 0
    if not secs:
        raise ConfigError(f"--timeout={quote(text)[1:-1]} is not a time over zero; write it as 3600s, 90m, 24h or 7d.")
    return f"{secs}s"


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _update(target: dict[str, Any], values: Mapping[str, Any]) -> None:
    target.update(_without_none(values))


def _update_member(parent: dict[str, Any], key: str, values: Mapping[str, Any]) -> None:
    """Changes an object that may be missing. A value that is not an object is left to `job_spec.parse`."""
    member = parent.get(key, {})
    if _without_none(values) and isinstance(member, dict):
        parent[key] = member | _without_none(values)
