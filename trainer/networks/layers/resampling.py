"""Resampling by a factor of two with binomial filters, as products with small constant matrices.

A matrix product is a single pass over memory, and so are its derivatives of every order. Slices and sums take twice as
long. `Upsample` and `Downsample` have the filter [1, 2, 1] and repeat edge pixels, so a constant map stays constant.
`filter_maps` has the filter [1, 3, 3, 1] of StyleGAN2 and pads with zeros; on a CPU, it filters maps without a change
of size by a depthwise convolution.

Shapes: `B` images, `H W` map size, `C` channels.
"""

import functools
from collections.abc import Callable
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


def filter_maps(maps: tf.Tensor, up: int, down: int, padding: tuple[int, int]) -> tf.Tensor:
    """Inserts zeros between pixels, pads, applies the filter [1, 3, 3, 1], and drops pixels, along height and width.

    Args:
        maps: Maps [B, H, W, C].
        up: Factor of the inserted zeros; each pixel is followed by `up` - 1 of them. The sum of the filter is `up`.
        down: Factor of the dropped pixels; every `down`-th one remains.
        padding: Number of zeros before the first and after the last pixel.

    Returns:
        Maps [B, h, w, C] with h = (H * up + padding - 3) / down, rounded up, and w in the same way.
    """
    if up == down == 1 and not tf.config.list_physical_devices("GPU"):
        return _smooth(maps, padding)
    height, width = maps.shape[1:3]
    return _resample(maps, *(_filter_matrix(size, up, down, padding) for size in (height, width)))


def _smooth(maps: tf.Tensor, padding: tuple[int, int]) -> tf.Tensor:
    """Applies the filter to maps [B, H, W, C].

    Its derivative is the same filter with the opposite padding, which takes a fraction of the time of TensorFlow's.
    """
    taps = np.array([1, 3, 3, 1], np.float32) / 8
    kernel = np.repeat(np.outer(taps, taps)[..., np.newaxis, np.newaxis], maps.shape[3], axis=2)

    @tf.custom_gradient
    def smooth(maps: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        outputs = tf.nn.depthwise_conv2d(
            maps, tf.constant(kernel, maps.dtype), [1, 1, 1, 1], [[0, 0], padding, padding, [0, 0]]
        )
        return outputs, lambda upstream: _smooth(upstream, (3 - padding[0], 3 - padding[1]))

    return smooth(maps)


@functools.cache
def _filter_matrix(size: int, up: int, down: int, padding: tuple[int, int]) -> np.ndarray:
    """Returns the float32 matrix of `filter_maps` for maps of a size, with one column per pixel."""
    pixels = np.zeros((size * up + sum(padding), size), np.float32)
    pixels[padding[0] : padding[0] + size * up : up] = np.eye(size)
    num_outputs = len(pixels) - 3
    filtered = sum(pixels[tap : tap + num_outputs] * weight for tap, weight in enumerate((1, 3, 3, 1)))
    return np.asarray(filtered, np.float32)[::down] * np.float32(up / 8)
