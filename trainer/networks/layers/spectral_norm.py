"""Spectral normalization: layers of a discriminator whose kernels have a largest singular value of 1.

Legend: `M N` rows and columns of a kernel as a matrix, columns its output channels.

Source: arXiv 1802.05957, equation 8 and algorithm 1.

Keras's `SpectralNormalization` overwrites the kernel that the optimizer moves. The engine writes no network's weights
but through its optimizer, so that there the kernel would stay as it is, and evaluation and export would read it so.
"""

from typing import Any

import keras
import tensorflow as tf

from trainer.networks.layers.basic import Conv2D, PoolingConv2D, WholeMapConv2D


class _Spectral(keras.layers.Layer):
    """Divides a layer's kernel by its largest singular value wherever it is used; the kernel itself is left alone.

    A power iteration follows the singular value: one step each call in training, from the vector that the last one
    left. The vector is a buffer, so replicas, which hold the same kernel, hold the same vector.
    """

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.singular_vector = self.add_weight(
            name="singular_vector",
            shape=(self.kernel.shape[-1],),
            initializer="random_normal",
            trainable=False,
            autocast=False,
            aggregation="mean",
        )

    def save_own_variables(self, store: Any) -> None:
        """All variables, as layers are saved by default; Keras's dense and convolutional ones leave out the vector."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        keras.layers.Layer.load_own_variables(self, store)

    def normalized_kernel(self, training: bool = False) -> tf.Tensor:
        """The kernel over its largest singular value, in the compute dtype.

        Gradients take the singular vectors as constants, which is exact where they are the kernel's own.
        """
        kernel = tf.convert_to_tensor(self.kernel)
        matrix = tf.reshape(tf.cast(kernel, tf.float32), [-1, kernel.shape[-1]])
        fixed = tf.stop_gradient(matrix)
        of_rows = tf.math.l2_normalize(tf.linalg.matvec(fixed, self.singular_vector.value))
        of_columns = tf.math.l2_normalize(tf.linalg.matvec(fixed, of_rows, transpose_a=True))
        if training:
            self.singular_vector.assign(of_columns)
        largest = tf.tensordot(of_rows, tf.linalg.matvec(matrix, of_columns), 1)
        return tf.cast(tf.reshape(matrix / largest, kernel.shape), kernel.dtype)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        outputs = self._product(inputs, self.normalized_kernel(training))
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        return self.activation(outputs) if self.activation is not None else outputs

    def _product(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return self.convolution_op(inputs, kernel)


@keras.saving.register_keras_serializable("trainer")
class SpectralDense(_Spectral, keras.layers.Dense):
    """Keras's dense layer with its kernel [M, N] spectrally normalized."""

    def _product(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.matmul(inputs, kernel)


@keras.saving.register_keras_serializable("trainer")
class SpectralConv2D(_Spectral, Conv2D):
    """`Conv2D` with its kernel, as a matrix [k*k*C, filters], spectrally normalized."""


@keras.saving.register_keras_serializable("trainer")
class SpectralPoolingConv2D(_Spectral, PoolingConv2D):
    """`PoolingConv2D` with its kernel, as a matrix [k*k*C, filters], spectrally normalized."""


@keras.saving.register_keras_serializable("trainer")
class SpectralWholeMapConv2D(_Spectral, WholeMapConv2D):
    """`WholeMapConv2D` with its kernel, as a matrix [h*w*C, filters], spectrally normalized."""

    def _product(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.squeeze(self.convolution_op(inputs, kernel), [1, 2])


_SPECTRAL = {
    keras.layers.Dense: SpectralDense,
    Conv2D: SpectralConv2D,
    PoolingConv2D: SpectralPoolingConv2D,
    WholeMapConv2D: SpectralWholeMapConv2D,
}


def layer_class(plain: type[keras.layers.Layer], spectral_norm: bool) -> type[keras.layers.Layer]:
    """The layer class itself, or its spectrally normalized one."""
    return _SPECTRAL[plain] if spectral_norm else plain
