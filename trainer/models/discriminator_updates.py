"""Strategies to update the discriminator: in one phase or two, on batches apart or on one batch of both."""

from collections.abc import Collection

import tensorflow as tf

from trainer.config.choices import DiscriminatorUpdates
from trainer.models.discriminator_passes import DiscriminatorPasses
from trainer.models.losses import AdversarialLoss


class TogetherUpdate:
    """One phase, `discriminator`, on a batch of real and a batch of fake images."""

    concatenated = False
    """True if the discriminator sees real and fake images as one batch."""

    phases: tuple[str, ...] = ("discriminator",)
    """Names of the discriminator's phases, in order."""

    def phase_of(self, kind: str) -> str:
        """Returns the phase in which the discriminator learns from `real` or from `fake` images."""
        return "discriminator"

    def losses(
        self, loss: AdversarialLoss, passes: DiscriminatorPasses, phases: Collection[str]
    ) -> dict[str, tf.Tensor]:
        """Returns the discriminator's losses of those of its phases that are in `phases`, as `loss` returns them."""
        return {"discriminator": loss.discriminator(passes.real.logits, passes.fake.logits)}


class SeparateUpdate(TogetherUpdate):
    """Two phases: `discriminator_real` on real images, then `discriminator_fake` on fake images."""

    phases = ("discriminator_real", "discriminator_fake")

    def phase_of(self, kind: str) -> str:
        return f"discriminator_{kind}"

    def losses(
        self, loss: AdversarialLoss, passes: DiscriminatorPasses, phases: Collection[str]
    ) -> dict[str, tf.Tensor]:
        losses = {}
        if "discriminator_real" in phases:
            losses["discriminator_real"] = loss.on_real(passes.real.logits)
        if "discriminator_fake" in phases:
            losses["discriminator_fake"] = loss.on_fake(passes.fake.logits)
        return losses


class ConcatenatedUpdate(TogetherUpdate):
    """One phase on one batch of real and fake images, which batch normalization sees as one."""

    concatenated = True


UPDATES: dict[str, TogetherUpdate] = {
    DiscriminatorUpdates.TOGETHER: TogetherUpdate(),
    DiscriminatorUpdates.SEPARATE: SeparateUpdate(),
    DiscriminatorUpdates.CONCATENATED: ConcatenatedUpdate(),
}
"""Strategies by the name that `discriminator_updates` gives them."""
