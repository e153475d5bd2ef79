"""Pooling of a whole map to one value per channel, or to a small map."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers


@keras.saving.register_keras_serializable("trainer")
class GlobalSumPooling2D(layers.Layer):
    """Sums a map over its pixels in float32: [B, h, w, C] -> [B, C]."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], input_shape[3])

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.reduce_sum(tf.cast(inputs, tf.float32), [1, 2]), self.compute_dtype)


@keras.saving.register_keras_serializable("trainer")
class AdaptiveAveragePooling2D(layers.Layer):
    """Averages a map of any size to a size: [B, H, W, C] -> [B, h, w, C].

    Output i is the mean of the inputs from floor(i*H/h) up to, but not including, ceil((i+1)*H/h).

    Args:
        size: Size (h, w) of the outputs.
    """

    def __init__(self, size: tuple[int, int], **kwargs: object):
        super().__init__(**kwargs)
        self.size = tuple(size)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return (input_shape[0], *self.size, input_shape[3])

    def get_config(self) -> dict[str, object]:
        return super().get_config() | {"size": self.size}

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        rows, columns = (
            tf.constant(_averages(length, target), inputs.dtype)
            for length, target in zip(inputs.shape[1:3], self.size, strict=True)
        )
        return tf.einsum("ih,bhwc,jw->bijc", rows, inputs, columns)


@functools.cache
def _averages(length: int, size: int) -> np.ndarray:
    """Returns a float32 matrix [size, length] whose rows average parts of `length` values."""
    matrix = np.zeros((size, length), np.float32)
    for index in range(size):
        first, end = index * length // size, -(-(index + 1) * length // size)
        matrix[index, first:end] = 1 / (end - first)
    return matrix
