"""Divergence of a run: skipped updates, and returns to an earlier checkpoint.

An update is skipped if one of its losses, logged values or gradients is not finite. After five consecutive skipped
steps, or eleven within 1,000 steps, the run rolls back: it returns to the last checkpoint before the consecutive ones,
and continues from there with other random numbers.
"""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

MAX_ROLLBACKS = 3
"""Number of rollbacks after which the next one ends the run."""

STATE_NAME = "divergence"
"""Name of this part of a model's state. Checkpoints of earlier versions do not have it; then it begins with zeros."""

SKIPS = f"{STATE_NAME}/000/skips"
"""Name of the last skipped steps in a model's state."""

_MAX_CONSECUTIVE, _WINDOW = 5, 1000
_NUM_SKIPS = _WINDOW // 100 + 1
"""Number of remembered skipped steps: one more than one percent of the window."""


class DivergenceState:
    """Skipped steps since the last rollback, and number of rollbacks. Create it inside the strategy's scope.

    Attributes:
        skips: The last skipped steps in ascending order, int64 [11]: the number of steps taken, the skipped one
            included. 0 for none.
        rollbacks: Number of rollbacks, int64 [].
    """

    def __init__(self) -> None:
        settings = {"dtype": "int64", "trainable": False, "aggregation": "only_first_replica"}
        self.skips = keras.Variable(np.zeros(_NUM_SKIPS, np.int64), name="skips", **settings)
        self.rollbacks = keras.Variable(np.int64(0), name="rollbacks", **settings)

    @property
    def variables(self) -> Mapping[str, keras.Variable]:
        """The state by name."""
        return {SKIPS: self.skips, f"{STATE_NAME}/001/rollbacks": self.rollbacks}

    @property
    def num_rollbacks(self) -> int:
        """Number of rollbacks."""
        return int(self.rollbacks.numpy())

    def add_skip(self, step: tf.Tensor) -> tf.Tensor:
        """Records that step number `step` (int64 []) was skipped. Call it outside of replicas.

        Returns:
            Whether a rollback is due: bool [].
        """
        skips = tf.concat([tf.convert_to_tensor(self.skips.value)[1:], [step + 1]], axis=0)
        self.skips.value.assign(skips)
        first = skips[-_MAX_CONSECUTIVE]
        are_consecutive = tf.logical_and(first > 0, skips[-1] - first < _MAX_CONSECUTIVE)
        is_frequent = tf.logical_and(skips[0] > 0, skips[-1] - skips[0] < _WINDOW)
        return tf.logical_or(are_consecutive, is_frequent)

    def last_applied_step(self, step: int) -> int:
        """Returns the number of steps before the consecutive skipped steps that end at `step`; without any, `step`.

        Args:
            step: Number of steps taken.
        """
        return last_applied_step(self.skips.numpy(), step)

    def restart(self, num_rollbacks: int) -> None:
        """Forgets the skipped steps, after a rollback."""
        self.skips.assign(np.zeros(_NUM_SKIPS, np.int64))
        self.rollbacks.assign(num_rollbacks)


def last_applied_step(skips: np.ndarray, step: int) -> int:
    """Returns the number of steps before the consecutive skipped steps that end at `step`; without any, `step`.

    Args:
        skips: Last skipped steps, as in `DivergenceState`, int64 [11].
        step: Number of steps taken.
    """
    for skip in reversed(skips.tolist()):
        if skip == 0 or skip != step:
            break
        step -= 1
    return step
