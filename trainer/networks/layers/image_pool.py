"""A pool of earlier generated images, from which a discriminator sees some instead of the newest ones.

Shapes: `B` images of a replica, `H W C` image shape, `P` slots of the pool.
"""

import tensorflow as tf
from keras import layers

from trainer.errors import ConfigError, count_of


class ImagePool(layers.Layer):
    """Stores recent fake images and returns a mixture of stored and new ones.

    Images are processed one by one, in order. While a slot is free, the image is stored in the first such slot and
    returned. After that, with probability 1/2, the image of a random slot is returned and replaced by the new one;
    otherwise the new image is returned.

    The state consists of two non-trainable weights: `images`, float32 [P, H, W, C], and `filled`, float32 [P] of 0 and
    1. With R replicas, replica r owns slots r*P//R to (r+1)*P//R and assigns zeros to all other slots. Both weights
    have the aggregation `sum`, so the sum over replicas is exactly the whole pool. Create the layer inside the
    strategy's scope. Outside training, and if the size is 0, images are returned unchanged.

    Source: arXiv 1612.07828, section 2.3; the probability of 1/2 and the pool size of 50: arXiv 1703.10593, section 4.

    Args:
        size: Number of slots P over all replicas; 0 for no pool.
        image_shape: Shape (H, W, C) of the images.

    Raises:
        ConfigError: If `size` is negative or less than the number of replicas of the current strategy.
    """

    def __init__(self, size: int, image_shape: tuple[int, int, int], **kwargs: object):
        # float32 even under mixed precision, because a cast would round the draws and the stored images.
        super().__init__(dtype="float32", **kwargs)
        if size < 0:
            raise ConfigError(f"image pool of size={size} is out of range; give 0 for no pool, or a positive number.")
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if 0 < size < num_replicas:
            raise ConfigError(
                f"image pool of size={size} has no slot for each of {count_of(num_replicas, 'replica')}; "
                f"give at least {num_replicas}, or 0 for no pool."
            )
        self.size = size
        self.image_shape = tuple(image_shape)
        if size:
            settings = {"initializer": "zeros", "trainable": False, "aggregation": "sum"}
            self.images = self.add_weight(shape=(size, *self.image_shape), name="images", **settings)
            self.filled = self.add_weight(shape=(size,), name="filled", **settings)
        self.built = True

    def compute_output_shape(self, images_shape: tuple[int | None, ...], *_: object) -> tuple[int | None, ...]:
        return images_shape

    def call(self, images: tf.Tensor, draws: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the images that the discriminator sees.

        Args:
            images: New fake images, float32 [B, H, W, C].
            draws: float32 [B, 2], uniform in [0, 1): decides if an image is exchanged, and with which slot.
            training: True to use and update the pool.

        Returns:
            float32 [B, H, W, C], with no gradient to `images` if the pool is used.
        """
        if not training or self.size == 0:
            return images
        images = tf.stop_gradient(images)
        old_images, filled = tf.convert_to_tensor(self.images), tf.convert_to_tensor(self.filled)
        first, end = self._replica_slots()
        outputs, contents = _query(draws, filled, first, end)
        self._update(images, old_images, filled, contents, first, end)
        from_pool = tf.gather(old_images, tf.minimum(outputs, self.size - 1))
        from_batch = tf.gather(images, tf.maximum(outputs - self.size, 0))
        return tf.where(tf.reshape(outputs < self.size, [-1, 1, 1, 1]), from_pool, from_batch)

    def _replica_slots(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the first slot of this replica and the end of its slots: int32 []."""
        context = tf.distribute.get_replica_context()
        num_replicas = context.num_replicas_in_sync
        replica = tf.convert_to_tensor(context.replica_id_in_sync_group, tf.int32)
        return replica * self.size // num_replicas, (replica + 1) * self.size // num_replicas

    def _update(
        self,
        images: tf.Tensor,
        old_images: tf.Tensor,
        filled: tf.Tensor,
        contents: tf.Tensor,
        first: tf.Tensor,
        end: tf.Tensor,
    ) -> None:
        """Assigns this replica's slots as `contents` states, and zeros to all other slots."""
        slots = tf.range(self.size)
        is_own = tf.logical_and(slots >= first, slots < end)
        is_new = contents >= self.size
        new_images = tf.gather(images, tf.maximum(contents - self.size, 0))
        updated = tf.where(tf.reshape(is_new, [-1, 1, 1, 1]), new_images, old_images)
        self.images.assign(tf.where(tf.reshape(is_own, [-1, 1, 1, 1]), updated, tf.zeros([])))
        is_filled = tf.logical_or(filled > 0, is_new)
        self.filled.assign(tf.cast(tf.logical_and(is_own, is_filled), tf.float32))


def _query(draws: tf.Tensor, filled: tf.Tensor, first: tf.Tensor, end: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Determines the output for each new image, and the content of each slot after all of them.

    The loop works on indices only, so that each image moves once. Index s < P is the previous image of slot s, and
    index P + i is new image i.

    Returns:
        Indices of the outputs, int32 [B], and of the slots' contents, int32 [P].
    """
    size, num_images = filled.shape[0], tf.shape(draws)[0]
    slots, positions = tf.range(size), tf.range(num_images)
    capacity = end - first
    picked = first + tf.minimum(tf.cast(draws[:, 1] * tf.cast(capacity, tf.float32), tf.int32), capacity - 1)
    # After a resume on another number of replicas, free slots may lie between others.
    # The sum is float32, because TensorFlow has no integer cumsum for GPUs.
    is_free = (slots >= first) & (slots < end) & (filled == 0.0)
    counts = tf.cast(tf.cumsum(tf.cast(is_free, tf.float32)), tf.int32)

    def query_one(index: tf.Tensor, outputs: tf.Tensor, contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        fills = index < counts[-1]
        swaps = tf.logical_not(fills) & (draws[index, 0] < 0.5)
        slot = picked[index]
        outputs = tf.where((positions == index) & swaps, contents[slot], outputs)
        is_replaced = tf.where(fills, is_free & (counts == index + 1), (slots == slot) & swaps)
        return index + 1, outputs, tf.where(is_replaced, size + index, contents)

    _, outputs, contents = tf.while_loop(
        lambda index, *_: index < num_images, query_one, (tf.constant(0), size + positions, slots)
    )
    return outputs, contents
