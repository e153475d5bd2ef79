"""Updates of the discriminator: in one phase or two, on batches apart or on one batch of both."""

from collections.abc import Collection
from dataclasses import dataclass

import tensorflow as tf

from trainer.config.choices import DiscriminatorUpdates
from trainer.models.discriminator_passes import DiscriminatorPasses
from trainer.models.losses import AdversarialLoss


@dataclass(frozen=True)
class DiscriminatorUpdate:
    """The phases of the discriminator.

    Attributes:
        real_phase: Name of the phase in which the discriminator learns from real images.
        fake_phase: Name of the phase in which it learns from fake images; the same one if it learns from both at once.
        concatenated: True if the discriminator sees real and fake images as one batch, also in batch normalization.
    """

    real_phase: str = "discriminator"
    fake_phase: str = "discriminator"
    concatenated: bool = False

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the phases, in order."""
        return tuple(dict.fromkeys((self.real_phase, self.fake_phase)))

    def losses(
        self, loss: AdversarialLoss, passes: DiscriminatorPasses, phases: Collection[str]
    ) -> dict[str, tf.Tensor]:
        """Returns the discriminator's losses of those of its phases that are in `phases`, as `loss` returns them."""
        if self.real_phase == self.fake_phase:
            return {self.real_phase: loss.discriminator(passes.real.logits, passes.fake.logits)}
        losses = {}
        if self.real_phase in phases:
            losses[self.real_phase] = loss.on_real(passes.real.logits)
        if self.fake_phase in phases:
            losses[self.fake_phase] = loss.on_fake(passes.fake.logits)
        return losses


UPDATES: dict[str, DiscriminatorUpdate] = {
    DiscriminatorUpdates.TOGETHER: DiscriminatorUpdate(),
    DiscriminatorUpdates.SEPARATE: DiscriminatorUpdate("discriminator_real", "discriminator_fake"),
    DiscriminatorUpdates.CONCATENATED: DiscriminatorUpdate(concatenated=True),
}
"""Updates by the name that `discriminator_updates` gives them."""
