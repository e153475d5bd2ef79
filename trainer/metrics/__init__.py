"""Measures of how close fake images are to real ones; a suite of them has a name, and is loaded when asked for.

`import trainer.metrics` does not import TensorFlow.
"""

import difflib
import importlib

from trainer.errors import ConfigError

_SUITES = {"digits": "DigitsMetrics"}
"""The class of each suite, in the module of the suite's name."""
NAMES = tuple(_SUITES)


def get(name: str) -> type:
    """Returns the class of a suite of metrics, whose objects have `evaluate` and `floor`.

    Args:
        name: one of `NAMES`.

    Raises:
        ConfigError: if there is no such suite.
    """
    if name not in _SUITES:
        nearest = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {nearest[0]}? Known" if nearest else "known"
        raise ConfigError(f"metrics={name} is not a known suite of metrics; {hint}: {', '.join(NAMES)}.")
    return getattr(importlib.import_module(f"trainer.metrics.{name}"), _SUITES[name])
