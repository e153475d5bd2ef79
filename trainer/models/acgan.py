"""`ACGAN`: a conditional GAN whose discriminator also classifies.

Shapes: `B` images of a replica, `H W C` an image, `Z` latent size, `K` classes, `F` features.

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
from trainer.models.registry import register_model


@register_model("acgan")
class ACGAN(AuxiliaryHeadGAN):
    """A conditional GAN with an auxiliary classifier.

    The generator takes latents and labels as in `ConditionalGAN`. The discriminator takes [B, H, W, C] and no label. A
    classifier on the features before its last layer is updated in the discriminator's phase.

    Args:
        latent_dim: Number of latent variables, Z. `input_dim` is another name of it.
        num_classes: Number of classes, K.
        class_weight: Weight of the cross-entropy of the class, in both phases.
        fake_class_weight: Further weight for fake images in the discriminator's phase. The source uses 1. With 0 the
            classifier learns from real images only, so that it does not adapt to the generator's mistakes.
        **settings: Arguments of `GAN`.

    Raises:
        ConfigError: If a weight is negative or not a number, or there are conditions instead of classes.
    """

    head = "classifier"
    optimizer_groups: Mapping[str, tuple[str, ...]] = {
        "discriminator": ("discriminator", "classifier"),
        "generator": ("generator",),
    }

    def __init__(
        self,
        latent_dim: int | None = None,
        num_classes: int | None = None,
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
        """Returns a new classifier: features [B, F] of the discriminator -> class logits [B, K]."""
        return keras.Sequential([keras.Input((num_features,)), keras.layers.Dense(self.num_classes)], name="classifier")

    def add_losses(self, loss_output: LossOutput, latents: tf.Tensor) -> None:
        fake_loss = self._class_loss(loss_output.fake)
        if loss_output.has_phase(phase := self.objective.discriminator_update.real_phase):
            loss_output.add(phase, "class/real", self._class_loss(loss_output.real), self.class_weight)
        phase = self.objective.discriminator_update.fake_phase
        loss_output.add(phase, "class/fake", fake_loss, self.class_weight * self.fake_class_weight)
        loss_output.add("generator", "class/generator", fake_loss, self.class_weight)

    def _class_loss(self, output: DiscriminatorOutput) -> tf.Tensor:
        """Returns the cross-entropy of the class: float32 [B]."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(output.labels, self.predict_from(output.features))
