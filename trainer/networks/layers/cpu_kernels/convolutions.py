"""Convolutions for CPUs in the two shapes where the general kernels waste most of a GAN's step.

Legend: `B` images, `h w` small map, `H W` large map, `C` channels, `k` kernel size. Everything is float32, NHWC,
'same' padding, and differentiable any number of times.
"""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_MAX_THIN_CHANNELS = 4
_MIN_SPECTRAL_CHANNELS = 64
_MIN_SPECTRAL_GAIN = 6


def thin_applies(layer: keras.layers.Layer, inputs: tf.Tensor, thin_channels: int) -> bool:
    """Whether a layer moves between a map and images of few channels by an even stride that `thin_*` handle."""
    stride = layer.strides[0]
    return (
        _is_plain(layer, inputs)
        and thin_channels <= _MAX_THIN_CHANNELS
        and stride > 1
        and layer.kernel_size[0] >= stride
        and all(size % stride == 0 for size in inputs.shape[1:3])
    )


def spectral_applies(layer: keras.layers.Layer, inputs: tf.Tensor) -> bool:
    """Whether a layer with stride 1 has so large a kernel on so small a map that frequencies are the cheaper way."""
    size = layer.kernel_size[0]
    height, width = inputs.shape[1:3]
    if not _is_plain(layer, inputs) or layer.strides[0] != 1 or size % 2 == 0:
        return False
    num_products = (height + size // 2) * (width + size // 2) * 1.5
    gain = height * width * size * size / num_products
    return gain >= _MIN_SPECTRAL_GAIN and min(layer.filters, inputs.shape[3]) >= _MIN_SPECTRAL_CHANNELS


def _is_plain(layer: keras.layers.Layer, inputs: tf.Tensor) -> bool:
    return (
        inputs.dtype == tf.float32
        and layer.padding == "same"
        and layer.data_format == "channels_last"
        and tuple(layer.dilation_rate) == (1, 1)
        and layer.kernel_size[0] == layer.kernel_size[1]
        and layer.strides[0] == layer.strides[1]
        and getattr(layer, "groups", 1) == 1
        and getattr(layer, "output_padding", None) is None
        and None not in inputs.shape[1:]
        and not tf.config.list_physical_devices("GPU")
    )


def thin_conv(images: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """The convolution of `images` [B, H, W, c] with `kernel` [k, k, c, C]: [B, H/stride, W/stride, C]."""

    @tf.custom_gradient
    def convolve(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return thin_conv_transpose(upstream, kernel, stride), _kernel_gradient(images, kernel, upstream, stride)

        return tf.nn.conv2d(images, kernel, stride, "SAME"), gradient

    return convolve(images, kernel)


def thin_conv_transpose(maps: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """The transposed convolution of `maps` [B, h, w, C] with `kernel` [k, k, c, C]: [B, h*stride, w*stride, c]."""

    @tf.custom_gradient
    def convolve(maps: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return thin_conv(upstream, kernel, stride), _kernel_gradient(upstream, kernel, maps, stride)

        return _stamp(maps, kernel, stride), gradient

    return convolve(maps, kernel)


def _stamp(maps: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """The transposed convolution by one matrix product, which gives every map pixel's k×k stamp.

    Blocks of stride×stride pixels of the stamps are added where they overlap, still as channels, and unfolded once.
    """
    size, _, thin, channels = kernel.shape
    height, width = maps.shape[1:3]
    blocks = -(-size // stride)
    spare = blocks * stride - size
    stamps = tf.pad(kernel, [[0, spare], [0, spare], [0, 0], [0, 0]])
    stamps = tf.reshape(stamps, [blocks, stride, blocks, stride, thin, channels])
    stamps = tf.reshape(tf.transpose(stamps, [0, 2, 1, 3, 4, 5]), [-1, channels])
    stamped = tf.matmul(tf.reshape(maps, [-1, channels]), stamps, transpose_b=True)
    parts = tf.split(tf.reshape(stamped, [-1, height, width, stamps.shape[0]]), blocks * blocks, axis=-1)
    last = blocks - 1
    shifted = [
        tf.pad(parts[down * blocks + right], [[0, 0], [down, last - down], [right, last - right], [0, 0]])
        for down in range(blocks)
        for right in range(blocks)
    ]
    unfolded = tf.nn.depth_to_space(tf.add_n(shifted), stride)
    before = (size - stride) // 2
    return unfolded[:, before : before + height * stride, before : before + width * stride]


def _kernel_gradient(images: tf.Tensor, kernel: tf.Tensor, maps: tf.Tensor, stride: int) -> tf.Tensor:
    return tf.raw_ops.Conv2DBackpropFilter(
        input=images,
        filter_sizes=kernel.shape,
        out_backprop=maps,
        strides=[1, stride, stride, 1],
        padding="SAME",
    )


def spectral_conv_transpose(maps: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """The transposed convolution of stride 1 of `maps` [B, h, w, C] with `kernel` [k, k, D, C]: [B, h, w, D].

    A convolution is a product at each frequency. With real inputs, half of the frequencies do, and a complex product
    takes three real ones: 7×7 maps with 5×5 kernels need 121 products a channel pair instead of 1,225. The transforms
    are three small constant matrices, so that all of it, its gradients too, is matrix products.
    """
    height, width, channels = maps.shape[1:]
    size, _, filters, _ = kernel.shape
    of_map, of_kernel, of_output = (tf.constant(table) for table in _spectral_tables(height, width, size))
    pixels = tf.reshape(tf.transpose(maps, [1, 2, 0, 3]), [height * width, -1])
    map_values = tf.reshape(tf.matmul(of_map, pixels), [of_map.shape[0], -1, channels])
    kernel_values = tf.matmul(of_kernel, tf.reshape(kernel, [size * size, filters * channels]))
    kernel_values = tf.reshape(kernel_values, [-1, filters, channels])
    products = tf.matmul(map_values, kernel_values, transpose_b=True)
    outputs = tf.matmul(of_output, tf.reshape(products, [of_map.shape[0], -1]), transpose_a=True)
    return tf.transpose(tf.reshape(outputs, [height, width, -1, filters]), [2, 0, 1, 3])


@functools.cache
def _spectral_tables(height: int, width: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matrices that take a map, a kernel and back an output to real values at `P` products.

    Returns:
        float32 [P, h*w], [P, k*k] and [P, h*w], such that output = of_outputᵀ((of_map·map) * (of_kernel·kernel)).
    """
    radius = size // 2
    period = (height + radius, width + radius)  # the wrapped part of the circular convolution falls on no output
    pixels, taps = _grid(height, width, 0), _grid(size, size, -radius)
    of_map: list[np.ndarray] = []
    of_kernel: list[np.ndarray] = []
    of_output: list[np.ndarray] = []
    for row in range(period[0]):
        for column in range(period[1]):
            mirrored = (-row % period[0], -column % period[1])
            if (row, column) > mirrored:
                continue
            angle = 2j * np.pi * np.array([row / period[0], column / period[1]])
            x, w, y = np.exp(-angle @ pixels), np.exp(-angle @ taps), np.exp(angle @ pixels)
            y /= period[0] * period[1]
            if (row, column) == mirrored:
                for table, values in zip((of_map, of_kernel, of_output), (x, w, y), strict=True):
                    table.append(values.real)
                continue
            y *= 2
            # (a + bi)(c + di) from the products (a + b)c, a(d - c), b(c + d)
            of_map += [x.real + x.imag, x.real, x.imag]
            of_kernel += [w.real, w.imag - w.real, w.real + w.imag]
            of_output += [y.real - y.imag, -y.imag, -y.real]
    return np.array(of_map, np.float32), np.array(of_kernel, np.float32), np.array(of_output, np.float32)


def _grid(height: int, width: int, origin: int) -> np.ndarray:
    """Row and column of every pixel: [2, h*w]."""
    rows, columns = np.meshgrid(np.arange(height) + origin, np.arange(width) + origin, indexing="ij")
    return np.stack([rows.ravel(), columns.ravel()])
