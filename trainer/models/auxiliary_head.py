"""Second heads on a discriminator: what a model reads beside the logit, from the same pass.

Legend: `B` images a replica, `H W C` an image, `F` features.
"""

import abc
from typing import Any

import keras
import tensorflow as tf

from trainer.errors import NetworkError
from trainer.models.conditional import ConditionalGAN


class AuxiliaryHeadGAN(ConditionalGAN):
    """A conditional GAN whose discriminator [B, H, W, C] -> [B, 1] takes no label.

    A second head reads the class or the codes off the features [B, F] that the discriminator's last layer reads.

    Raises:
        NetworkError: The discriminator is not a Sequential or functional model with a dense last layer.
    """

    head = ""
    """Name of the second head among the networks."""

    @abc.abstractmethod
    def get_head(self, num_features: int) -> keras.Model:
        """A new second head, which takes [B, F]."""

    @property
    def condition_size(self) -> int:
        """0: the discriminator takes no label."""
        return 0

    def get_networks(self) -> dict[str, keras.layers.Layer]:
        networks = super().get_networks()
        self._trunk = _with_features(networks["discriminator"])
        return networks | {self.head: self.get_head(int(self._trunk.outputs[1].shape[1]))}

    def discriminate(self, images: tf.Tensor, labels: tf.Tensor | None) -> Any:
        """Logits [B, 1] and features [B, F]."""
        return self._trunk(images, training=True)

    def read(self, features: tf.Tensor) -> tf.Tensor:
        """What the second head makes of features [B, F]: float32 [B, ...]."""
        return tf.cast(self.networks[self.head](features, training=True), tf.float32)


def _with_features(discriminator: keras.Model) -> keras.Model:
    """A model of the same layers that returns (logits [B, 1], features [B, F]): what its last layer reads."""
    layers = getattr(discriminator, "layers", [])
    if len(layers) < 2 or not isinstance(layers[-1], keras.layers.Dense) or not hasattr(discriminator, "inputs"):
        raise NetworkError(
            "this model puts a second head on the discriminator, which therefore must be a Sequential or functional "
            "model that ends in Dense(1)."
        )
    return keras.Model(discriminator.inputs, [discriminator.outputs[0], layers[-1].input], name="discriminator_trunk")
