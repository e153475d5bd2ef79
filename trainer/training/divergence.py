"""Divergence of a run: skipped updates, and returns to an earlier checkpoint.

An update is skipped if one of its losses, logged values or gradients is not finite. After five skipped steps in a row,
or eleven within 1,000 steps, the run rolls back: it returns to the last checkpoint before the row, and continues from
there with other random numbers.
"""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

MAX_ROLLBACKS = 3
"""Number of rollbacks after which the next one ends the run."""

PART = "divergence"
"""Name of this part of a model's state. Checkpoints of earlier versions do not have it; then it begins with zeros."""

_ROW, _WINDOW = 5, 1000
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
        return {f"{PART}/{index:03d}/{item.name}": item for index, item in enumerate((self.skips, self.rollbacks))}

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
        is_long_row = tf.logical_and(skips[-_ROW] > 0, skips[-1] - skips[-_ROW] < _ROW)
        is_frequent = tf.logical_and(skips[0] > 0, skips[-1] - skips[0] < _WINDOW)
        return tf.logical_or(is_long_row, is_frequent)

    def healthy_step(self, step: int) -> int:
        """Returns the number of steps before the row of skipped steps that ends at `step`; `step` without such a row.

        Args:
            step: Number of steps taken.
        """
        for skip in reversed(self.skips.numpy().tolist()):
            if skip == 0 or skip != step:
                break
            step -= 1
        return step

    def restart(self, num_rollbacks: int) -> None:
        """Forgets the skipped steps, after a rollback."""
        self.skips.assign(np.zeros(_NUM_SKIPS, np.int64))
        self.rollbacks.assign(num_rollbacks)
