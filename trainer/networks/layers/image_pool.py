"""The history of generated images that a discriminator is shown in place of the newest ones.

Legend: `B` images a replica, `H W C` an image, `P` slots of the pool.
"""

import tensorflow as tf
from keras import layers

from trainer.errors import ConfigError


class ImagePool(layers.Layer):
    """Holds the last fakes and gives back a mixture of them and new ones.

    Image by image, in order: while a slot is free the image is stored and returned; after that, with probability one
    half, the image of a random slot is returned and the new one takes its place, else the new one is returned.

    Its state is two non-trainable weights, `images` float32 [P, H, W, C] and `filled` float32 [P] of 0 and 1. Under R
    replicas, replica r owns slots r*P//R up to (r+1)*P//R and assigns zeros to the others' slots; both weights have
    the aggregation `sum`, so that the sum over replicas is the whole pool, to the bit. Make the layer inside the
    strategy's scope. Outside training, and with size 0, images pass unchanged.

    Source: arXiv 1612.07828, section 2.3; the rule with one half, arXiv 1703.10593, section 4, with its pool of 50.

    Args:
        size: P, over all replicas; 0 for no pool.
        image_shape: (H, W, C).

    Raises:
        ConfigError: `size` is negative, or leaves a replica of the current strategy without a slot.
    """

    def __init__(self, size: int, image_shape: tuple[int, int, int], **kwargs: object):
        # float32 even under mixed precision: a cast would round the draws and the stored images
        super().__init__(dtype="float32", **kwargs)
        if size < 0:
            raise ConfigError(f"image pool of size={size} is out of range; give 0 for none, or a positive number.")
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if 0 < size < num_replicas:
            raise ConfigError(
                f"image pool of size={size} has no slot for each of {num_replicas} replicas; "
                f"give at least {num_replicas}, or 0 for none."
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
        """The images that the discriminator shall see.

        Args:
            images: New fakes, float32 [B, H, W, C].
            draws: float32 [B, 2], uniform in [0, 1): whether an image is exchanged, and with which slot.
            training: Whether the pool is used, and updated.

        Returns:
            float32 [B, H, W, C], without gradient to `images` where the pool is used.
        """
        if not training or self.size == 0:
            return images
        images = tf.stop_gradient(images)
        stored, filled = tf.convert_to_tensor(self.images), tf.convert_to_tensor(self.filled)
        first, past = self._own_slots()
        shown, held = _exchange(draws, filled, first, past)
        is_new = tf.reshape(held >= self.size, [-1, 1, 1, 1])
        slots = tf.range(self.size)
        is_own = tf.logical_and(slots >= first, slots < past)
        updated = tf.where(is_new, tf.gather(images, tf.maximum(held - self.size, 0)), stored)
        self.images.assign(tf.where(tf.reshape(is_own, [-1, 1, 1, 1]), updated, tf.zeros([])))
        is_filled = tf.logical_or(filled > 0, held >= self.size)
        self.filled.assign(tf.cast(tf.logical_and(is_own, is_filled), tf.float32))
        old_images = tf.gather(stored, tf.minimum(shown, self.size - 1))
        new_images = tf.gather(images, tf.maximum(shown - self.size, 0))
        return tf.where(tf.reshape(shown < self.size, [-1, 1, 1, 1]), old_images, new_images)

    def _own_slots(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The first slot of this replica, and the first one past its slots: int32 []."""
        context = tf.distribute.get_replica_context()
        num_replicas = context.num_replicas_in_sync
        replica = tf.convert_to_tensor(context.replica_id_in_sync_group, tf.int32)
        return replica * self.size // num_replicas, (replica + 1) * self.size // num_replicas


def _exchange(draws: tf.Tensor, filled: tf.Tensor, first: tf.Tensor, past: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What is shown for each new image, and what each slot holds after all of them.

    The sequence runs over numbers alone: slot s stands for what the pool held there before, P + i for new image i.
    So images move once, however many slots change hands.

    Returns:
        int32 [B] and int32 [P].
    """
    size, num_images = filled.shape[0], tf.shape(draws)[0]
    slots, places = tf.range(size), tf.range(num_images)
    capacity = past - first
    count = tf.cast(tf.reduce_sum(filled[first:past]), tf.int32)
    picked = tf.cast(draws[:, 1] * tf.cast(capacity, tf.float32), tf.int32)

    def show(
        index: tf.Tensor, count: tf.Tensor, shown: tf.Tensor, held: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        is_free = count < capacity
        swaps = tf.logical_and(tf.logical_not(is_free), draws[index, 0] < 0.5)
        slot = first + tf.where(is_free, count, tf.minimum(picked[index], capacity - 1))
        shown = tf.where(tf.logical_and(places == index, swaps), held[slot], shown)
        held = tf.where(tf.logical_and(slots == slot, tf.logical_or(is_free, swaps)), size + index, held)
        return index + 1, count + tf.cast(is_free, tf.int32), shown, held

    _, _, shown, held = tf.while_loop(
        lambda index, *_: index < num_images, show, (tf.constant(0), count, size + places, slots)
    )
    return shown, held
