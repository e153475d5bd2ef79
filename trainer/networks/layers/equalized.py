"""Layers with an equalized learning rate: weights start with N(0, 1) and are scaled by fan-in**-0.5 in each pass.

Adam then changes all of them at the same relative speed. Weights are scaled in float32 and used in the layer's compute
dtype. Shapes: `B` images, `H W` map size, `C D` channels. Source: arXiv 1710.10196, section 4.1.
"""

import math
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from trainer.networks.layers.leaky_relu import leaky_relu
from trainer.networks.layers.resampling import filter_maps

ACTIVATION_GAIN = 2**0.5
"""Gain of a leaky ReLU, which preserves the variance. The layers multiply kernels and biases by it, not the outputs.
The result is the same, because a leaky ReLU of a positive multiple is that multiple of the leaky ReLU, and a pass over
the maps is saved."""


def convolve(inputs: tf.Tensor, kernel: tf.Tensor, *, up: bool = False, down: bool = False) -> tf.Tensor:
    """Returns the convolution of maps [B, H, W, C] with a kernel [k, k, C, D], joined with a change of size by 2.

    Args:
        inputs: Maps.
        kernel: Kernel of the dtype of the maps; `k` is 1, or 3 with a change of size.
        up: Whether to double the maps: a transposed convolution, then the filter [1, 3, 3, 1].
        down: Whether to halve the maps: the filter, then a convolution of stride 2.
    """
    height, width, channels = inputs.shape[1:]
    size, filters = kernel.shape[0], kernel.shape[3]
    if up:
        shape = [tf.shape(inputs)[0], height * 2 + 1, width * 2 + 1, filters]
        # Three of four pixels between which the filter averages are zeros, hence the factor.
        transposed = tf.transpose(kernel * tf.cast(4.0, kernel.dtype), [0, 1, 3, 2])
        return filter_maps(tf.nn.conv2d_transpose(inputs, transposed, shape, 2, "VALID"), 1, 1, (1, 1))
    if down and size == 1:
        pixels = tf.reshape(filter_maps(inputs, 1, 2, (1, 1)), [-1, channels])
        pixels = tf.matmul(pixels, kernel[0, 0])  # faster than a convolution on a CPU
        return tf.reshape(pixels, [-1, height // 2, width // 2, filters])
    if down:
        return tf.nn.conv2d(filter_maps(inputs, 1, 1, (2, 2)), kernel, 2, "VALID")
    return tf.nn.conv2d(inputs, kernel, 1, "SAME")


@keras.saving.register_keras_serializable("trainer")
class EqualizedDense(layers.Layer):
    """A dense layer [B, C] -> [B, units] with an equalized learning rate.

    Args:
        units: Number of outputs.
        rate_multiplier: Factor of the learning rate of kernel and bias.
        activates: Whether to apply a leaky ReLU of slope 0.2 with the gain `ACTIVATION_GAIN`.
        **kwargs: Arguments of Keras's `Layer`.
    """

    def __init__(self, units: int, *, rate_multiplier: float = 1.0, activates: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.units, self.rate_multiplier, self.activates = units, rate_multiplier, activates

    def build(self, input_shape: tuple[Any, ...]) -> None:
        initializer = keras.initializers.RandomNormal(stddev=1.0 / self.rate_multiplier)
        shape = (input_shape[-1], self.units)
        self.kernel = self.add_weight(shape=shape, initializer=initializer, name="kernel", autocast=False)
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias", autocast=False)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        rate = self.rate_multiplier * (ACTIVATION_GAIN if self.activates else 1.0)
        kernel = tf.cast(tf.convert_to_tensor(self.kernel) * (rate * inputs.shape[-1] ** -0.5), inputs.dtype)
        bias = tf.cast(tf.convert_to_tensor(self.bias) * rate, inputs.dtype)
        outputs = tf.nn.bias_add(tf.matmul(inputs, kernel), bias)
        return leaky_relu(outputs) if self.activates else outputs

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return (input_shape[0], self.units)

    def get_config(self) -> dict[str, Any]:
        own = {"units": self.units, "rate_multiplier": self.rate_multiplier, "activates": self.activates}
        return super().get_config() | own


@keras.saving.register_keras_serializable("trainer")
class EqualizedConv2D(layers.Layer):
    """A convolution with an equalized learning rate: [B, H, W, C] -> [B, H, W, filters], or half the size.

    Args:
        filters: Number of output channels.
        kernel_size: Side of the kernel: 1 or 3.
        halves: Whether to filter and halve the maps.
        activates: Whether to add a bias and apply a leaky ReLU of slope 0.2 with the gain `ACTIVATION_GAIN`.
        **kwargs: Arguments of Keras's `Layer`.
    """

    def __init__(self, filters: int, kernel_size: int, *, halves: bool = False, activates: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.halves, self.activates = filters, kernel_size, halves, activates

    def build(self, input_shape: tuple[Any, ...]) -> None:
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        initializer = keras.initializers.RandomNormal(stddev=1.0)
        self.kernel = self.add_weight(shape=shape, initializer=initializer, name="kernel", autocast=False)
        if self.activates:
            self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias", autocast=False)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel, gain = tf.convert_to_tensor(self.kernel), ACTIVATION_GAIN if self.activates else 1.0
        kernel = tf.cast(kernel * (gain * math.prod(kernel.shape[:3]) ** -0.5), inputs.dtype)
        outputs = convolve(inputs, kernel, down=self.halves)
        if not self.activates:
            return outputs
        return leaky_relu(tf.nn.bias_add(outputs, tf.cast(tf.convert_to_tensor(self.bias) * gain, outputs.dtype)))

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        batch, height, width, _ = input_shape
        return (batch, *(size // 2 if self.halves else size for size in (height, width)), self.filters)

    def get_config(self) -> dict[str, Any]:
        own = {"filters": self.filters, "kernel_size": self.kernel_size}
        return super().get_config() | own | {"halves": self.halves, "activates": self.activates}
