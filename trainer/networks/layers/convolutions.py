"""Convolutions with Keras's results in less time, and convolutions that are joined with a change of size."""

from typing import Any

import keras
import tensorflow as tf
from keras import layers

from trainer.errors import ConfigError
from trainer.networks.layers.cpu_kernels import convolutions as cpu_convolutions


def _add_bias_and_activate(layer: keras.layers.Layer, outputs: tf.Tensor) -> tf.Tensor:
    if layer.use_bias:
        outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(layer.bias))
    return layer.activation(outputs) if layer.activation is not None else outputs


@keras.saving.register_keras_serializable("trainer")
class Conv2D(layers.Conv2D):
    """Keras's convolution with fast gradients on a CPU for images of few channels, and for small maps of many."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if cpu_convolutions.supports_thin_kernel(self, inputs, self.kernel.shape[2]):
            outputs = cpu_convolutions.thin_conv(inputs, tf.convert_to_tensor(self.kernel), self.strides[0])
        elif cpu_convolutions.supports_wide_kernel(self, inputs):
            outputs = cpu_convolutions.wide_conv(inputs, tf.convert_to_tensor(self.kernel), self.strides[0])
        else:
            return super().call(inputs)
        return _add_bias_and_activate(self, outputs)


@keras.saving.register_keras_serializable("trainer")
class Conv2DTranspose(layers.Conv2DTranspose):
    """Keras's transposed convolution, fast on a CPU for few channels and on small maps."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if self._maps_a_pixel(inputs):
            return _add_bias_and_activate(self, self._transform_pixel(inputs))
        if cpu_convolutions.supports_thin_kernel(self, inputs, self.filters):
            outputs = cpu_convolutions.thin_conv_transpose(inputs, tf.convert_to_tensor(self.kernel), self.strides[0])
        elif cpu_convolutions.supports_fourier_kernel(self, inputs):
            outputs = cpu_convolutions.fourier_conv_transpose(inputs, tf.convert_to_tensor(self.kernel))
        elif cpu_convolutions.supports_wide_kernel(self, inputs):
            outputs = cpu_convolutions.wide_conv_transpose(inputs, tf.convert_to_tensor(self.kernel), self.strides[0])
        else:
            return super().call(inputs)
        return _add_bias_and_activate(self, outputs)

    def _maps_a_pixel(self, inputs: tf.Tensor) -> bool:
        """Returns whether the outputs are a matrix product of the kernel and maps of one pixel."""
        is_plain = self.strides == self.dilation_rate == (1, 1) and self.output_padding is None
        is_valid = self.padding == "valid" and self.data_format == "channels_last"
        return is_plain and is_valid and tuple(inputs.shape[1:3]) == (1, 1)

    def _transform_pixel(self, inputs: tf.Tensor) -> tf.Tensor:
        """Applies the kernel [k, l, D, C] to maps [B, 1, 1, C]: [B, k, l, D]."""
        kernel = tf.convert_to_tensor(self.kernel)
        matrix = tf.reshape(kernel, [-1, kernel.shape[3]])
        return tf.reshape(tf.matmul(inputs[:, 0, 0], matrix, transpose_b=True), [-1, *kernel.shape[:3]])


class _ResamplingConv2D(layers.Conv2D):
    """A convolution of stride 1 joined with a change of size by 2: one kernel, one element larger, does both."""

    def __init__(self, filters: int, kernel_size: int | tuple[int, int], **kwargs: Any):
        super().__init__(filters, kernel_size, **(kwargs | {"padding": "same"}))
        if self.kernel_size[0] % 2 == 0 or self.kernel_size[1] % 2 == 0 or self.strides != (1, 1):
            raise ConfigError(
                f"{type(self).__name__} got kernel_size={self.kernel_size} and strides={self.strides}; "
                "give an odd kernel size and leave out strides."
            )


@keras.saving.register_keras_serializable("trainer")
class UpsamplingConv2D(_ResamplingConv2D):
    """Doubles a map by repeating its pixels, then convolves it: [B, h, w, C] -> [B, 2h, 2w, filters].

    Equivalent to `UpSampling2D(2)` followed by `Conv2D(filters, kernel_size, padding="same")`, but computed as one
    transposed convolution of stride 2. A 3×3 kernel takes 16 instead of 36 multiplications per input pixel and pair of
    channels, and the enlarged map is never stored.

    Args:
        filters: Number of output channels.
        kernel_size: Size of the convolution's kernel, odd.
        **kwargs: Arguments of Keras's `Conv2D`.
    """

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *(size and size * 2 for size in input_shape[1:3]), self.filters)

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        flipped = tf.transpose(tf.convert_to_tensor(kernel)[::-1, ::-1], [0, 1, 3, 2])
        sizes = tf.shape(inputs)
        output_sizes = [sizes[0], sizes[1] * 2, sizes[2] * 2, self.filters]
        outputs = tf.nn.conv2d_transpose(inputs, _convolve_with_ones(flipped), output_sizes, 2, "SAME")
        outputs.set_shape(self.compute_output_shape(tuple(inputs.shape)))
        return outputs


@keras.saving.register_keras_serializable("trainer")
class PoolingConv2D(_ResamplingConv2D):
    """Convolves a map, then averages 2×2 pixels: [B, 2h, 2w, C] -> [B, h, w, filters].

    Equivalent to `Conv2D(filters, kernel_size, padding="same")` followed by `AveragePooling2D(2)` on maps of even size,
    but computed as one convolution of stride 2. A 3×3 kernel takes 16 instead of 36 multiplications per output pixel
    and pair of channels. Maps of odd size are padded with zeros.

    Args:
        filters: Number of output channels.
        kernel_size: Size of the convolution's kernel, odd.
        **kwargs: Arguments of Keras's `Conv2D`.
    """

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *(size and -(-size // 2) for size in input_shape[1:3]), self.filters)

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(inputs, 0.25 * _convolve_with_ones(tf.convert_to_tensor(kernel)), 2, "SAME")


def _convolve_with_ones(kernel: tf.Tensor) -> tf.Tensor:
    """Returns a kernel [k, l, ...] convolved with 2×2 ones: [k+1, l+1, ...]."""
    rows = tf.pad(kernel, [[0, 1], [0, 0], [0, 0], [0, 0]]) + tf.pad(kernel, [[1, 0], [0, 0], [0, 0], [0, 0]])
    return tf.pad(rows, [[0, 0], [0, 1], [0, 0], [0, 0]]) + tf.pad(rows, [[0, 0], [1, 0], [0, 0], [0, 0]])


@keras.saving.register_keras_serializable("trainer")
class WholeMapConv2D(Conv2D):
    """A convolution with a kernel as large as the map, which ends a network without a dense layer.

    Takes [B, h, w, C] with `kernel_size=(h, w)` and `padding="valid"`, and returns [B, filters].
    """

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.filters)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.squeeze(super().call(inputs), [1, 2])
