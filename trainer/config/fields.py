"""Declares settings (default, range, choices, help) and checks their values."""

import dataclasses
import enum
import math
import numbers
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from trainer.config.choices import Choice
from trainer.errors import ConfigError, quote


def setting(
    default: Any,
    help: str,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    above: float = -math.inf,
    choices: type[Choice] | None = None,
    is_path: bool = False,
    resumable: bool = False,
) -> Any:
    """Declares one field of `TrainConfig`.

    Args:
        default: Value if neither the recipe nor a flag sets one.
        help: Meaning of the setting, its unit, and the meaning of `None`. It is also the flag's `--help` text.
        minimum: Smallest allowed value.
        maximum: Largest allowed value.
        above: Exclusive lower limit.
        choices: Allowed values. The setting itself stays a plain string.
        is_path: True if the value may be a path, local or in a bucket.
        resumable: True if a run may resume with another value.
    """
    metadata = {
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "choices": choices and choices.values(),
        "is_path": is_path,
        "resumable": resumable,
    }
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=plain(default), metadata=metadata)


def plain(value: Any) -> Any:
    """Returns the plain value of an enum member, and any other value unchanged."""
    return value.value if isinstance(value, enum.Enum) else value


def check(spec: dataclasses.Field[Any], value: Any) -> None:
    """Checks a value against the declaration of its setting.

    Raises:
        ConfigError: If the value has another type, is out of range, or is not one of the choices.
    """
    if not _has_type(value, spec.type):
        raise ConfigError(f"{spec.name}={quote(value)} has the wrong type; give {_describe_type(spec.type)}.")
    choices, minimum, maximum, above = (spec.metadata[key] for key in ("choices", "minimum", "maximum", "above"))
    if choices:
        check_choice(spec.name, value, choices)
    if isinstance(value, int | float) and not isinstance(value, bool):
        check_number(spec.name, value, minimum=minimum, maximum=maximum, above=above)


def _is_finite(value: Any) -> bool:
    """Returns whether a number is finite and, if it is whole, fits 64 bits."""
    return abs(int(value)) < 2**63 if isinstance(value, numbers.Integral) else math.isfinite(value)


def _has_type(value: Any, hint: Any) -> bool:
    """Returns whether a value fits the annotation of a setting. A whole number is also a number."""
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return any(_has_type(value, member) for member in arguments)
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_has_type(member, arguments[0]) for member in value)
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, typing.get_origin(hint) or hint)


def _describe_type(hint: Any) -> str:
    """Returns the annotation of a setting in words."""
    if isinstance(hint, types.UnionType):
        return join_words([_describe_type(member) for member in typing.get_args(hint)])
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "none"}
    words |= {tuple: "a list of words or numbers", Mapping: "a JSON object"}
    return words[typing.get_origin(hint) or hint]


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Checks that a value is one of the choices of a setting, an argument or an option.

    Args:
        name: Name of the setting, for the message.
        value: Value to check.
        choices: Allowed values: an enum, or any other iterable.

    Raises:
        ConfigError: If the value is not one of the choices.
    """
    allowed = list(choices)
    try:
        is_allowed = value in allowed
    except ValueError:  # arrays of several elements have no truth value
        is_allowed = False
    if not is_allowed:
        raise ConfigError(f"{name}={quote(plain(value))} is unknown; choose {join_words(allowed)}.")


def check_number(
    name: str,
    value: Any,
    *,
    whole: bool = False,
    minimum: float = 0,
    maximum: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Checks a number that no flag parser has checked: an option in a JSON object, or an argument in code.

    Args:
        name: Name of the option, for the message.
        value: Value to check.
        whole: True if only whole numbers are allowed.
        minimum: Smallest allowed value.
        maximum: Largest allowed value.
        above: Exclusive lower limit.
        below: Exclusive upper limit.

    Raises:
        ConfigError: If the value is not a number, not a whole number where one is required, or out of range.
    """
    is_number = isinstance(value, numbers.Integral if whole else numbers.Real) and not isinstance(value, bool)
    if is_number and _is_finite(value) and minimum <= value <= maximum and above < value < below:
        return
    limits = {
        f"at least {minimum:.10g}": minimum > -math.inf,
        f"at most {maximum:.10g}": maximum < math.inf,
        f"more than {above:.10g}": above > -math.inf,
        f"less than {below:.10g}": below < math.inf,
        "less than 2**63": is_number and whole and not _is_finite(value),
    }
    kind, limit = "whole number" if whole else "number", " and ".join(text for text, exists in limits.items() if exists)
    raise ConfigError(f"{name}={quote(value)} is out of range; give a {kind} that is {limit}.")


def check_seed(seed: Any) -> None:
    """Checks a seed: a whole number of 64 bits.

    Raises:
        ConfigError: If it is not.
    """
    check_number("seed", seed, whole=True, minimum=-(2**63), maximum=2**63 - 1)


def join_words(words: list[Any]) -> str:
    """Returns words as a list in prose: `a, b or c`."""
    texts = [str(word).lower() if isinstance(word, bool) else str(word) for word in words]
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
