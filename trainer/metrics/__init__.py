"""Metrics that compare fake images with real ones, grouped in suites that are imported on first use.

`import trainer.metrics` does not import TensorFlow.
"""

import importlib
from collections.abc import Mapping
from typing import Literal, NamedTuple

from trainer.errors import ConfigError
from trainer.registry import did_you_mean

Goal = Literal["MINIMIZE", "MAXIMIZE"]


class _SuiteEntry(NamedTuple):
    class_name: str
    """Name of a class with the methods `measure` and `real_vs_real`, in the module named after the suite."""
    monitor: str
    """Name of the metric that selects the best checkpoint; smaller is better."""
    minimized: tuple[str, ...]
    """Metrics whose smallest value is the best, without the protocol in their names."""
    maximized: tuple[str, ...] = ()
    """Metrics whose greatest value is the best. A model reports the accuracy that fits its labels, or none."""


_SUITES = {
    "digits": _SuiteEntry(
        "DigitsMetrics",
        monitor="frechet_digits_5k",
        minimized=("frechet", "kid"),
        maximized=("precision", "recall", "density", "coverage", "conditional_accuracy", "code_accuracy"),
    ),
    "cycle": _SuiteEntry(
        "CycleMetrics", monitor="cycle_error", minimized=("cycle_error", "cycle_error_a", "cycle_error_b")
    ),
    "stacked": _SuiteEntry(
        "StackedMetrics",
        monitor="kl_stacked_26k",
        minimized=("frechet", "kl"),
        maximized=("num_modes", "conditional_accuracy"),
    ),
}
NAMES = tuple(_SUITES)


def get(name: str) -> type:
    """Returns the class of a metric suite, which has the methods `measure` and `real_vs_real`.

    Args:
        name: Name of a suite, one of `NAMES`.

    Raises:
        ConfigError: If the name is unknown.
    """
    class_name = _entry(name).class_name
    return getattr(importlib.import_module(f"trainer.metrics.{name}"), class_name)


def monitor(name: str) -> str:
    """Returns the name of the metric whose smallest value marks the best checkpoint, such as `frechet_digits_5k`.

    Args:
        name: Name of a suite, one of `NAMES`.

    Raises:
        ConfigError: If the name is unknown.
    """
    return _entry(name).monitor


def goals(name: str) -> Mapping[str, Goal]:
    """Returns the goal of each metric that a suite reports, by the metric's name without the protocol.

    Args:
        name: Name of a suite, one of `NAMES`.

    Raises:
        ConfigError: If the name is unknown.
    """
    entry = _entry(name)
    goals: dict[str, Goal] = dict.fromkeys(entry.minimized, "MINIMIZE")
    return goals | dict.fromkeys(entry.maximized, "MAXIMIZE")


def _entry(name: str) -> _SuiteEntry:
    if name not in _SUITES:
        advice = did_you_mean(name, NAMES, f"choose one of {', '.join(NAMES)}.")
        raise ConfigError(f"metrics={name} is not a known metric suite; {advice}")
    return _SUITES[name]
