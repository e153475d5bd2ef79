"""Models whose discriminator has an auxiliary head beside its logit.

Shapes: `B` images of a replica, `H W C` an image, `F` features.
"""

import functools
from typing import Any

import keras
import tensorflow as tf

from trainer.errors import ConfigError, NetworkError, count_of
from trainer.models.conditional import ConditionalGAN
from trainer.networks import NetworkPart


class AuxiliaryHeadGAN(ConditionalGAN):
    """A conditional GAN whose discriminator [B, H, W, C] -> [B, 1] takes no label.

    The head predicts the class or the codes from the features [B, F] that the discriminator's last layer takes.

    Raises:
        ConfigError: If labels are vectors of conditions.
        NetworkError: If the discriminator is not a Sequential or functional model with a dense last layer on vectors.
    """

    discriminator_takes_labels = False
    needed_part = NetworkPart.DENSE_OUTPUT

    head = ""
    """Name of the head among the networks."""

    def __init__(self, latent_dim: int | None = None, num_classes: int | None = None, **settings: Any):
        super().__init__(latent_dim, num_classes, **settings)
        if self.conditions is not None:
            raise ConfigError(
                f"{type(self).__name__} predicts a class, but labels have {count_of(self.label_size, 'condition')}; "
                "use --model=conditional or ConditionalGAN, or prepare the data without conditions."
            )

    def get_head(self, num_features: int) -> keras.Model:
        """Returns a new head, which takes features [B, F]."""
        raise NotImplementedError

    def get_networks(self) -> dict[str, keras.layers.Layer]:
        networks = super().get_networks()
        features = _with_features(networks["discriminator"]).outputs[1]
        if len(features.shape) != 2:
            raise NetworkError(
                f"the last layer of the discriminator takes maps of shape {tuple(features.shape[1:])}, but this model "
                "needs a vector there; add Flatten() or GlobalAveragePooling2D() before Dense(1)."
            )
        return networks | {self.head: self.get_head(int(features.shape[1]))}

    @functools.cached_property
    def _discriminator_with_features(self) -> keras.Model:
        return _with_features(self.discriminator)

    def discriminate(self, images: tf.Tensor, labels: tf.Tensor | None) -> Any:
        """Returns logits [B, 1] and features [B, F]."""
        return self._discriminator_with_features(images, training=True)

    def predict_from(self, features: tf.Tensor) -> tf.Tensor:
        """Returns the output of the head for features [B, F]: float32 [B, ...]."""
        return tf.cast(self.networks[self.head](features, training=True), tf.float32)


def _with_features(discriminator: keras.Model) -> keras.Model:
    """Returns a model of the same layers with the outputs (logits [B, 1], input of the last layer [B, F])."""
    layers = getattr(discriminator, "layers", [])
    if len(layers) < 2 or not isinstance(layers[-1], keras.layers.Dense) or not hasattr(discriminator, "inputs"):
        raise NetworkError(
            "this model adds a head to the discriminator; make the discriminator a Sequential or functional model that "
            "ends in Dense(1)."
        )
    return keras.Model(discriminator.inputs, [discriminator.outputs[0], layers[-1].input], name="discriminator_trunk")
