"""Batch normalization on TensorFlow's fused kernel, which Keras 3 does not call."""

import keras
import tensorflow as tf
from keras import layers


@keras.saving.register_keras_serializable("trainer")
class BatchNormalization(layers.BatchNormalization):
    """Keras's batch normalization, computed by TensorFlow's fused kernel during training.

    Takes [B, C] or [B, H, W, C]. The moments are those of the replica's own batch. They are float32 under every
    precision, and maps in bfloat16 are not converted.
    """

    def call(self, inputs: tf.Tensor, training: bool = False, mask: tf.Tensor | None = None) -> tf.Tensor:
        if mask is not None or not training or not self._can_use_fused_kernel(len(inputs.shape)):
            return super().call(inputs, training=training, mask=mask)
        is_map = len(inputs.shape) == 4
        maps = inputs if is_map else inputs[:, tf.newaxis, tf.newaxis, :]
        maps = maps if maps.dtype == tf.bfloat16 else tf.cast(maps, tf.float32)
        empty = tf.zeros([0])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=maps,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=empty,
            variance=empty,
            epsilon=self.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.size(maps) // maps.shape[-1], tf.float32)
        variance *= (count - 1.0) / count  # The kernel returns the unbiased variance; Keras averages the biased one.
        self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1.0 - self.momentum))
        self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1.0 - self.momentum))
        return tf.cast(outputs if is_map else outputs[:, 0, 0, :], self.compute_dtype)

    def _can_use_fused_kernel(self, rank: int) -> bool:
        """Returns whether the fused kernel computes what this layer's settings mean for inputs of `rank` axes."""
        is_channels_last = self.axis in (-1, rank - 1)
        is_plain = not self.synchronized and not self.renorm
        return self.trainable and is_channels_last and is_plain and rank in (2, 4) and self.scale and self.center
