"""From (seed, step) to a batch: data rests on the device, and a batch is gathered inside the step."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

IMAGE_RANGES = {"-1..1": (-1.0, 1.0), "0..1": (0.0, 1.0), "0..255": (0.0, 255.0)}
"""The ranges that 8-bit pixels can be mapped to, by the name that the config gives them."""


@dataclass(frozen=True)
class Window:
    """Images that are in memory as long as steps are taken from them.

    Attributes:
        images: uint8 or float32 [N, ...].
        labels: int32 [N], or None.
        image_range: What uint8 pixels are mapped to; float images are used as they are.
    """

    images: np.ndarray
    labels: np.ndarray | None
    image_range: tuple[float, float]

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self.images)

    def tensors(self) -> tuple[tf.Tensor, ...]:
        """The window's content on the current device."""
        held = (self.images,) if self.labels is None else (self.images, self.labels)
        return tuple(tf.constant(array) for array in held)

    def gather(self, tensors: tuple[tf.Tensor, ...], indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The images float32 [B, ...] in `image_range` and labels int32 [B] (or None) at `indices` int32 [B]."""
        images = tf.gather(tensors[0], indices)
        if images.dtype == tf.uint8:
            low, high = self.image_range
            images = tf.cast(images, tf.float32) * ((high - low) / 255.0) + low
        return images, tf.gather(tensors[1], indices) if len(tensors) > 1 else None


def batch_indices(
    key: int, step: tf.Tensor, replica: tf.Tensor | int, replica_batch_size: int, num_replicas: int, num_examples: int
) -> tf.Tensor:
    """Which examples a replica reads in a step: int32 [replica_batch_size].

    Every epoch is a permutation of its own, of which the last `num_examples % global_batch_size` places are not used.
    No state: example `i` of step `s` is `permutation(key, epoch)[place]`.

    Args:
        key: 64-bit key of the order.
        step: Number of the step, int64.
        replica: Index of the replica.
        replica_batch_size: Batch of one replica.
        num_replicas: How many replicas share the global batch.
        num_examples: Size of the window.
    """
    global_batch_size = replica_batch_size * num_replicas
    steps_per_epoch = num_examples // global_batch_size
    epoch, position = step // steps_per_epoch, step % steps_per_epoch
    first = position * global_batch_size + tf.cast(replica, tf.int64) * replica_batch_size
    places = first + tf.range(replica_batch_size, dtype=tf.int64)
    seed = tf.stack([tf.constant(key % 2**31, tf.int64), epoch + (key >> 32) % 2**31])
    shuffled = tf.random.experimental.index_shuffle(places, seed, tf.constant(num_examples - 1, tf.int64))
    return tf.cast(shuffled, tf.int32)
