"""Variables in job files, such as `${BUCKET}`, so that a file works in every project without being edited."""

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from absl import flags as absl_flags

from trainer.errors import ConfigError, quote
from trainer.registry import did_you_mean
from trainer.storage import locate, read_named_file

ENV_FILE = ".env"
"""File in the current folder that is read if it exists."""
_MAX_ENV_FILE_BYTES = 2**18
_REFERENCE = re.compile(r"\$?\$\{([^{}:]*)(?::-([^{}]*))?\}")
"""`${NAME}`, `${NAME:-DEFAULT}`, or, with another `$`, the text `${NAME}` for the program."""
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*")


@dataclass(frozen=True, kw_only=True)
class _Variable:
    pattern: str
    description: str


_VARIABLES: Mapping[str, _Variable] = {
    "PROJECT": _Variable(pattern=r"[a-z0-9][a-z0-9.:-]*", description="the ID of a project, such as my-project"),
    "BUCKET": _Variable(pattern=r"[a-z0-9][a-z0-9._-]*", description="the name of a bucket without gs://"),
    "REGION": _Variable(pattern=r"[a-z]+-[a-z]+\d+", description="a region, such as us-central1"),
    "RUN": _Variable(
        pattern=r"[A-Za-z0-9](?:[\w./-]*[\w-])?", description="the name of a folder: letters, digits, and . _ - /"
    ),
}
NAMES = tuple(_VARIABLES)
"""Names of the variables."""
ENDPOINT_NAMES = ("PROJECT", "REGION")
"""Names of the variables that commands use without a job file."""
FLAGS: Mapping[str, str] = {
    "bucket": "Value of ${BUCKET} in the file. None: the environment variable BUCKET, else that of --env_file.",
    "run": "Value of ${RUN} in the file, which the output folder ends with. None: as for --bucket.",
    "env_file": f"File with lines such as BUCKET=my-bucket. None: {ENV_FILE}, if it exists.",
}
"""Help texts of the flags that set variables, besides `project` and `region`."""


def flag_values(values: absl_flags.FlagValues) -> dict[str, str | None]:
    """Returns the values of the flags that set variables, by their names."""
    return {name.lower(): values[name.lower()].value for name in NAMES}


def read_values(
    flags: Mapping[str, str | None], env_file: str | None = None, *, names: Collection[str] = NAMES
) -> dict[str, str]:
    """Returns the values of the variables: from flags, else from the environment, else from a file.

    An empty value counts as unset.

    Args:
        flags: Values of the flags by name, such as `bucket`; None if a flag is not set.
        env_file: File with lines `NAME=VALUE`; other names are ignored. None: `ENV_FILE`, if it exists.
        names: Variables to read. Of others, which may belong to another program, only the flags count.

    Raises:
        ConfigError: If a value is malformed.
        StorageError: If the file cannot be read.
    """
    file = _read_env_file(env_file)
    values = {}
    for name, variable in _VARIABLES.items():
        flag = flags.get(name.lower())
        if name not in names and not flag:
            continue
        sources = (
            (f"--{name.lower()}", flag),
            (f"the environment variable {name}", os.environ.get(name)),
            (f"{name} in {env_file or ENV_FILE}", file.get(name)),
        )
        source, value = next(((source, value) for source, value in sources if value), ("", None))
        if value is None:
            continue
        if value != name and not re.fullmatch(variable.pattern, value):  # the name itself is the placeholder
            raise ConfigError(f"{source} is {quote(value)}; give {variable.description}.")
        values[name] = value
    return values


def project_and_region(project: str | None, region: str | None) -> tuple[str | None, str | None]:
    """Returns a project and a region: those of flags, of the environment, or of `ENV_FILE`; None without a value.

    Raises:
        ConfigError, StorageError: As `read_values`.
    """
    values = read_values({"project": project, "region": region}, names=ENDPOINT_NAMES)
    return values.get("PROJECT"), values.get("REGION")


def describe_missing(name: str) -> str:
    """Returns the beginning of a message about a missing flag `project` or `region`."""
    return f"--{name} is missing; give it, set {name.upper()} in the environment or in {ENV_FILE}"


def expand(content: Any, values: Mapping[str, str]) -> Any:
    """Returns the content of a file with the values of its variables. An unset variable becomes its name: `BUCKET`.

    `check_set` and `job_request.check_placeholders` reject such a name where it matters.

    Args:
        content: Parsed YAML.
        values: Values by name, from `read_values`.

    Raises:
        ConfigError: If a variable is unknown.
    """

    def replace(match: re.Match[str]) -> str:
        name, default = match.groups()
        if match[0].startswith("$$"):
            return match[0][1:]
        _check_name(name, match[0])
        return values.get(name, name if default is None else default)

    return _map_texts(content, lambda text: _REFERENCE.sub(replace, text))


def used_in(content: Any) -> dict[str, bool]:
    """Returns the names of the variables in a file, and for each whether it needs a value, because it has no default.

    Raises:
        ConfigError: If a variable is unknown.
    """
    names: dict[str, bool] = {}

    def collect(text: str) -> str:
        for match in _REFERENCE.finditer(text):
            name, default = match.groups()
            if not match[0].startswith("$$"):
                _check_name(name, match[0])
                names[name] = names.get(name, False) or default is None
        return text

    _map_texts(content, collect)
    return names


def check_set(content: Any, values: Mapping[str, str]) -> None:
    """Rejects a file with a variable that has neither a value nor a default.

    Raises:
        ConfigError: If there is such a variable, or an unknown one.
    """
    missing = [name for name, needs_value in used_in(content).items() if needs_value and name not in values]
    if missing:
        raise ConfigError(unset_message(missing))


def unset_message(names: list[str]) -> str:
    """Returns the sentence about variables without a value."""
    shown = " and ".join(f"${{{name}}}" for name in names)
    flags = " ".join(f"--{name.lower()}={name}" for name in names)
    lines = " and ".join(f"{name}=..." for name in names)
    verb = "has" if len(names) == 1 else "have"
    return f"{shown} {verb} no value; pass {flags}, or put {lines} into the environment or the file {ENV_FILE}."


def _check_name(name: str, reference: str) -> None:
    if name not in _VARIABLES:
        advice = f"known ones are {', '.join(NAMES)}, and $${{NAME}} passes ${{NAME}} to the program."
        raise ConfigError(f"{quote(reference)} is an unknown variable; {did_you_mean(name.upper(), NAMES, advice)}")


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Returns a JSON value with every string changed, except keys."""
    if isinstance(value, dict):
        return {key: _map_texts(member, change) for key, member in value.items()}
    if isinstance(value, list):
        return [_map_texts(member, change) for member in value]
    return change(value) if isinstance(value, str) else value


def _read_env_file(path: str | None) -> dict[str, str]:
    """Returns the assignments in a file; none if the default file does not exist. Values are never quoted in errors."""
    file = locate(path or ENV_FILE)
    if path is None and not file.exists():
        return {}
    try:
        lines = read_named_file(path or ENV_FILE, _MAX_ENV_FILE_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8; save it as UTF-8 text with lines NAME=VALUE.") from error
    values = {}
    for number, line in enumerate(lines, start=1):
        match = _ASSIGNMENT.fullmatch(line)  # other tools may need lines of another form
        if match is None or match[1] not in _VARIABLES:
            continue
        value = _unquoted(match[2])
        if value is None:
            raise ConfigError(f"{match[1]} in line {number} of {file} has a quote without its end; correct it.")
        values[match[1]] = value
    return values


def _unquoted(text: str) -> str | None:
    """Returns the value of an assignment without quotes, or without a comment after a space; None for an open quote."""
    if text[:1] in ("'", '"'):
        value, end, _ = text[1:].partition(text[0])
        return value if end else None
    return re.split(r"\s+#", text, maxsplit=1)[0]
