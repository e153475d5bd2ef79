"""Order of callbacks, callbacks that act at certain steps, and interrupted training."""

import enum
from collections.abc import Sequence
from typing import Any

import keras

from trainer.config.fields import check_number


class Priority(enum.IntEnum):
    """Values of a callback's attribute `priority`. Callbacks without it, such as Keras's own, have `DEFAULT`.

    Keras's `BackupAndRestore` has `FIRST`.
    """

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
    return sorted(callbacks, key=_priority_of)


def _priority_of(callback: keras.callbacks.Callback) -> int:
    restores = isinstance(callback, keras.callbacks.BackupAndRestore)
    return int(getattr(callback, "priority", Priority.FIRST if restores else Priority.DEFAULT))


class Periodic(keras.callbacks.Callback):
    """A callback that is due at every multiple of `every_steps` and at the last step.

    Args:
        every_steps: Steps between two actions; 0 for only the last step. Executions end at its multiples.

    Raises:
        ConfigError: If it is not a whole number from 0 up.
    """

    def __init__(self, every_steps: int):
        super().__init__()
        check_number("every_steps", every_steps, whole=True)
        self.every_steps = every_steps

    @property
    def is_due(self) -> bool:
        """True if the callback is due at the current step."""
        step = self.model.step
        return bool(self.every_steps and step % self.every_steps == 0) or step == self.params["num_steps"]


def is_interrupted(model: Any, num_steps: int) -> bool:
    """Returns whether SIGTERM has stopped training before its last step.

    If not, training that ended without an exception has all steps that it should have, also if a callback such as
    `CollapseAlarm` has stopped it. An evaluation of the last step may be missing.

    Args:
        model: GAN that was trained.
        num_steps: Step to stop at.
    """
    return bool(model.preempted and model.step < num_steps)
