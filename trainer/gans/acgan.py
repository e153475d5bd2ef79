"""`ACGAN`: the discriminator also names the class, and the generator is rewarded for a class that can be read.

Legend: `B` images a replica, `H W C` an image, `Z` latent size, `K` classes, `F` features.

Source: arXiv 1610.09585.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer.gans.objective import Judged, Outcome
from trainer.gans.trunk import TwoHeadedGAN
from trainer.settings import check_number


class ACGAN(TwoHeadedGAN):
    """A conditional GAN with an auxiliary classifier.

    The generator takes [B, Z+K], as in `ConditionalGAN`. The discriminator takes [B, H, W, C] and no label; a
    classifier on the features before its last layer moves in the discriminator's phase.

    Args:
        latent_dim: Z.
        num_classes: K.
        class_weight: Of the cross-entropy of the class, in both phases.
        fake_class_weight: Of that of fake images in the discriminator's phase, beside `class_weight`: 1 in the source;
            0 lets the classifier learn from real images alone, so that it does not come to read as asked what the
            generator makes by mistake.
        **settings: As of `GAN`.

    Raises:
        ConfigError: A weight is negative, or no number.
    """

    head = "classifier"
    owners: Mapping[str, tuple[str, ...]] = {
        "discriminator": ("discriminator", "classifier"),
        "generator": ("generator",),
    }

    def __init__(
        self,
        latent_dim: int,
        num_classes: int,
        *,
        class_weight: float = 1.0,
        fake_class_weight: float = 1.0,
        **settings: Any,
    ):
        super().__init__(latent_dim, num_classes, **settings)
        check_number("class_weight", class_weight)
        check_number("fake_class_weight", fake_class_weight)
        self.class_weight, self.fake_class_weight = class_weight, fake_class_weight

    def get_head(self, num_features: int) -> keras.Model:
        """A new classifier: features [B, F] of the discriminator -> class logits [B, K]."""
        return keras.Sequential([keras.Input((num_features,)), keras.layers.Dense(self.num_classes)], name="classifier")

    def add_losses(self, outcome: Outcome, latents: tf.Tensor) -> None:
        of_real, of_fake = (self._class_loss(judged) for judged in (outcome.real, outcome.fake))
        outcome.add(self.objective.phase_on("real"), "class/real", of_real, self.class_weight)
        outcome.add(self.objective.phase_on("fake"), "class/fake", of_fake, self.class_weight * self.fake_class_weight)
        outcome.add("generator", "class/generator", of_fake, self.class_weight)

    def _class_loss(self, judged: Judged) -> tf.Tensor:
        """Cross-entropy of the class, float32 [B]."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(judged.labels, self.read(judged.features))
