"""The two convolutions of a ResNeXt block, fast on CPUs in their first and second derivatives.

Legend: `B` images, `H W` map, `C` channels in, `D` channels out, `G` groups, `k` kernel size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers


@keras.saving.register_keras_serializable("trainer")
class GroupedConv2D(layers.Conv2D):
    """Keras's convolution with `groups`, which on a CPU is one ordinary convolution a group.

    TensorFlow has no grouped kernel for CPUs: XLA compiles one that takes many times as long. A group of 16 channels
    fills a vector register of the ordinary kernel, so that splitting wastes nothing. Data is channels last.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel, groups = tf.convert_to_tensor(self.kernel), self.groups
        settings = {"strides": self.strides, "padding": self.padding.upper(), "dilations": self.dilation_rate}
        if groups == 1 or tf.config.list_physical_devices("GPU"):
            return self._finished(tf.nn.conv2d(inputs, kernel, **settings))
        parts = zip(_parts(inputs, groups), _parts(kernel, groups), strict=True)
        return self._finished(_joined(*(tf.nn.conv2d(part, of_part, **settings) for part, of_part in parts)))

    def _finished(self, outputs: tf.Tensor) -> tf.Tensor:
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        return self.activation(outputs)


@keras.saving.register_keras_serializable("trainer")
class PointwiseConv2D(layers.Dense):
    """A 1×1 convolution, [B, H, W, C] to [B, H, W, D], as one matrix product: that beats the convolution on a CPU.

    Keras's own `Dense` makes of it one small product an image, and a gradient of the kernel for each of them.
    """

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        height, width, channels = inputs.shape[1:]
        pixels = tf.reshape(inputs, [-1, channels])
        outputs = tf.matmul(pixels, tf.convert_to_tensor(self.kernel))
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        return tf.reshape(self.activation(outputs), [-1, height, width, self.units])


def _parts(whole: tf.Tensor, num_parts: int) -> Sequence[tf.Tensor]:
    """The groups of channels of [..., C]. Their gradient is `_joined`, and the other way round.

    TensorFlow takes slices for the gradient of a concatenation, and pads and sums whole maps for a slice's.
    """

    @tf.custom_gradient
    def split(whole: tf.Tensor) -> tuple[list[tf.Tensor], Callable[..., tf.Tensor]]:
        return tf.split(whole, num_parts, axis=-1), _joined

    return split(whole)


@tf.custom_gradient
def _joined(*parts: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Sequence[tf.Tensor]]]:
    return tf.concat(parts, axis=-1), lambda upstream: _parts(upstream, len(parts))
