"""Numbers that change while a run goes on, as functions of the number of steps or updates."""

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainer.errors import ConfigError

Scheduled = float | Callable[[tf.Tensor], tf.Tensor]
"""A number, or a function of the step."""

_SHAPES = ("linear", "cosine")


@keras.saving.register_keras_serializable("trainer")
class Ramp(keras.optimizers.schedules.LearningRateSchedule):
    """Goes from `start` to `end` and stays there; a learning rate, a penalty's weight, a probability.

    `linear` goes straight; `cosine` is start + (end - start) * (1 - cos(pi t)) / 2, which starts and ends level.

    Args:
        start: The value up to step `begin`.
        end: The value from step `steps` on.
        steps: Steps (updates, for an optimiser) at which the ramp ends.
        begin: Steps at which it begins.
        shape: `linear` or `cosine`.

    Raises:
        ConfigError: `steps` is not after `begin`, or the shape is unknown.
    """

    def __init__(self, start: float, end: float, steps: float, *, begin: float = 0.0, shape: str = "cosine"):
        if shape not in _SHAPES:
            raise ConfigError(f"the shape {shape!r} of a ramp is unknown; choose {' or '.join(_SHAPES)}.")
        if steps <= begin:
            raise ConfigError(f"a ramp from step {begin:g} to step {steps:g} has no length; end it later.")
        self.start, self.end, self.steps, self.begin, self.shape = start, end, steps, begin, shape

    def __call__(self, step: Any) -> tf.Tensor:
        """The value at a step: float32 []."""
        progress = (tf.cast(step, tf.float32) - self.begin) / (self.steps - self.begin)
        progress = tf.clip_by_value(progress, 0.0, 1.0)
        if self.shape == "cosine":
            progress = 0.5 * (1.0 - tf.cos(math.pi * progress))
        return self.start + (self.end - self.start) * progress

    def get_config(self) -> dict[str, Any]:
        return {"start": self.start, "end": self.end, "steps": self.steps, "begin": self.begin, "shape": self.shape}


def value_at(scheduled: Scheduled, step: tf.Tensor) -> tf.Tensor:
    """The value of a number or a function at a step: float32 []."""
    return tf.cast(scheduled(step) if callable(scheduled) else scheduled, tf.float32)
