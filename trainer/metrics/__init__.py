"""Measures of how close fake images are to real ones; a suite of them has a name, and is loaded when asked for.

`import trainer.metrics` does not import TensorFlow.
"""

import importlib
from typing import NamedTuple

from trainer.errors import ConfigError
from trainer.registry import did_you_mean


class _Entry(NamedTuple):
    class_name: str
    """A class whose objects have `measure` and `real_vs_real`, in the module of the suite's name."""
    monitor: str
    """The metric, smaller is better, that tells the best checkpoint."""


_SUITES = {
    "digits": _Entry("DigitsMetrics", monitor="frechet_digits_5k"),
    "cycle": _Entry("CycleMetrics", monitor="cycle_error"),
    "stacked": _Entry("StackedMetrics", monitor="kl_stacked_26k"),
}
NAMES = tuple(_SUITES)


def get(name: str) -> type:
    """Returns the class of a suite of metrics, whose objects have `measure` and `real_vs_real`.

    Args:
        name: one of `NAMES`.

    Raises:
        ConfigError: if there is no such suite.
    """
    class_name = _entry(name).class_name
    return getattr(importlib.import_module(f"trainer.metrics.{name}"), class_name)


def monitor(name: str) -> str:
    """Returns the name of the metric whose smallest value marks the best checkpoint, such as `frechet_digits_5k`.

    Args:
        name: one of `NAMES`.

    Raises:
        ConfigError: if there is no such suite.
    """
    return _entry(name).monitor


def _entry(name: str) -> _Entry:
    if name not in _SUITES:
        advice = did_you_mean(name, NAMES, f"known are {', '.join(NAMES)}.")
        raise ConfigError(f"metrics={name} is not a known suite of metrics; {advice}")
    return _SUITES[name]
