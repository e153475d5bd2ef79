"""What a generator and a discriminator minimise: an adversarial loss on augmented images, and penalties.

Legend: `B` images a replica, `H W C` an image, `P` patches that are judged one by one.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from trainer import losses
from trainer.combinations import check_objective
from trainer.engine.randomness import Noise
from trainer.engine.schedules import Scheduled, value_at
from trainer.engine.step import discarded_updates
from trainer.gans.augmenter import Augmenter
from trainer.gans.checks import as_logits, as_losses, per_example
from trainer.penalties import Penalty, Slopes, get as get_penalty

Discriminate = Callable[[tf.Tensor, tf.Tensor | None], Any]
"""(images [B, H, W, C], labels [B] or None) -> logits, or (logits, features)."""

Labelled = tuple[tf.Tensor, tf.Tensor | None]
"""Images float32 [B, H, W, C], and their labels int32 [B] or None."""


@dataclass(frozen=True)
class Judged:
    """Images, and what the discriminator makes of them.

    Attributes:
        images: float32 [B, H, W, C], before augmentation.
        labels: int32 [B], or None.
        logits: float32 [B] or [B, P].
        features: [B, F] where the discriminator gives them, else None.
    """

    images: tf.Tensor
    labels: tf.Tensor | None
    logits: tf.Tensor
    features: tf.Tensor | None


@dataclass(frozen=True)
class Outcome:
    """What `Objective` computed.

    Attributes:
        losses: Per example, [B], by phase name. A wiring adds its own terms with `add`.
        metrics: What to log per example, [B], by phase name.
        real: The real images.
        fake: The fake ones.
    """

    losses: dict[str, tf.Tensor]
    metrics: dict[str, dict[str, tf.Tensor]]
    real: Judged
    fake: Judged

    def add(self, phase: str, name: str, term: tf.Tensor, weight: float = 1.0) -> None:
        """Adds a term float32 [B] to the loss of a phase, and logs it unweighted as `loss/NAME`.

        Raises:
            NetworkError: It has another shape.
        """
        term = as_losses(term, f"the loss {name}", self.real.logits)
        self.losses[phase] += weight * term
        self.metrics[phase][f"loss/{name}"] = term


class Objective:
    """Losses of the phases `discriminator` (or `discriminator_real` and `discriminator_fake`) and `generator`.

    Args:
        loss: Of `losses.get`.
        updates: `together`: one update on both; `separate`: one on real, then one on fake images; `concatenated`: one
            update on one batch of both, which differs from `together` where batch normalization sees it.
        penalties: Names or functions, of `trainer.penalties.get`.
        weight: Of each penalty; a number or a function of the step.
        every_steps: Steps between two penalties, which then weigh as many times more.
        augmenter: Changes what the discriminator sees, or None. Penalties are with respect to the images before it.

    Raises:
        ConfigError: `updates` is unknown or does not fit the loss and the penalties, or the augmenter not the loss.
    """

    def __init__(
        self,
        loss: Any,
        *,
        updates: str = "together",
        penalties: Sequence[str | Penalty] = (),
        weight: Scheduled = 10.0,
        every_steps: int = 1,
        augmenter: Augmenter | None = None,
    ):
        self.loss = losses.get(loss)
        self.updates = updates
        self.augmenter = augmenter
        self._penalties = _named(penalties)
        self._weight, self._every_steps = weight, every_steps
        check_objective(
            updates,
            regularised=bool(penalties or augmenter),
            adapts=augmenter is not None and augmenter.adapts,
            loss=type(self.loss).__name__,
            has_parts=self.loss.has_parts,
            only_differences_count=self.loss.only_differences_count,
        )

    def __call__(
        self, discriminate: Discriminate, discriminator: keras.Model, real: Labelled, fake: Labelled, noise: Noise
    ) -> Outcome:
        """Judges images, and computes the losses from it. `discriminator` is the network that `discriminate` runs."""
        judge = functools.partial(self._judge, discriminate, noise)
        shared = bool(self._penalties) and self._every_steps == 1
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            if shared:
                tape.watch([real[0], fake[0]])
            if self.updates == "concatenated":
                of_real, of_fake = _judge_as_one(judge, real, fake)
            else:
                of_real, of_fake = judge(*real, "real"), judge(*fake, "fake")
        outcome = Outcome(self._losses(of_real, of_fake), self._metrics(of_real, of_fake), of_real, of_fake)
        if self.updates == "concatenated":
            alone = judge(*fake, "fake")
            outcome.losses["generator"] = self._each(self.loss.generator(of_real.logits, alone.logits), alone)
        if shared:
            self._penalise(outcome, self._slopes(tape, of_real, of_fake, judge, discriminator, noise), noise.step)
        elif self._penalties:
            self._penalise_at_times(outcome, judge, discriminator, noise)
        if self.augmenter is not None:
            self.augmenter.observe(of_real.logits - self.loss.boundary, is_first_pass=noise.repeat == 0)
        return outcome

    def of_generator(self, discriminate: Discriminate, real: Labelled, fake: Labelled, noise: Noise) -> tf.Tensor:
        """The generator's loss alone: float32 [B]."""
        of_real, of_fake = (
            self._judge(discriminate, noise, *images, purpose) for images, purpose in ((real, "real"), (fake, "fake"))
        )
        return self._each(self.loss.generator(of_real.logits, of_fake.logits), of_fake)

    def phase_on(self, kind: str) -> str:
        """The phase in which the discriminator learns from `real` or from `fake` images."""
        return f"discriminator_{kind}" if self.updates == "separate" else "discriminator"

    @property
    def discriminator_phases(self) -> list[str]:
        """The phases that the discriminator learns in, in their order."""
        return list(dict.fromkeys(self.phase_on(kind) for kind in ("real", "fake")))

    @staticmethod
    def owner_of(phase: str) -> str:
        """Whose optimiser a phase runs: `discriminator` or `generator`."""
        return phase.partition("_")[0]

    def _judge(
        self, discriminate: Discriminate, noise: Noise, images: tf.Tensor, labels: tf.Tensor | None, purpose: str
    ) -> Judged:
        seen = images if self.augmenter is None else self.augmenter.augmented(images, noise.child(f"augment/{purpose}"))
        outputs = discriminate(seen, labels)
        logits, features = outputs if isinstance(outputs, (tuple, list)) else (outputs, None)
        return Judged(images, labels, as_logits(logits), features)

    def _losses(self, real: Judged, fake: Judged) -> dict[str, tf.Tensor]:
        of_phase = {"generator": self.loss.generator(real.logits, fake.logits)}
        if self.updates == "separate":
            of_phase[self.phase_on("real")] = self.loss.on_real(real.logits)
            of_phase[self.phase_on("fake")] = self.loss.on_fake(fake.logits)
        else:
            of_phase["discriminator"] = self.loss.discriminator(real.logits, fake.logits)
        return {phase: self._each(value, real) for phase, value in of_phase.items()}

    def _metrics(self, real: Judged, fake: Judged) -> dict[str, dict[str, tf.Tensor]]:
        of_real = {
            "score/real": self.loss.score(real.logits),
            "accuracy/real": tf.cast(real.logits > self.loss.boundary, tf.float32),
        }
        of_fake = {
            "score/fake": self.loss.score(fake.logits),
            "accuracy/fake": tf.cast(fake.logits <= self.loss.boundary, tf.float32),
        }
        logged: dict[str, dict[str, tf.Tensor]] = {"generator": {}}
        for kind, values in (("real", of_real), ("fake", of_fake)):
            of_phase = logged.setdefault(self.phase_on(kind), {})
            of_phase.update({name: self._each(value, real) for name, value in values.items()})
        return logged

    def _each(self, values: tf.Tensor, judged: Judged) -> tf.Tensor:
        """What the loss makes of images, one by one: float32 [B]."""
        return as_losses(values, type(self.loss).__name__, judged.logits)

    def _slopes(
        self,
        tape: tf.GradientTape,
        real: Judged,
        fake: Judged,
        judge: Callable[..., Judged],
        discriminator: keras.Model,
        noise: Noise,
    ) -> Slopes:
        def slope(of: Judged) -> tf.Tensor:
            return tape.gradient(of.logits, of.images) / float(of.logits[0].shape.num_elements())  # of patches' mean

        def between(fractions: tf.Tensor) -> tf.Tensor:
            fractions = tf.reshape(fractions, [-1] + [1] * (len(real.images.shape) - 1))
            images = real.images + (fake.images - real.images) * fractions
            with tf.GradientTape(watch_accessed_variables=False) as around, discarded_updates(discriminator):
                around.watch(images)
                logits = per_example(judge(images, real.labels, "between").logits)
            return around.gradient(logits, images)

        return Slopes(
            at_real=lambda: slope(real),
            at_fake=lambda: slope(fake),
            between=between,
            fractions=lambda: noise.uniform("penalty", 1)[:, 0],
        )

    def _terms(self, slopes: Slopes, real: Judged) -> dict[str, tf.Tensor]:
        """What each penalty makes of the slopes, before its weight: float32 [B], by its name."""
        return {
            name: as_losses(function(slopes), f"the penalty {name}", real.logits)
            for name, function in self._penalties.items()
        }

    def _penalise(self, outcome: Outcome, slopes: Slopes, step: tf.Tensor) -> None:
        weight = value_at(self._weight, step)
        for name, term in self._terms(slopes, outcome.real).items():
            outcome.losses["discriminator"] += weight * term
            outcome.metrics["discriminator"][f"penalty/{name}"] = term

    def _penalise_at_times(
        self, outcome: Outcome, judge: Callable[..., Judged], discriminator: keras.Model, noise: Noise
    ) -> None:
        """Judges once more in the steps that have a penalty, so that the others do not pay for it."""
        real, fake = outcome.real, outcome.fake

        def penalised() -> tf.Tensor:
            with discarded_updates(discriminator):
                with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
                    tape.watch([real.images, fake.images])
                    again = judge(real.images, real.labels, "real"), judge(fake.images, fake.labels, "fake")
                slopes = self._slopes(tape, *again, judge, discriminator, noise)
                return tf.stack([*self._terms(slopes, real).values()])

        absent = tf.zeros([len(self._penalties), real.images.shape[0]])
        terms = tf.cond(noise.step % self._every_steps == 0, penalised, lambda: absent)
        weight = value_at(self._weight, noise.step) * self._every_steps
        outcome.losses["discriminator"] += weight * tf.reduce_sum(terms, axis=0)
        for name, term in zip(self._penalties, tf.unstack(terms), strict=True):
            outcome.metrics["discriminator"][f"penalty/{name}"] = term * self._every_steps


def _named(penalties: Sequence[str | Penalty]) -> dict[str, Penalty]:
    """Penalties by the names that they are logged under; of those with one name, the second is `NAME_2`."""
    named: dict[str, Penalty] = {}
    for given in penalties:
        name = given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)
        number = 1
        while (unique := name if number == 1 else f"{name}_{number}") in named:
            number += 1
        named[unique] = get_penalty(given)
    return named


def _judge_as_one(
    judge: Callable[..., Judged],
    real: Labelled,
    fake: Labelled,
) -> tuple[Judged, Judged]:
    labels = None if real[1] is None else tf.concat([real[1], fake[1]], axis=0)
    both = judge(tf.concat([real[0], fake[0]], axis=0), labels, "both")
    logits = tf.split(both.logits, 2)
    features = (None, None) if both.features is None else tf.split(both.features, 2)
    return Judged(*real, logits[0], features[0]), Judged(*fake, logits[1], features[1])
