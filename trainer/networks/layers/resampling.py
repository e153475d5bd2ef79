"""Resampling by a factor of two with the binomial filter [1, 2, 1], as products with small constant matrices.

A matrix product is a single pass over memory, and so are its derivatives of every order. Slices and sums take twice as
long, and so does a depthwise convolution. Edge pixels are repeated, so a constant map stays constant.

Legend: `B` images, `H W` map size, `C` channels.
"""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers


@keras.saving.register_keras_serializable("trainer")
class Upsample(layers.Layer):
    """Doubles maps [B, H, W, C] to [B, 2H, 2W, C]: even pixels are the inputs, odd ones the mean of both neighbors."""

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        batch, height, width, channels = input_shape
        return (batch, height * 2, width * 2, channels)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        height, width = inputs.shape[1:3]
        return _resample(inputs, _upsampling_matrix(height), _upsampling_matrix(width))


@keras.saving.register_keras_serializable("trainer")
class Downsample(layers.Layer):
    """Halves maps [B, H, W, C] to [B, H/2, W/2, C] with the filter [1, 2, 1]/4 at even pixels. H and W are even."""

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        batch, height, width, channels = input_shape
        return (batch, height // 2, width // 2, channels)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        height, width = inputs.shape[1:3]
        return _resample(inputs, _downsampling_matrix(height), _downsampling_matrix(width))


def _resample(inputs: tf.Tensor, row_matrix: np.ndarray, column_matrix: np.ndarray) -> tf.Tensor:
    height, width, channels = inputs.shape[1:]
    rows = tf.matmul(tf.constant(row_matrix, inputs.dtype), tf.reshape(inputs, [-1, height, width * channels]))
    columns = tf.matmul(tf.constant(column_matrix, inputs.dtype), tf.reshape(rows, [-1, width, channels]))
    return tf.reshape(columns, [-1, len(row_matrix), len(column_matrix), channels])


@functools.cache
def _upsampling_matrix(size: int) -> np.ndarray:
    """Returns a float32 matrix [2*size, size]."""
    matrix = np.repeat(np.eye(size, dtype=np.float32), 2, axis=0)
    matrix[1:-1:2] = (matrix[0:-2:2] + matrix[2::2]) / 2
    return matrix


@functools.cache
def _downsampling_matrix(size: int) -> np.ndarray:
    """Returns a float32 matrix [size/2, size]."""
    pixels = np.eye(size, dtype=np.float32)
    previous = pixels[np.maximum(np.arange(0, size, 2) - 1, 0)]
    return (previous + 2 * pixels[0::2] + pixels[1::2]) / 4
