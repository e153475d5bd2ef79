"""Holds a job file against the table of Vertex AI's messages: one sentence, with the path, for every mistake."""

import contextlib
import datetime
import difflib
import math
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from trainer.cloud.jobs.api_schema import (
    AT_MOST_ONE,
    EXACTLY_ONE,
    MAY_BE_EMPTY,
    MESSAGES,
    REQUIRED,
    VIZIER_ONLY,
    WRITTEN_BY_VERTEX,
    Kind,
    Many,
    Message,
)
from trainer.errors import ConfigError
from trainer.registry import did_you_mean

_EXPECTED = {
    "text": "text; put it in quotes",
    "whole": "a whole number",
    "whole64": "a whole number",
    "number": "a finite number",
    "flag": "true or false",
    "duration": "seconds followed by s, as in 3600s",
    "time": "a moment with its time zone, as in 2026-01-31T12:00:00Z",
    "labels": "an object whose names and values are text; put them in quotes",
}
_GREATEST = {"whole": 2**31 - 1, "whole64": 2**63 - 1, "number": sys.float_info.max}
_LONGEST_SECS = 315_576_000_000
"""10,000 years, which is what a duration of Google's APIs can hold."""


def conform(value: Any, message: str, path: str = "") -> dict[str, Any]:
    """Checks keys and types, and the keys that are missing or exclude each other.

    Args:
        value: What the file holds.
        message: Name in `MESSAGES` of what it should be.
        path: Where it stands in the file. Empty: at the top.

    Returns:
        A copy with numbers as numbers: YAML 1.1 reads 1e-5 as text, and 3.0 may stand for 3.

    Raises:
        ConfigError: The first mistake.
    """
    here = path or "the file"
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{here} is {_shown(value)}; it must be an object with the keys {_listed(MESSAGES[message])}."
        )
    if not value and message in MAY_BE_EMPTY:
        return {}
    checked = {key: _value(value[key], _kind(key, message, path), _join(path, key)) for key in value}
    for key in REQUIRED.get(message, ()):
        if key not in checked:
            raise ConfigError(f"{_join(path, key)} is missing; {_missing_cure(MESSAGES[message][key])}.")
        if checked[key] in ("", [], {}) and f"{message}.{key}" not in MAY_BE_EMPTY:
            raise ConfigError(f"{_join(path, key)} is empty; {_missing_cure(MESSAGES[message][key])}.")
    _check_choice(checked, message, here)
    return checked


def fail(path: str, problem: str) -> NoReturn:
    """Raises ConfigError for what stands at a path."""
    raise ConfigError(f"{path} {problem}")


def specified(word: str | None) -> Any:
    """A word of an enumeration; None for the one that means that nothing is chosen."""
    return None if word is None or word.endswith("_UNSPECIFIED") else word


def camel_case(key: str) -> str:
    """A key in the form that Vertex AI takes: `worker_pool_specs` and `worker-pool-specs` as `workerPoolSpecs`."""
    return re.sub(r"[_-]+([a-z0-9])", lambda found: found[1].upper(), key)


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _kind(key: Any, message: str, path: str) -> Kind:
    """What a key of a message holds."""
    known, where = MESSAGES[message], _join(path, key)
    if f"{message}.{key}" in VIZIER_ONLY:
        fail(where, "is for studies of Vertex AI Vizier, and tuning jobs do not support it; remove it.")
    if key in known:
        return known[key]
    if key in WRITTEN_BY_VERTEX.get(message, ()):
        fail(where, "is written by Vertex AI; remove it.")
    camel = camel_case(str(key))
    if camel in known:
        fail(where, f"is not in camelCase; write {camel}.")
    for parent, kind in known.items():
        inner = kind.of if isinstance(kind, Many) else kind
        if isinstance(inner, Message) and camel in MESSAGES[inner.name]:
            fail(where, f"is unknown there; it belongs in {_join(path, parent)}{'[…]' if inner is not kind else ''}.")
    near = did_you_mean(camel, known)
    fail(where, f"is unknown; {near or f'known are {_listed(known)}.'}")


def _value(value: Any, kind: Kind, path: str) -> Any:
    """One value, checked, in its normal form."""
    if value is None:
        fail(path, "has no value; give it one, or remove the line.")
    match kind:
        case Many(of):
            if not isinstance(value, list):
                fail(path, f"is {_shown(value)}; it must be a list.")
            return [_value(member, of, f"{path}[{position}]") for position, member in enumerate(value)]
        case Message(name):
            return conform(value, name, path)
        case tuple():
            _check_word(value, kind, path)
            return value
        case _:
            normal = _scalar(value, kind)
            if normal is None:
                fail(path, f"is {_shown(value)}; it must be {_EXPECTED[kind]}.")
            _check_range(normal, kind, path)
            return normal


def _scalar(value: Any, kind: str) -> Any:
    """A value in its normal form; None where it is of another kind."""
    match kind, value:
        case ("text", str()) | ("flag", bool()):
            return value
        case "number", _:
            return _number(value)
        case "whole" | "whole64", _:
            number = _number(value)
            return None if number is None or number != int(number) else int(number)
        case "duration", str() if re.fullmatch(r"[0-9]+(\.[0-9]{1,9})?s", value):
            return value
        case "time", _:
            return _moment(value)
        case "labels", dict() if all(isinstance(text, str) for pair in value.items() for text in pair):
            return dict(value)
    return None


def _number(value: Any) -> int | float | None:
    """A finite number, written as one or as text."""
    for kind in (int, float) if isinstance(value, str) else ():
        with contextlib.suppress(ValueError):
            value = kind(value)
            break
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def _moment(value: Any) -> str | None:
    """A moment with its time zone, which YAML gives as one or as text; None where no calendar has it."""
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


def _check_range(value: Any, kind: str, path: str) -> None:
    """Refuses what Vertex AI's messages have no room for."""
    greatest = _GREATEST.get(kind)
    if greatest is not None and abs(value) > greatest:
        limit = f"the greatest is {greatest}" if value > 0 else f"the least is {-greatest}"
        fail(path, f"is {_shown(value)}; {limit}.")
    if kind == "duration" and float(value.removesuffix("s")) > _LONGEST_SECS:
        fail(path, f"is {_shown(value)}; the longest is {_LONGEST_SECS}s.")


def _check_word(value: Any, words: tuple[str, ...], path: str) -> None:
    if value in words:
        return
    near = difflib.get_close_matches(str(value).upper(), words, n=1)
    advice = f"did you mean {near[0]}?" if near else f"known are {_listed(words)}."
    fail(path, f"is {_shown(value)}, which is unknown; {advice}")


def _check_choice(checked: Mapping[str, Any], message: str, here: str) -> None:
    """Refuses more than one of the keys that exclude each other, and none where one is needed."""
    needed, optional = EXACTLY_ONE.get(message, ()), AT_MOST_ONE.get(message, ())
    given = [key for key in (*needed, *optional) if key in checked]
    if len(given) > 1:
        fail(here, f"has {' and '.join(given)}; keep one of them.")
    if needed and not given:
        fail(here, f"has none of {_listed(needed)}; give one of them.")


def _missing_cure(kind: Kind) -> str:
    match kind:
        case tuple():
            return f"give one of {_listed(word for word in kind if not word.endswith('_UNSPECIFIED'))}"
        case Many():
            return "list at least one"
        case Message(name):
            return f"give it {_listed(REQUIRED.get(name, MESSAGES[name]))}"
        case _:
            return f"give {_EXPECTED[kind].partition(';')[0]}"


def _listed(words: Iterable[Any]) -> str:
    return ", ".join(words)


def _shown(value: Any) -> str:
    """A value as a user recognizes it, cut where it is long."""
    match value:
        case bool():
            return str(value).lower()
        case Mapping():
            return "an object"
        case list():
            return "a list"
        case _:
            return f"{str(value)[:60]!r}" if isinstance(value, str) else f"{value}"[:60]
