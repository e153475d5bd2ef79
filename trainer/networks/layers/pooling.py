"""Pooling of a whole map to one value per channel."""

import keras
import tensorflow as tf
from keras import layers


@keras.saving.register_keras_serializable("trainer")
class GlobalSumPooling2D(layers.Layer):
    """Sums a map over its pixels in float32: [B, h, w, C] -> [B, C]."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], input_shape[3])

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.reduce_sum(tf.cast(inputs, tf.float32), [1, 2]), self.compute_dtype)
