"""The order in which callbacks run: by their `priority`, then in the order in which they were given."""

import enum
from collections.abc import Sequence

import keras


class Priority(enum.IntEnum):
    """Values of a callback's attribute `priority`. Callbacks without it, such as Keras's own, have `DEFAULT`."""

    FIRST = 0
    """Restoring a checkpoint, and the watchdog."""
    EVALUATION = 10
    """Adding metrics to the logs."""
    ALARM = 15
    """Reading the metrics, and adding events to the logs."""
    DEFAULT = 20
    LOGS = 30
    """Writing the logs."""
    SAMPLES = 40
    ANIMATION = 50
    """Reading the samples."""
    CHECKPOINT = 60
    """Saving a checkpoint, after everything that belongs to its step is written."""
    PROGRESS = 70
    LAST = 80
    """The heartbeat of the watchdog."""


def by_priority(callbacks: Sequence[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
    """Returns callbacks in the order in which they run."""
    return sorted(callbacks, key=lambda callback: getattr(callback, "priority", Priority.DEFAULT))
