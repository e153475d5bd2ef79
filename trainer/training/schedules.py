"""Numbers that change during a run, as functions of the number of steps or updates."""

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainer.config.fields import check_number
from trainer.errors import ConfigError, quote

Schedule = Callable[[tf.Tensor], tf.Tensor]
"""A function of the step (int64 or float32 []) to a float32 []. Keras's learning rate schedules are of this type."""

ScheduleLike = float | Schedule
"""A number, or a schedule."""

_SHAPES = ("linear", "cosine")


def check(name: str, value: Any, maximum: float = math.inf) -> None:
    """Checks an argument that is a number from 0 to `maximum`, or a schedule, whose first value is checked.

    Raises:
        ConfigError: If it is neither, or the value of the schedule at step 0 is out of range.
    """
    if not callable(value):
        check_number(name, value, maximum=maximum)
        return
    try:
        first = float(tf.cast(value(tf.constant(0, tf.int64)), tf.float32))
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise ConfigError(
            f"{name} is a function that is no schedule ({type(error).__name__}: {quote(str(error))}); pass a function "
            "of the step that returns a number."
        ) from error
    check_number(f"{name} at step 0", first, maximum=maximum)


def get(value: ScheduleLike) -> Schedule:
    """Returns a schedule as it is, and a number as a constant schedule."""
    if callable(value):
        return lambda step: tf.cast(value(step), tf.float32)
    return lambda step: tf.cast(value, tf.float32)


@keras.saving.register_keras_serializable("trainer")
class Ramp(keras.optimizers.schedules.LearningRateSchedule):
    """A value that moves from `start` to `end` and stays there.

    `linear` moves at a constant rate. `cosine` is start + (end - start) * (1 - cos(pi t)) / 2, which is flat at both
    ends.

    Args:
        start: Value up to step `begin`.
        end: Value from step `steps` on.
        steps: Step (update, for an optimizer) at which the ramp ends.
        begin: Step at which the ramp begins.
        shape: `linear` or `cosine`.

    Raises:
        ConfigError: If `steps` is not after `begin`, or the shape is unknown.
    """

    def __init__(self, start: float, end: float, steps: float, *, begin: float = 0.0, shape: str = "cosine"):
        if shape not in _SHAPES:
            raise ConfigError(f"the shape {shape!r} of a ramp is unknown; choose {' or '.join(_SHAPES)}.")
        if steps <= begin:
            raise ConfigError(f"a ramp from step {begin:g} to step {steps:g} has no length; end it later.")
        self.start, self.end, self.steps, self.begin, self.shape = start, end, steps, begin, shape

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the value at a step: float32 []."""
        progress = (tf.cast(step, tf.float32) - self.begin) / (self.steps - self.begin)
        progress = tf.clip_by_value(progress, 0.0, 1.0)
        if self.shape == "cosine":
            progress = 0.5 * (1.0 - tf.cos(math.pi * progress))
        return self.start + (self.end - self.start) * progress

    def get_config(self) -> dict[str, Any]:
        return {"start": self.start, "end": self.end, "steps": self.steps, "begin": self.begin, "shape": self.shape}


def ema_ramp_up(half_life_images: float, global_batch_size: int) -> Schedule:
    """The half-life of an EMA that is short early in training: at most a twentieth of the images seen.

    Source: arXiv 2006.06676, its implementation's `ema_rampup`.
    """

    def half_life(step: tf.Tensor) -> tf.Tensor:
        images_seen = (tf.cast(step, tf.float32) + 1.0) * float(global_batch_size)
        return tf.minimum(float(half_life_images), 0.05 * images_seen)

    return half_life
