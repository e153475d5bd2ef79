"""The end of a discriminator with labels: a projection of its features.

Source: arXiv 1802.05637, equation 3.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import layers


@keras.saving.register_keras_serializable("trainer")
class LabelProjection(layers.Layer):
    """Adds to logits [B, 1] the scaled product of features [B, F] and the embeddings of one-hot labels [B, K]."""

    def build(self, input_shape: list[tuple[Any, ...]]) -> None:
        _, (_, size), (_, num_classes) = input_shape
        initializer = keras.initializers.RandomNormal(stddev=1.0)
        self.embeddings = self.add_weight(shape=(num_classes, size), initializer=initializer, name="embeddings")

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        logits, features, labels = inputs
        embedded = tf.matmul(labels, tf.convert_to_tensor(self.embeddings))
        return logits + tf.reduce_sum(embedded * features, axis=1, keepdims=True) * features.shape[1] ** -0.5


def projection_discriminator(
    images: keras.KerasTensor, features: keras.KerasTensor, logits: keras.KerasTensor, condition_size: int
) -> keras.Model:
    """Returns the discriminator with these tensors, and with the projection of its features if there are labels.

    Args:
        images: Input [B, H, W, C].
        features: Features of the images [B, F].
        logits: Logits without regard to labels [B, 1].
        condition_size: Number of label values K. If it is not 0, labels [B, K] are the second input.
    """
    if not condition_size:
        return keras.Model(images, logits, name="discriminator")
    labels = keras.Input((condition_size,))
    logits = LabelProjection(dtype="float32")([logits, features, labels])
    return keras.Model([images, labels], logits, name="discriminator")
