"""Spectral normalization: layers of a discriminator whose kernels have a largest singular value of 1.

A kernel is treated as a matrix [M, N] whose N columns are its output channels.

Source: arXiv 1802.05957, equation 8 and algorithm 1.

Keras's `SpectralNormalization` overwrites the kernel that the optimizer updates. During a training step, only the
optimizer may write a network's weights, so that the overwritten kernel would be lost, and evaluation and export would
read the kernel without normalization. These layers keep the kernel and normalize it whenever they use it.
"""

from typing import Any

import keras
import tensorflow as tf

from trainer.networks.layers.convolutions import Conv2D, PoolingConv2D, WholeMapConv2D


class _SpectralNormMixin(keras.layers.Layer):
    """Divides a layer's kernel by its largest singular value whenever it is used, without changing the kernel.

    A power iteration tracks the singular value: one iteration per call in training, from the vector of the previous
    call, unless the layer is frozen. The vector is a buffer. Replicas have the same kernel, so they compute the same
    vector.
    """

    def add_weight(self, *args: Any, **kwargs: Any) -> keras.Variable:
        """Adds a weight that is float32 under every precision, so that the kernel is rounded after its division."""
        return super().add_weight(*args, **(kwargs | {"autocast": False}))

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.singular_vector = self.add_weight(
            name="singular_vector",
            shape=(self.kernel.shape[-1],),
            initializer="random_normal",
            trainable=False,
            aggregation="mean",
        )

    def save_own_variables(self, store: Any) -> None:
        """Saves all variables. Keras's dense and convolutional layers would leave out the vector."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        keras.layers.Layer.load_own_variables(self, store)

    def normalized_kernel(self, training: bool = False) -> tf.Tensor:
        """Returns the kernel divided by its largest singular value, in the compute dtype.

        Gradients treat the singular vectors as constants, which is exact once the power iteration has converged.
        """
        kernel = tf.convert_to_tensor(self.kernel)
        matrix = tf.reshape(kernel, [-1, kernel.shape[-1]])
        constant_matrix = tf.stop_gradient(matrix)
        left = tf.math.l2_normalize(tf.linalg.matvec(constant_matrix, self.singular_vector.value))
        right = tf.math.l2_normalize(tf.linalg.matvec(constant_matrix, left, transpose_a=True))
        if training and self.trainable:
            self.singular_vector.assign(right)
        singular_value = tf.tensordot(left, tf.linalg.matvec(matrix, right), 1)
        return tf.cast(tf.reshape(matrix / singular_value, kernel.shape), self.compute_dtype)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        outputs = self._apply_kernel(inputs, self.normalized_kernel(training))
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.cast(tf.convert_to_tensor(self.bias), outputs.dtype))
        return self.activation(outputs) if self.activation is not None else outputs

    def _apply_kernel(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return self.convolution_op(inputs, kernel)


@keras.saving.register_keras_serializable("trainer")
class SpectralDense(_SpectralNormMixin, keras.layers.Dense):
    """Keras's dense layer with spectral normalization of its kernel [M, N]."""

    def _apply_kernel(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.matmul(inputs, kernel)


@keras.saving.register_keras_serializable("trainer")
class SpectralConv2D(_SpectralNormMixin, Conv2D):
    """`Conv2D` with spectral normalization of its kernel as a matrix [k*k*C, filters]."""


@keras.saving.register_keras_serializable("trainer")
class SpectralPoolingConv2D(_SpectralNormMixin, PoolingConv2D):
    """`PoolingConv2D` with spectral normalization of its kernel as a matrix [k*k*C, filters]."""


@keras.saving.register_keras_serializable("trainer")
class SpectralWholeMapConv2D(_SpectralNormMixin, WholeMapConv2D):
    """`WholeMapConv2D` with spectral normalization of its kernel as a matrix [h*w*C, filters]."""

    def _apply_kernel(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.squeeze(self.convolution_op(inputs, kernel), [1, 2])


_SPECTRAL_CLASSES = {
    keras.layers.Dense: SpectralDense,
    Conv2D: SpectralConv2D,
    PoolingConv2D: SpectralPoolingConv2D,
    WholeMapConv2D: SpectralWholeMapConv2D,
}


def layer_class(base_class: type[keras.layers.Layer], spectral_norm: bool) -> type[keras.layers.Layer]:
    """Returns the layer class, or its counterpart with spectral normalization."""
    return _SPECTRAL_CLASSES[base_class] if spectral_norm else base_class
