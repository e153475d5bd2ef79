"""Padding by reflection, which Keras 3 has no layer for."""

import keras
import tensorflow as tf
from keras import layers


@keras.saving.register_keras_serializable("trainer")
class ReflectionPadding2D(layers.Layer):
    """Pads maps [B, H, W, C] by mirroring them about their border pixels: [B, H+2p, W+2p, C].

    Args:
        padding: Number of pixels p to add on each side, less than H and W.
    """

    def __init__(self, padding: int, **kwargs: object):
        super().__init__(**kwargs)
        self.padding = padding
        self.built = True

    def get_config(self) -> dict[str, object]:
        return super().get_config() | {"padding": self.padding}

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        border = [self.padding, self.padding]
        return tf.pad(inputs, [[0, 0], border, border, [0, 0]], "REFLECT")
