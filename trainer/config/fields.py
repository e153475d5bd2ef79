"""How a setting is declared and checked: default, range, unit and help in one place."""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from trainer.errors import ConfigError


def setting(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
    resumable: bool = False,
) -> Any:
    """Declares one field of `TrainConfig`.

    Args:
        default: The value when neither the recipe nor a flag gives one.
        help: What it does, its unit, and what `None` means. The flag's `--help` text.
        minimum: Smallest legal value.
        maximum: Largest legal value.
        choices: The legal words.
        resumable: Whether a run may go on with another value and still be the same run.
    """
    metadata = {"help": help, "minimum": minimum, "maximum": maximum, "choices": choices, "resumable": resumable}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def check(spec: dataclasses.Field[Any], value: Any) -> None:
    """Checks one value against its declaration.

    Raises:
        ConfigError: It is out of range, or none of the words that are allowed.
    """
    choices, minimum, maximum = (spec.metadata[key] for key in ("choices", "minimum", "maximum"))
    if choices and value not in choices:
        raise ConfigError(f"{spec.name}={value} is unknown; choose one of {', '.join(choices)}.")
    if value is None or isinstance(value, (str, tuple, Mapping)):
        return
    if minimum is not None and not value >= minimum:
        raise ConfigError(f"{spec.name}={value} is too small; the least is {minimum:g}.")
    if maximum is not None and not value <= maximum:
        raise ConfigError(f"{spec.name}={value} is too large; the most is {maximum:g}.")


def check_number(name: str, value: Any, *, whole: bool = False, minimum: float = 0, below: float = math.inf) -> None:
    """Checks a number that no flag's type has checked: an option of a JSON object, an argument in code.

    Args:
        name: Of the option.
        value: What was given for it.
        whole: Whether fractions are refused.
        minimum: Smallest legal value.
        below: What every legal value is less than.

    Raises:
        ConfigError: It is no number, no whole one, or out of range.
    """
    is_number = isinstance(value, numbers.Integral if whole else numbers.Real) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and minimum <= value < below:
        return
    limit = "" if below == math.inf else f" to, without, {below:g}"
    raise ConfigError(
        f"{name}={value!r} is out of range; give a {'whole ' if whole else ''}number from {minimum:g} up{limit}."
    )
