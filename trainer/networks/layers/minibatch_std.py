"""Minibatch standard deviation: a discriminator's view of the variety of a batch."""

from typing import Any

import keras
import tensorflow as tf
from keras import layers

from trainer.errors import NetworkError, count_of


@keras.saving.register_keras_serializable("trainer")
class MinibatchStd(layers.Layer):
    """Adds a channel with the mean standard deviation over a group of images: [B, H, W, C] -> [B, H, W, C+1].

    A group consists of consecutive images of the batch. A replica has consecutive images of the global batch, and its
    batch must consist of whole groups. Therefore, the groups are the same for any number of replicas.

    Args:
        group_size: Number of images in a group.
        **kwargs: Arguments of Keras's `Layer`.

    Raises:
        NetworkError: If a batch does not consist of whole groups.
    """

    couples_samples = True

    def __init__(self, group_size: int = 4, **kwargs: Any):
        super().__init__(**kwargs)
        self.group_size = group_size

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        height, width, channels = inputs.shape[1:]
        if (inputs.shape[0] or 0) % self.group_size:
            raise NetworkError(
                f"the minibatch standard deviation has groups of {self.group_size} images, which do not divide the "
                f"{count_of(inputs.shape[0], 'image')} of a device; change global_batch_size, or set group_size in "
                "architecture_options."
            )
        groups = tf.reshape(tf.cast(inputs, tf.float32), [-1, self.group_size, height, width, channels])
        centered = groups - tf.reduce_mean(groups, axis=1, keepdims=True)
        deviations = tf.sqrt(tf.reduce_mean(tf.square(centered), axis=1) + 1e-8)
        means = tf.repeat(tf.reduce_mean(deviations, axis=[1, 2, 3]), self.group_size)
        channel = tf.broadcast_to(tf.reshape(means, [-1, 1, 1, 1]), [tf.shape(inputs)[0], height, width, 1])
        return tf.concat([inputs, tf.cast(channel, inputs.dtype)], axis=-1)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*input_shape[:-1], input_shape[-1] + 1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"group_size": self.group_size}
