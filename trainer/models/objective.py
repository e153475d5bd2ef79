"""The losses of generator and discriminator: an adversarial loss on augmented images, and penalties.

Shapes: `B` images of a replica, `H W C` an image, `P` patches that the discriminator rates one by one.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from trainer.config.choices import DiscriminatorUpdates
from trainer.config.compatibility import check_objective
from trainer.models import losses
from trainer.models.augmenter import Augmenter
from trainer.models.discriminator_passes import DiscriminatorOutput, DiscriminatorPasses, PassInputs
from trainer.models.losses import AdversarialLoss
from trainer.models.penalties import Penalty
from trainer.models.validation import as_losses
from trainer.models.weighted_penalties import WeightedPenalties
from trainer.training.rng import StepRng
from trainer.training.schedules import ScheduleLike


class LossOutput:
    """The losses and metrics of the phases that share a forward pass.

    Attributes:
        losses: Per-example losses, float32 [B], by phase.
        metrics: Per-example values to log, float32 [B], by phase and name.
    """

    def __init__(self, phases: Collection[str], passes: DiscriminatorPasses):
        self.losses: dict[str, tf.Tensor] = {}
        self.metrics: dict[str, dict[str, tf.Tensor]] = {phase: {} for phase in phases}
        self._passes = passes

    @property
    def real(self) -> DiscriminatorOutput:
        """The discriminator's output for the real images."""
        return self._passes.real

    @property
    def fake(self) -> DiscriminatorOutput:
        """The discriminator's output for the fake images."""
        return self._passes.fake

    @property
    def rng(self) -> StepRng:
        """The random numbers of the step."""
        return self._passes.rng

    def has_phase(self, phase: str) -> bool:
        """Returns whether this forward pass computes the loss of a phase."""
        return phase in self.metrics

    def add(self, phase: str, name: str | None, term: tf.Tensor, weight: float = 1.0) -> None:
        """Adds a term to the loss of a phase, and logs it before its weight as `loss/NAME`.

        Args:
            phase: Name of the phase. A phase that this forward pass does not compute is ignored.
            name: Name in the logs; None to log nothing.
            term: float32 [B].
            weight: Weight of the term.

        Raises:
            NetworkError: If the term has another shape.
        """
        if not self.has_phase(phase):
            return
        term = as_losses(term, f"the loss {name}", self.losses[phase])
        self.losses[phase] += weight * term
        if name is not None:
            self.metrics[phase][f"loss/{name}"] = term

    def log(self, phase: str, name: str, values: tf.Tensor) -> None:
        """Logs the mean of values without changing a loss.

        Args:
            phase: Name of the phase. A phase that this forward pass does not compute is ignored.
            name: Name in the logs.
            values: float32 or bool [B].

        Raises:
            NetworkError: If the values have another shape.
        """
        if self.has_phase(phase):
            self.metrics[phase][name] = as_losses(values, name, self.losses[phase])


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


class Objective:
    """Computes the losses of the discriminator's phases and of the phase `generator`.

    Args:
        loss: Adversarial loss, as `trainer.models.losses.get` accepts it.
        updates: Name of the updates of the discriminator, a key of `UPDATES`.
        penalties: Names or functions, as `trainer.models.penalties.get` accepts them.
        weight: Weight of each penalty; a number or a schedule.
        every_steps: Steps from one penalty to the next, which then have as many times their weight.
        augmenter: Augmentation of what the discriminator sees; None for none. Penalties use the gradients with respect
            to the images before augmentation.

    Raises:
        ConfigError: If `updates` is unknown or does not fit the loss and the penalties, or if the augmenter does not
            fit the loss.
    """

    def __init__(
        self,
        loss: Any,
        *,
        updates: str = "together",
        penalties: Sequence[str | Penalty] = (),
        weight: ScheduleLike = 10.0,
        every_steps: int = 1,
        augmenter: Augmenter | None = None,
    ):
        self.loss = losses.get(loss)
        self.augmenter = augmenter
        self._penalties = WeightedPenalties(penalties, weight, every_steps)
        check_objective(
            updates,
            has_regularizer=bool(penalties or augmenter),
            adapts=augmenter is not None and augmenter.adapts,
            loss=type(self.loss).__name__,
            is_separable=self.loss.is_separable,
            is_shift_invariant=self.loss.is_shift_invariant,
        )
        self.discriminator_update = UPDATES[updates]

    def __call__(self, inputs: PassInputs, phases: Collection[str]) -> LossOutput:
        """Computes the losses of `phases` for one batch."""
        passes = DiscriminatorPasses(
            inputs,
            augmenter=self.augmenter,
            concatenated=self.discriminator_update.concatenated,
            record_gradients=self._penalties.applies_every_step,
        )
        output = LossOutput(phases, passes)
        if any(phase in phases for phase in self.discriminator_update.phases):
            self._add_discriminator_losses(output, passes, phases)
        if "generator" in phases:
            output.losses["generator"] = self._generator_loss(passes)
        return output

    @staticmethod
    def optimizer_of(phase: str) -> str:
        """Returns the optimizer that a phase updates with: `discriminator` or `generator`."""
        return phase.partition("_")[0]

    def _add_discriminator_losses(
        self, output: LossOutput, passes: DiscriminatorPasses, phases: Collection[str]
    ) -> None:
        for phase, values in self.discriminator_update.losses(self.loss, passes, phases).items():
            logits = passes.real.logits if phase == self.discriminator_update.real_phase else passes.fake.logits
            output.losses[phase] = self._per_example(values, logits)
        self._log_scores(output, passes)
        if self._penalties:
            weighted_terms, terms = self._penalties.values(passes)
            for weighted_term in weighted_terms:
                output.losses["discriminator"] += weighted_term
            for name, term in terms.items():
                output.log("discriminator", f"penalty/{name}", term)
        if self.augmenter is not None:
            logits = passes.real.logits - self.loss.decision_threshold
            self.augmenter.observe(logits, is_first_pass=passes.rng.repeat == 0)

    def _generator_loss(self, passes: DiscriminatorPasses) -> tf.Tensor:
        fake_logits = passes.fake_for_generator().logits
        return self._per_example(self.loss.generator(passes.real.logits, fake_logits), fake_logits)

    def _log_scores(self, output: LossOutput, passes: DiscriminatorPasses) -> None:
        """Logs the mean output of the discriminator for real and for fake images, and its accuracies."""
        real, fake, update = passes.real.logits, passes.fake.logits, self.discriminator_update
        values = {f"score/{kind}": self.loss.score(logits) for kind, logits in (("real", real), ("fake", fake))}
        values |= {f"accuracy/{kind}": is_correct for kind, is_correct in self.loss.correct(real, fake).items()}
        for name, value in values.items():
            phase = update.fake_phase if name.endswith("/fake") else update.real_phase
            output.log(phase, name, self._per_example(value, real))

    def _per_example(self, values: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return as_losses(values, type(self.loss).__name__, logits)
