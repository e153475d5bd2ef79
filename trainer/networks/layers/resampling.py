"""Resampling by a factor of two with the binomial filter [1, 2, 1], as products with small constant matrices.

A matrix product is a single pass over memory, and so are its derivatives of every order; slices and sums take twice as
long, a depthwise convolution too. Edges repeat: a constant map stays constant.

Legend: `B` images, `H W` map, `C` channels.
"""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers


@keras.saving.register_keras_serializable("trainer")
class Upsample(layers.Layer):
    """[B, H, W, C] to [B, 2H, 2W, C]: even pixels are the inputs, odd ones the mean of their two neighbors."""

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        batch, height, width, channels = input_shape
        return (batch, height * 2, width * 2, channels)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        height, width = inputs.shape[1:3]
        return _resampled(inputs, _up_table(height), _up_table(width))


@keras.saving.register_keras_serializable("trainer")
class Downsample(layers.Layer):
    """[B, H, W, C] to [B, H/2, W/2, C]: (1, 2, 1)/4 along each axis around every even pixel. H and W are even."""

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        batch, height, width, channels = input_shape
        return (batch, height // 2, width // 2, channels)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        height, width = inputs.shape[1:3]
        return _resampled(inputs, _down_table(height), _down_table(width))


def _resampled(inputs: tf.Tensor, of_rows: np.ndarray, of_columns: np.ndarray) -> tf.Tensor:
    height, width, channels = inputs.shape[1:]
    rows = tf.matmul(tf.constant(of_rows, inputs.dtype), tf.reshape(inputs, [-1, height, width * channels]))
    columns = tf.matmul(tf.constant(of_columns, inputs.dtype), tf.reshape(rows, [-1, width, channels]))
    return tf.reshape(columns, [-1, len(of_rows), len(of_columns), channels])


@functools.cache
def _up_table(size: int) -> np.ndarray:
    """float32 [2*size, size]."""
    table = np.repeat(np.eye(size, dtype=np.float32), 2, axis=0)
    table[1:-1:2] = (table[0:-2:2] + table[2::2]) / 2
    return table


@functools.cache
def _down_table(size: int) -> np.ndarray:
    """float32 [size/2, size]."""
    pixels = np.eye(size, dtype=np.float32)
    before = pixels[np.maximum(np.arange(0, size, 2) - 1, 0)]
    return (before + 2 * pixels[0::2] + pixels[1::2]) / 4
