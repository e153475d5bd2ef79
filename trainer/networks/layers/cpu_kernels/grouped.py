"""Grouped convolution for CPUs, fast in its derivatives of every order.

TensorFlow has a kernel for grouped convolutions on CPUs, but none for their gradients. The gradient with respect to
the maps is a grouped convolution itself. The one with respect to the kernel is computed group by group.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def grouped_conv(inputs: tf.Tensor, kernel: tf.Tensor, num_groups: int) -> tf.Tensor:
    """Returns the grouped convolution of `inputs` [B, H, W, C] with `kernel` [k, l, C/num_groups, D], as [B, H, W, D].

    The stride is 1, and the padding keeps the size of the maps.

    Args:
        inputs: Maps whose C channels form `num_groups` groups.
        kernel: Kernel of odd size, whose D output channels form as many groups.
        num_groups: Number of groups.
    """

    @tf.custom_gradient
    def conv(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
        def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            transposed = grouped_conv(upstream, _transpose(kernel, num_groups), num_groups)
            return transposed, _kernel_gradient(inputs, upstream, kernel.shape, num_groups)

        return tf.nn.conv2d(inputs, kernel, 1, "SAME"), gradients

    return conv(inputs, kernel)


def split_conv(inputs: tf.Tensor, kernel: tf.Tensor, num_groups: int, **settings: Any) -> tf.Tensor:
    """Returns a grouped convolution with any settings of `tf.nn.conv2d`, as one ordinary convolution per group."""
    groups = zip(_split(inputs, num_groups), _split(kernel, num_groups), strict=True)
    return _concat(*(tf.nn.conv2d(group, group_kernel, **settings) for group, group_kernel in groups))


def _transpose(kernel: tf.Tensor, num_groups: int) -> tf.Tensor:
    """Returns the kernel [k, l, D/num_groups, C] of the convolution that is the transpose of the one with `kernel`."""
    rows, columns, inputs, outputs = kernel.shape
    grouped = tf.reshape(kernel[::-1, ::-1], [rows, columns, inputs, num_groups, outputs // num_groups])
    return tf.reshape(
        tf.transpose(grouped, [0, 1, 4, 3, 2]), [rows, columns, outputs // num_groups, num_groups * inputs]
    )


def _kernel_gradient(inputs: tf.Tensor, upstream: tf.Tensor, shape: tf.TensorShape, num_groups: int) -> tf.Tensor:
    """Returns the gradient of a kernel of a shape [k, l, C/num_groups, D]."""
    group_shape = [*shape[:3], shape[3] // num_groups]
    groups = zip(_split(inputs, num_groups), _split(upstream, num_groups), strict=True)
    return _concat(
        *(
            tf.raw_ops.Conv2DBackpropFilter(
                input=group, filter_sizes=group_shape, out_backprop=gradient, strides=[1, 1, 1, 1], padding="SAME"
            )
            for group, gradient in groups
        )
    )


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
