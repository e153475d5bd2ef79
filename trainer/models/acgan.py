"""`ACGAN`: the discriminator also names the class, and the generator is rewarded for a class that can be read.

Legend: `B` images a replica, `H W C` an image, `Z` latent size, `K` classes, `F` features.

Source: arXiv 1610.09585.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer.config.fields import check_number
from trainer.models.auxiliary_head import AuxiliaryHeadGAN
from trainer.models.discriminator_passes import DiscriminatorOutput
from trainer.models.objective import LossOutput


class ACGAN(AuxiliaryHeadGAN):
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
    optimizer_groups: Mapping[str, tuple[str, ...]] = {
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

    def add_losses(self, loss_output: LossOutput, latents: tf.Tensor) -> None:
        fake_loss = self._class_loss(loss_output.fake)
        if loss_output.has_phase(phase := self.objective.update.phase_of("real")):
            loss_output.add(phase, "class/real", self._class_loss(loss_output.real), self.class_weight)
        phase = self.objective.update.phase_of("fake")
        loss_output.add(phase, "class/fake", fake_loss, self.class_weight * self.fake_class_weight)
        loss_output.add("generator", "class/generator", fake_loss, self.class_weight)

    def _class_loss(self, output: DiscriminatorOutput) -> tf.Tensor:
        """Cross-entropy of the class, float32 [B]."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(output.labels, self.read(output.features))
