"""Scalar values of a job file: their types, limits and normal forms."""

import contextlib
import datetime
import math
import re
import sys
from collections.abc import Mapping
from typing import Any

from trainer.cloud.jobs.api_schema import Kind
from trainer.errors import ConfigError, quote

EXPECTED: Mapping[Kind, str] = {
    "text": "text; put it in quotes",
    "int32": "a whole number",
    "int64": "a whole number",
    "double": "a finite number",
    "bool": "true or false",
    "duration": "seconds followed by s, as in 3600s",
    "timestamp": "a date and time with a time zone, as in 2026-01-31T12:00:00Z",
    "labels": "an object whose names and values are text; put them in quotes",
}
"""Descriptions of the types for error messages."""
_GREATEST: Mapping[Kind, int | float] = {"int32": 2**31 - 1, "int64": 2**63 - 1, "double": sys.float_info.max}
_LONGEST_SECS = 315_576_000_000
"""Longest duration of Google's APIs: 10,000 years."""


def normalize(value: Any, kind: Kind, path: str) -> Any:
    """Returns a scalar in its normal form: YAML 1.1 reads 1e-5 as text, and 3.0 may stand for 3.

    Args:
        value: Value in the file.
        kind: Type that it must have.
        path: Path to it in the file.

    Raises:
        ConfigError: If the value has another type or is out of range.
    """
    normal = value if kind == "other" else _normal_form(value, kind)
    if normal is None and kind == "labels" and isinstance(value, Mapping):
        name, text = next(pair for pair in value.items() if not all(isinstance(part, str) for part in pair))
        raise ConfigError(
            f"{path} has {describe(name)}: {describe(text)}; the names and values must be text, so put both in quotes."
        )
    if normal is None:
        raise ConfigError(f"{path} is {describe(value)}; it must be {EXPECTED[kind]}.")
    _check_range(normal, kind, path)
    return normal


def seconds(duration: str) -> float:
    """Returns the number of seconds of a duration in its normal form, such as `3600s`."""
    return float(duration.removesuffix("s"))


def describe(value: Any) -> str:
    """Returns a value as error messages show it, shortened."""
    match value:
        case bool():
            return str(value).lower()
        case Mapping():
            return "an object"
        case list():
            return "a list"
        case _:
            return quote(value) if isinstance(value, str | int) else f"{value}"[:60]


def _normal_form(value: Any, kind: Kind) -> Any:
    """Returns the normal form, or None if the value has another type."""
    match kind, value:
        case ("text", str()) | ("bool", bool()):
            return value
        case "double", _:
            return _number(value)
        case "int32" | "int64", _:
            number = _number(value)
            return None if number is None or number != int(number) else int(number)
        case "duration", str() if re.fullmatch(r"[0-9]+(\.[0-9]{1,9})?s", value):
            return value
        case "timestamp", _:
            return _timestamp(value)
        case "labels", dict() if all(isinstance(text, str) for pair in value.items() for text in pair):
            return dict(value)
    return None


def _number(value: Any) -> int | float | None:
    """Returns a finite number that is written as a number or as text."""
    for number_type in (int, float) if isinstance(value, str) else ():
        with contextlib.suppress(ValueError):
            value = number_type(value)
            break
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def _timestamp(value: Any) -> str | None:
    """Returns a timestamp with its time zone, or None if no calendar has that date and time."""
    try:
        if isinstance(value, datetime.datetime) and value.tzinfo:
            return value.astimezone(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
        parts = re.fullmatch(r"([0-9-]{10}T[0-9:]{8})(?:\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})", str(value))
        if parts is None:
            return None
        datetime.datetime.strptime("".join(parts.groups()), "%Y-%m-%dT%H:%M:%S%z").astimezone(datetime.timezone.utc)
    except (ValueError, OverflowError):
        return None
    return str(value)


def _check_range(value: Any, kind: Kind, path: str) -> None:
    greatest = _GREATEST.get(kind)
    if greatest is not None and abs(value) > greatest:
        limit = f"the maximum is {greatest}" if value > 0 else f"the minimum is {-greatest}"
        raise ConfigError(f"{path} is {describe(value)}; {limit}.")
    if kind == "duration" and seconds(value) > _LONGEST_SECS:
        raise ConfigError(f"{path} is {describe(value)}; the maximum is {_LONGEST_SECS}s.")
