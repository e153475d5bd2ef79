"""Keras layers for what a GAN's step pays beside its matrix products: same results as Keras's own, less time.

They are drop-in: `from trainer.networks.layers.basic import BatchNormalization` in a network of your own is enough.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from trainer.errors import ConfigError
from trainer.networks.layers.cpu_kernels import convolutions

PER_SAMPLE_SEED = "per_sample_seed"
"""Name of the seed of a layer whose noise belongs to samples: every replica gets the same seed and takes its part."""


@keras.saving.register_keras_serializable("trainer")
class BatchNormalization(layers.BatchNormalization):
    """Keras's batch normalization on TensorFlow's fused kernel while training.

    Takes [B, C] or [B, H, W, C]. Moments are those of the replica's own batch.
    """

    def call(self, inputs: tf.Tensor, training: bool = False, mask: tf.Tensor | None = None) -> tf.Tensor:
        rank = len(inputs.shape)
        plain = self.axis in (-1, rank - 1) and not self.synchronized and not self.renorm
        if not (
            training and self.trainable and plain and mask is None and rank in (2, 4) and self.scale and self.center
        ):
            return super().call(inputs, training=training, mask=mask)
        images = tf.cast(inputs if rank == 4 else inputs[:, tf.newaxis, tf.newaxis, :], tf.float32)
        nothing = tf.zeros([0])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=images,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=nothing,
            variance=nothing,
            epsilon=self.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.size(images) // images.shape[-1], tf.float32)
        variance *= (count - 1.0) / count  # the kernel returns the unbiased variance, Keras averages the biased one
        self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1.0 - self.momentum))
        self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1.0 - self.momentum))
        return tf.cast(outputs if rank == 4 else outputs[:, 0, 0, :], self.compute_dtype)


@keras.saving.register_keras_serializable("trainer")
class Dropout(layers.Layer):
    """Dropout with 16 random bits an element, drawn for each sample by its place in the global batch.

    So the mask of a sample does not depend on the number of replicas. Under `discriminator_updates="concatenated"` it
    does, for there a replica's batch is its real images and then its fake ones.

    Args:
        rate: Share of elements that are set to 0, in [0, 1), exact to 1/65,536; the others are scaled up.
    """

    def __init__(self, rate: float, **kwargs: object):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ConfigError(f"dropout rate={rate} is out of range; give a number from 0 up to, without, 1.")
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator(seed=0, name=PER_SAMPLE_SEED)
        self.built = True

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, object]:
        return super().get_config() | {"rate": self.rate}

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or self.rate == 0:
            return inputs
        size = int(np.prod(inputs.shape[1:]))
        num_groups = -(-size // 8)  # one counter of the generator gives 128 bits: eight elements
        num_samples = tf.shape(inputs)[0]
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        first_group = tf.cast(num_samples * replica, tf.uint64) * num_groups
        seed = self.seed_generator.next()
        bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[num_samples, num_groups * 2],
            key=tf.bitcast(tf.cast(seed, tf.uint32), tf.uint64)[tf.newaxis],
            counter=tf.stack([first_group, tf.zeros([], tf.uint64)]),
            alg=1,
            dtype=tf.uint64,
        )
        bits = tf.reshape(tf.bitcast(bits, tf.uint16), [num_samples, num_groups * 8])[:, :size]
        kept = tf.reshape(bits, tf.shape(inputs)) >= np.uint16(round(self.rate * 65536))
        return tf.where(kept, inputs * (1.0 / (1.0 - self.rate)), tf.zeros([], inputs.dtype))


@keras.saving.register_keras_serializable("trainer")
class Conv2D(layers.Conv2D):
    """Keras's convolution whose gradient with respect to images of few channels is fast on a CPU."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if not convolutions.thin_applies(self, inputs, self.kernel.shape[2]):
            return super().call(inputs)
        outputs = convolutions.thin_conv(inputs, tf.convert_to_tensor(self.kernel), self.strides[0])
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        return self.activation(outputs) if self.activation is not None else outputs


@keras.saving.register_keras_serializable("trainer")
class Conv2DTranspose(layers.Conv2DTranspose):
    """Keras's transposed convolution, fast on a CPU for few channels and for large kernels on small maps."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if convolutions.thin_applies(self, inputs, self.filters):
            outputs = convolutions.thin_conv_transpose(inputs, tf.convert_to_tensor(self.kernel), self.strides[0])
        elif convolutions.spectral_applies(self, inputs):
            outputs = convolutions.spectral_conv_transpose(inputs, tf.convert_to_tensor(self.kernel))
        else:
            return super().call(inputs)
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        return self.activation(outputs) if self.activation is not None else outputs


class _ResamplingConv2D(layers.Conv2D):
    """A convolution of stride 1 joined with a change of size by 2: one kernel, one element larger, does both."""

    def __init__(self, filters: int, kernel_size: int | tuple[int, int], **kwargs: Any):
        super().__init__(filters, kernel_size, **(kwargs | {"padding": "same"}))
        if self.kernel_size[0] % 2 == 0 or self.kernel_size[1] % 2 == 0 or self.strides != (1, 1):
            raise ConfigError(
                f"{type(self).__name__} got kernel_size={self.kernel_size} and strides={self.strides}; "
                "give an odd kernel size and no strides."
            )


@keras.saving.register_keras_serializable("trainer")
class UpsamplingConv2D(_ResamplingConv2D):
    """Doubles a map by repeating its pixels, then convolves it: [B, h, w, C] -> [B, 2h, 2w, filters].

    The same as `UpSampling2D(2)` and `Conv2D(filters, kernel_size, padding="same")`, as one transposed convolution of
    stride 2: for 3×3 kernels 16 multiplications an input pixel and channel pair instead of 36, and no larger map.

    Args:
        filters: Channels of the output.
        kernel_size: Of the convolution, odd.
        **kwargs: As of Keras's `Conv2D`.
    """

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *(size and size * 2 for size in input_shape[1:3]), self.filters)

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        flipped = tf.transpose(tf.convert_to_tensor(kernel)[::-1, ::-1], [0, 1, 3, 2])
        sizes = tf.shape(inputs)
        output_sizes = [sizes[0], sizes[1] * 2, sizes[2] * 2, self.filters]
        outputs = tf.nn.conv2d_transpose(inputs, _over_pairs(flipped), output_sizes, 2, "SAME")
        outputs.set_shape(self.compute_output_shape(tuple(inputs.shape)))
        return outputs


@keras.saving.register_keras_serializable("trainer")
class PoolingConv2D(_ResamplingConv2D):
    """Convolves a map, then halves it by means of 2×2 pixels: [B, 2h, 2w, C] -> [B, h, w, filters].

    The same as `Conv2D(filters, kernel_size, padding="same")` and `AveragePooling2D(2)` on maps of even size, as one
    convolution of stride 2: for 3×3 kernels 16 multiplications an output pixel and channel pair instead of 36. A map
    of odd size is continued by zeros.

    Args:
        filters: Channels of the output.
        kernel_size: Of the convolution, odd.
        **kwargs: As of Keras's `Conv2D`.
    """

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *(size and -(-size // 2) for size in input_shape[1:3]), self.filters)

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(inputs, 0.25 * _over_pairs(tf.convert_to_tensor(kernel)), 2, "SAME")


def _over_pairs(kernel: tf.Tensor) -> tf.Tensor:
    """A kernel convolved with 2×2 ones: [k+1, l+1, ...]."""
    rows = tf.pad(kernel, [[0, 1], [0, 0], [0, 0], [0, 0]]) + tf.pad(kernel, [[1, 0], [0, 0], [0, 0], [0, 0]])
    return tf.pad(rows, [[0, 0], [0, 1], [0, 0], [0, 0]]) + tf.pad(rows, [[0, 0], [1, 0], [0, 0], [0, 0]])


@keras.saving.register_keras_serializable("trainer")
class WholeMapConv2D(Conv2D):
    """A convolution whose kernel is as large as the map, which ends a network without a dense layer.

    Takes [B, h, w, C] with `kernel_size=(h, w)` and `padding="valid"`; gives [B, filters].
    """

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.filters)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.squeeze(super().call(inputs), [1, 2])


@keras.saving.register_keras_serializable("trainer")
class GlobalSumPooling2D(layers.Layer):
    """The sum of a map over its pixels, added up in float32: [B, h, w, C] -> [B, C]."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], input_shape[3])

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.reduce_sum(tf.cast(inputs, tf.float32), [1, 2]), self.compute_dtype)
