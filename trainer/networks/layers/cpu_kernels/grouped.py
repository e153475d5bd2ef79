"""Grouped convolution for CPUs, as one ordinary convolution per group."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def grouped_conv(inputs: tf.Tensor, kernel: tf.Tensor, num_groups: int, **settings: Any) -> tf.Tensor:
    """Returns the grouped convolution of `inputs` [B, H, W, C] with `kernel` [k, k, C/num_groups, D].

    Args:
        inputs: Maps whose C channels form `num_groups` groups.
        kernel: Kernel whose D output channels form as many groups.
        num_groups: Number of groups.
        **settings: Arguments of `tf.nn.conv2d`: strides, padding and dilations.
    """
    groups = zip(_split(inputs, num_groups), _split(kernel, num_groups), strict=True)
    return _concat(*(tf.nn.conv2d(group, group_kernel, **settings) for group, group_kernel in groups))


def _split(values: tf.Tensor, num_groups: int) -> Sequence[tf.Tensor]:
    """Splits the last axis into groups. `_split` and `_concat` are each other's gradient.

    TensorFlow's own gradient of a concatenation takes slices, whose gradient in turn pads and sums whole maps.
    """

    @tf.custom_gradient
    def split(values: tf.Tensor) -> tuple[list[tf.Tensor], Callable[..., tf.Tensor]]:
        return tf.split(values, num_groups, axis=-1), _concat

    return split(values)


@tf.custom_gradient
def _concat(*groups: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Sequence[tf.Tensor]]]:
    return tf.concat(groups, axis=-1), lambda upstream: _split(upstream, len(groups))
