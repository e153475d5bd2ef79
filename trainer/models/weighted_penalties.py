"""Penalties as they enter the discriminator's loss: with their weight, at every step or at every k-th.

Shapes: `B` images of a replica.
"""

from collections.abc import Sequence

import tensorflow as tf

from trainer.errors import ConfigError, quote
from trainer.models.discriminator_passes import DiscriminatorPasses
from trainer.models.penalties import Penalty, get as get_penalty
from trainer.models.validation import as_losses, check_no_effect
from trainer.training import schedules


class WeightedPenalties:
    """The penalties of a discriminator.

    Args:
        penalties: Names or functions, as `trainer.models.penalties.get` accepts them.
        weight: Weight of each penalty; a number or a schedule.
        every_steps: Steps from one penalty to the next. At k steps, a penalty has k times its weight (lazy
            regularization, arXiv 1912.04958, section 3.1).

    Raises:
        ConfigError: If a penalty is unknown, the weight is out of range, or a setting is given without penalties.
    """

    def __init__(self, penalties: Sequence[str | Penalty], weight: schedules.ScheduleLike, every_steps: int):
        schedules.check("penalty_weight", weight)
        self._penalties = _by_name(penalties)
        if not self._penalties:
            check_no_effect("penalties", penalty_weight=(weight, 10.0), penalty_every_steps=(every_steps, 1))
        self._weight, self._every_steps = schedules.get(weight), every_steps

    def __bool__(self) -> bool:
        return bool(self._penalties)

    @property
    def applies_every_step(self) -> bool:
        """True if every step has penalties. They then share the passes of the loss."""
        return bool(self._penalties) and self._every_steps == 1

    def values(self, passes: DiscriminatorPasses) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Returns the weighted terms of the loss, and each penalty before its weight, by name: float32 [B]."""
        step = passes.rng.step
        if self.applies_every_step:
            terms = self._terms(passes)
            weight = self._weight(step)
            return [weight * term for term in terms.values()], terms
        return self._lazy_values(passes, step)

    def _lazy_values(
        self, passes: DiscriminatorPasses, step: tf.Tensor
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Runs the discriminator once more in every k-th step, to avoid the cost of penalties in the other steps."""

        def at_this_step() -> tf.Tensor:
            with passes.discarded_updates():
                return tf.stack([*self._terms(passes.run_again()).values()])

        zero_terms = tf.zeros([len(self._penalties), int(passes.real.images.shape[0])])
        stacked = tf.cond(step % self._every_steps == 0, at_this_step, lambda: zero_terms)
        weight = self._weight(step) * self._every_steps
        terms = zip(self._penalties, tf.unstack(stacked), strict=True)
        return [weight * tf.reduce_sum(stacked, axis=0)], {name: term * self._every_steps for name, term in terms}

    def _terms(self, passes: DiscriminatorPasses) -> dict[str, tf.Tensor]:
        logits = passes.real.logits
        gradients = passes.input_gradients()
        return {
            name: as_losses(penalty(gradients), f"the penalty {name}", logits)
            for name, penalty in self._penalties.items()
        }


def _by_name(penalties: str | Penalty | Sequence[str | Penalty] | None) -> dict[str, Penalty]:
    """Penalties by the names that they are logged under. A second penalty of the same name becomes `NAME_2`."""
    named: dict[str, Penalty] = {}
    if not (penalties is None or isinstance(penalties, (str, list, tuple)) or callable(penalties)):
        raise ConfigError(
            f"penalties={quote(penalties)} has the wrong type; pass a list of names or functions, and penalty_weight."
        )
    for penalty in [penalties] if isinstance(penalties, str) or callable(penalties) else penalties or ():
        name = penalty if isinstance(penalty, str) else getattr(penalty, "__name__", type(penalty).__name__)
        number = 1
        while (unique := name if number == 1 else f"{name}_{number}") in named:
            number += 1
        named[unique] = get_penalty(penalty)
    return named
