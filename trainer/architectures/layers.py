"""Keras layers for what a GAN's step pays beside its matrix products: same results as Keras's own, less time.

They are drop-in: `from trainer.architectures.layers import BatchNormalization` in a network of your own is enough.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from trainer.architectures import convolutions
from trainer.errors import ConfigError

PER_SAMPLE_SEED = "per_sample_seed"
"""Name of the seed of a layer whose noise belongs to samples: every replica gets the same seed and takes its part."""


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


class Dropout(layers.Layer):
    """Dropout with 16 random bits an element, drawn for each sample by its place in the global batch.

    So the mask of a sample does not depend on the number of replicas.

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


class Conv2D(layers.Conv2D):
    """Keras's convolution whose gradient with respect to images of few channels is fast on a CPU."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if not convolutions.thin_applies(self, inputs, self.kernel.shape[2]):
            return super().call(inputs)
        outputs = convolutions.thin_conv(inputs, tf.convert_to_tensor(self.kernel), self.strides[0])
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        return self.activation(outputs) if self.activation is not None else outputs


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
