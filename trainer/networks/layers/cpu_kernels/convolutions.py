"""Convolutions for CPUs for three cases in which the general kernels are slow.

"Thin" kernels convert between maps and images of few channels. "Fourier" kernels apply a large kernel to a small map.
"Wide" kernels have many channels and a small map on one side, where the gradient of the kernel is slow in bfloat16.

Shapes: `B` images, `h w` small map, `H W` large map, `c` few channels, `C D` channels, `k` kernel size. Everything is
float32 or bfloat16, NHWC, with "same" padding, and differentiable any number of times.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

_MAX_THIN_CHANNELS = 4
_MIN_FOURIER_CHANNELS = 64
_MIN_FOURIER_GAIN = 6
_MIN_WIDE_CHANNELS = 256
_MAX_WIDE_PIXELS = 16
_uses_general_kernels = contextvars.ContextVar("uses_general_kernels", default=False)


@contextlib.contextmanager
def general_kernels() -> Iterator[None]:
    """Makes layers that are called in the context use TensorFlow's general kernels, which other runtimes have, too."""
    token = _uses_general_kernels.set(True)
    try:
        yield
    finally:
        _uses_general_kernels.reset(token)


def supports_thin_kernel(layer: keras.layers.Layer, inputs: tf.Tensor, thin_channels: int) -> bool:
    """Returns whether `thin_conv` or `thin_conv_transpose` can compute a layer.

    Args:
        layer: Convolution, transposed or not.
        inputs: Inputs of the layer, [B, H, W, C].
        thin_channels: Number of channels on the image side of the layer.
    """
    stride = layer.strides[0]
    return (
        _is_plain(layer, inputs)
        and thin_channels <= _MAX_THIN_CHANNELS
        and stride > 1
        and layer.kernel_size[0] >= stride
        and all(size % stride == 0 for size in inputs.shape[1:3])
    )


def supports_fourier_kernel(layer: keras.layers.Layer, inputs: tf.Tensor) -> bool:
    """Returns whether `fourier_conv_transpose` can compute a layer faster than the general kernel."""
    size = layer.kernel_size[0]
    height, width = inputs.shape[1:3]
    if not _is_plain(layer, inputs) or layer.strides[0] != 1 or size % 2 == 0:
        return False
    num_products = (height + size // 2) * (width + size // 2) * 1.5
    gain = height * width * size * size / num_products
    return gain >= _MIN_FOURIER_GAIN and min(layer.filters, inputs.shape[3]) >= _MIN_FOURIER_CHANNELS


def supports_wide_kernel(layer: keras.layers.Layer, inputs: tf.Tensor) -> bool:
    """Returns whether `wide_conv` or `wide_conv_transpose` can compute a layer faster than the general kernel."""
    if inputs.dtype != tf.bfloat16 or not _is_plain(layer, inputs):
        return False
    stride = 1 if isinstance(layer, keras.layers.Conv2DTranspose) else layer.strides[0]
    height, width = inputs.shape[1:3]
    return (
        height % stride == width % stride == 0
        and height * width <= _MAX_WIDE_PIXELS * stride**2
        and min(layer.kernel.shape[2:]) >= _MIN_WIDE_CHANNELS
    )


def _is_plain(layer: keras.layers.Layer, inputs: tf.Tensor) -> bool:
    """Returns whether a layer runs on a CPU and has none of the settings that the kernels here do not support."""
    return (
        not _uses_general_kernels.get()
        and inputs.dtype in (tf.float32, tf.bfloat16)
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


class _Kernels(NamedTuple):
    """A convolution and its transpose, each other's gradient, with replacements for general kernels.

    Both take a kernel [k, k, c, C] and a stride.

    Attributes:
        conv_transpose: (maps [B, h, w, C], kernel, stride) -> images [B, H, W, c].
        kernel_gradient: (images [B, H, W, c], kernel, maps [B, h, w, C], stride) -> gradient of the kernel.
    """

    conv_transpose: Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor]
    kernel_gradient: Callable[[tf.Tensor, tf.Tensor, tf.Tensor, int], tf.Tensor]

    def conv(self, images: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
        @tf.custom_gradient
        def convolve(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Any]:
            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                kernel_gradient = self.kernel_gradient(images, kernel, upstream, stride)
                return self.transpose(upstream, kernel, stride), kernel_gradient

            return tf.nn.conv2d(images, kernel, stride, "SAME"), gradient

        return convolve(images, kernel)

    def transpose(self, maps: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
        @tf.custom_gradient
        def convolve(maps: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Any]:
            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                kernel_gradient = self.kernel_gradient(upstream, kernel, maps, stride)
                return self.conv(upstream, kernel, stride), kernel_gradient

            return self.conv_transpose(maps, kernel, stride), gradient

        return convolve(maps, kernel)


def thin_conv(images: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """Returns the convolution of `images` [B, H, W, c] with `kernel` [k, k, c, C]: [B, H/stride, W/stride, C]."""
    return _THIN.conv(images, kernel, stride)


def thin_conv_transpose(maps: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """Returns the transposed convolution of `maps` [B, h, w, C] with `kernel` [k, k, c, C]: [B, H, W, c]."""
    return _THIN.transpose(maps, kernel, stride)


def wide_conv(maps: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """Returns the convolution of `maps` [B, H, W, C] with `kernel` [k, k, C, D]: [B, h, w, D].

    The gradient of the kernel is one matrix product of the patches of the larger map and of the smaller map.
    """
    return _WIDE.conv(maps, kernel, stride)


def wide_conv_transpose(maps: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """Returns the transposed convolution of `maps` [B, h, w, D] with `kernel` [k, k, C, D]: [B, H, W, C]."""
    return _WIDE.transpose(maps, kernel, stride)


def _overlap_add(maps: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """Computes the transposed convolution by one matrix product, which gives a k×k patch for each pixel of the map.

    The patches are cut into blocks of stride×stride pixels. Overlapping blocks are added while they are still channels,
    and unfolded to pixels once at the end.
    """
    size, _, thin, channels = kernel.shape
    height, width = maps.shape[1:3]
    num_blocks = -(-size // stride)
    padding = num_blocks * stride - size
    patches = tf.pad(kernel, [[0, padding], [0, padding], [0, 0], [0, 0]])
    patches = tf.reshape(patches, [num_blocks, stride, num_blocks, stride, thin, channels])
    patches = tf.reshape(tf.transpose(patches, [0, 2, 1, 3, 4, 5]), [-1, channels])
    products = tf.matmul(tf.reshape(maps, [-1, channels]), patches, transpose_b=True)
    blocks = tf.split(tf.reshape(products, [-1, height, width, patches.shape[0]]), num_blocks * num_blocks, axis=-1)
    last = num_blocks - 1
    shifted = [
        tf.pad(blocks[down * num_blocks + right], [[0, 0], [down, last - down], [right, last - right], [0, 0]])
        for down in range(num_blocks)
        for right in range(num_blocks)
    ]
    unfolded = tf.nn.depth_to_space(tf.add_n(shifted), stride)
    margin = (size - stride) // 2
    return unfolded[:, margin : margin + height * stride, margin : margin + width * stride]


def _kernel_gradient(images: tf.Tensor, kernel: tf.Tensor, maps: tf.Tensor, stride: int) -> tf.Tensor:
    return tf.raw_ops.Conv2DBackpropFilter(
        input=images,
        filter_sizes=kernel.shape,
        out_backprop=maps,
        strides=[1, stride, stride, 1],
        padding="SAME",
    )


def _general_transpose(maps: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    num_images, height, width, _ = tf.unstack(tf.shape(maps))
    outputs = tf.nn.conv2d_transpose(
        maps, kernel, [num_images, height * stride, width * stride, kernel.shape[2]], stride, "SAME"
    )
    outputs.set_shape([maps.shape[0], maps.shape[1] * stride, maps.shape[2] * stride, kernel.shape[2]])
    return outputs


def _kernel_gradient_of_patches(images: tf.Tensor, kernel: tf.Tensor, maps: tf.Tensor, stride: int) -> tf.Tensor:
    size, strides = kernel.shape[0], [1, stride, stride, 1]
    patches = tf.image.extract_patches(images, [1, size, size, 1], strides, [1, 1, 1, 1], "SAME")
    patches = tf.reshape(patches, [-1, patches.shape[-1]])
    gradient = tf.matmul(patches, tf.reshape(maps, [-1, kernel.shape[3]]), transpose_a=True)
    return tf.reshape(gradient, kernel.shape)


_THIN = _Kernels(_overlap_add, _kernel_gradient)
_WIDE = _Kernels(_general_transpose, _kernel_gradient_of_patches)


def fourier_conv_transpose(maps: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Returns the transposed convolution of stride 1 of `maps` [B, h, w, C] with `kernel` [k, k, D, C]: [B, h, w, D].

    A convolution is one product per frequency. Because inputs are real, half of the frequencies suffice, and a complex
    product takes three real ones: 7×7 maps with 5×5 kernels need 121 products per pair of channels instead of 1,225.
    The transforms are three small constant matrices, so the whole computation, gradients included, is matrix products.
    They are in float32, because rounded frequencies would add up to large errors.
    """
    dtype = maps.dtype
    maps, kernel = tf.cast(maps, tf.float32), tf.cast(kernel, tf.float32)
    height, width, channels = maps.shape[1:]
    size, _, filters, _ = kernel.shape
    map_matrix, kernel_matrix, output_matrix = (tf.constant(matrix) for matrix in _transforms(height, width, size))
    pixels = tf.reshape(tf.transpose(maps, [1, 2, 0, 3]), [height * width, -1])
    map_values = tf.reshape(tf.matmul(map_matrix, pixels), [map_matrix.shape[0], -1, channels])
    kernel_values = tf.matmul(kernel_matrix, tf.reshape(kernel, [size * size, filters * channels]))
    kernel_values = tf.reshape(kernel_values, [-1, filters, channels])
    products = tf.matmul(map_values, kernel_values, transpose_b=True)
    outputs = tf.matmul(output_matrix, tf.reshape(products, [map_matrix.shape[0], -1]), transpose_a=True)
    return tf.cast(tf.transpose(tf.reshape(outputs, [height, width, -1, filters]), [2, 0, 1, 3]), dtype)


@functools.cache
def _transforms(height: int, width: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the matrices that transform a map and a kernel to `P` real values each, and `P` products to an output.

    Returns:
        float32 map_matrix [P, h*w], kernel_matrix [P, k*k] and output_matrix [P, h*w], such that
        output = output_matrixᵀ · ((map_matrix · map) * (kernel_matrix · kernel)).
    """
    radius = size // 2
    period = (height + radius, width + radius)  # The wrapped part of the circular convolution is outside the output.
    pixels, taps = _grid(height, width, 0), _grid(size, size, -radius)
    map_rows: list[np.ndarray] = []
    kernel_rows: list[np.ndarray] = []
    output_rows: list[np.ndarray] = []
    for row in range(period[0]):
        for column in range(period[1]):
            mirrored = (-row % period[0], -column % period[1])
            if (row, column) > mirrored:
                continue
            angle = 2j * np.pi * np.array([row / period[0], column / period[1]])
            x, w, y = np.exp(-angle @ pixels), np.exp(-angle @ taps), np.exp(angle @ pixels)
            y /= period[0] * period[1]
            if (row, column) == mirrored:
                for rows, values in zip((map_rows, kernel_rows, output_rows), (x, w, y), strict=True):
                    rows.append(values.real)
                continue
            y *= 2
            # (a + bi)(c + di) from the products (a + b)c, a(d - c), b(c + d)
            map_rows += [x.real + x.imag, x.real, x.imag]
            kernel_rows += [w.real, w.imag - w.real, w.real + w.imag]
            output_rows += [y.real - y.imag, -y.imag, -y.real]
    return np.array(map_rows, np.float32), np.array(kernel_rows, np.float32), np.array(output_rows, np.float32)


def _grid(height: int, width: int, origin: int) -> np.ndarray:
    """Returns the row and column of every pixel: [2, h*w]."""
    rows, columns = np.meshgrid(np.arange(height) + origin, np.arange(width) + origin, indexing="ij")
    return np.stack([rows.ravel(), columns.ravel()])
