"""The two convolutions of a ResNeXt block, fast on CPUs in their first and second derivatives.

Shapes: `B` images, `H W` map size, `C` input channels, `D` output channels.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import layers

from trainer.networks.layers.cpu_kernels.grouped import grouped_conv, split_conv


@keras.saving.register_keras_serializable("trainer")
class GroupedConv2D(layers.Conv2D):
    """Keras's convolution with `groups`, whose derivatives of every order are fast on a CPU. Data is channels last.

    `cpu_kernels.grouped` explains how. XLA's grouped kernel for CPUs is many times slower, so do not compile with XLA
    there.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = tf.convert_to_tensor(self.kernel)
        settings = {"strides": self.strides, "padding": self.padding.upper(), "dilations": self.dilation_rate}
        if self.groups == 1 or tf.config.list_physical_devices("GPU"):
            outputs = tf.nn.conv2d(inputs, kernel, **settings)
        elif self._keeps_size and all(size % 2 for size in self.kernel_size):
            outputs = grouped_conv(inputs, kernel, self.groups)
        else:
            outputs = split_conv(inputs, kernel, self.groups, **settings)
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        return self.activation(outputs)

    @property
    def _keeps_size(self) -> bool:
        return self.padding == "same" and self.strides == (1, 1) and self.dilation_rate == (1, 1)


@keras.saving.register_keras_serializable("trainer")
class PointwiseConv2D(layers.Dense):
    """A 1×1 convolution [B, H, W, C] -> [B, H, W, D] as one matrix product, which is faster than `Conv2D` on a CPU.

    Keras's own `Dense` computes one small product per image and a gradient of the kernel for each of them.
    """

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        height, width, channels = inputs.shape[1:]
        pixels = tf.reshape(inputs, [-1, channels])
        outputs = tf.matmul(pixels, tf.convert_to_tensor(self.kernel))
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        return tf.reshape(self.activation(outputs), [-1, height, width, self.units])
