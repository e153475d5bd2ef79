"""The discriminator's outputs for one batch of real and fake images.

Legend: `B` images of a replica, `H W C` an image, `P` patches that the discriminator rates one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from trainer.models.augmenter import Augmenter
from trainer.models.penalties import InputGradients
from trainer.models.validation import as_logits, per_example
from trainer.training.rng import StepRng
from trainer.training.step import discarded_updates

Discriminate = Callable[[tf.Tensor, tf.Tensor | None], Any]
"""(images [B, H, W, C], labels [B] or None) -> logits, or (logits, features)."""

LabeledImages = tuple[tf.Tensor, tf.Tensor | None]
"""Images float32 [B, H, W, C], and their labels int32 [B] or None."""


@dataclass(frozen=True)
class DiscriminatorOutput:
    """Images, and the discriminator's output for them.

    Attributes:
        images: float32 [B, H, W, C], before augmentation.
        labels: int32 [B], or None.
        logits: float32 [B] or [B, P].
        features: [B, F] if the discriminator returns features, else None.
    """

    images: tf.Tensor
    labels: tf.Tensor | None
    logits: tf.Tensor
    features: tf.Tensor | None


class DiscriminatorPasses:
    """Runs the discriminator on a batch of real and then on a batch of fake images.

    The order is the same in every phase, so that layers with state, such as spectral normalization and dropout, are in
    the same state in a pass regardless of which losses use it.

    Args:
        discriminate: Function that runs the discriminator.
        discriminator: Network that `discriminate` runs.
        real: Real images and their labels.
        fake: Fake images and their labels.
        rng: Random numbers of the step.
        augmenter: Augmentation of what the discriminator sees; None for none.
        concatenated: Whether to run real and fake images as one batch.
        record_gradients: Whether to make `input_gradients` available.

    Attributes:
        real: Output for the real images.
        fake: Output for the fake images.
    """

    def __init__(
        self,
        discriminate: Discriminate,
        discriminator: keras.Model,
        real: LabeledImages,
        fake: LabeledImages,
        rng: StepRng,
        *,
        augmenter: Augmenter | None = None,
        concatenated: bool = False,
        record_gradients: bool = False,
    ):
        self.discriminator, self.rng = discriminator, rng
        self._discriminate, self._augmenter = discriminate, augmenter
        self._real_images, self._fake_images = real, fake
        self._concatenated = concatenated
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._tape:
            if record_gradients:
                self._tape.watch([real[0], fake[0]])
            if concatenated:
                self.real, self.fake = self._run_concatenated()
            else:
                self.real, self.fake = self._run(real, "real"), self._run(fake, "fake")

    def fake_for_generator(self) -> DiscriminatorOutput:
        """The output for the fake images as the generator's loss uses it: in a separate batch."""
        return self._run(self._fake_images, "fake") if self._concatenated else self.fake

    def input_gradients(self) -> InputGradients:
        """The gradients of the logits with respect to the images of this batch."""
        return InputGradients(
            at_real=lambda: self._gradient(self.real),
            at_fake=lambda: self._gradient(self.fake),
            between=self._gradient_between,
            fractions=lambda: self.rng.uniform("penalty", 1)[:, 0],
        )

    def run_again(self) -> "DiscriminatorPasses":
        """Runs the passes once more, with `input_gradients`."""
        return DiscriminatorPasses(
            self._discriminate,
            self.discriminator,
            self._real_images,
            self._fake_images,
            self.rng,
            augmenter=self._augmenter,
            record_gradients=True,
        )

    def _run(self, labeled: LabeledImages, purpose: str) -> DiscriminatorOutput:
        images, labels = labeled
        augmented = images
        if self._augmenter is not None:
            augmented = self._augmenter.augmented(images, self.rng.child(f"augment/{purpose}"))
        outputs = self._discriminate(augmented, labels)
        logits, features = outputs if isinstance(outputs, (tuple, list)) else (outputs, None)
        return DiscriminatorOutput(images, labels, as_logits(logits), features)

    def _run_concatenated(self) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
        """Runs real and fake images as one batch, which batch normalization sees as one."""
        (real_images, real_labels), (fake_images, fake_labels) = self._real_images, self._fake_images
        labels = None if real_labels is None else tf.concat([real_labels, fake_labels], axis=0)
        both = self._run((tf.concat([real_images, fake_images], axis=0), labels), "both")
        logits = tf.split(both.logits, 2)
        features = (None, None) if both.features is None else tf.split(both.features, 2)
        return (
            DiscriminatorOutput(real_images, real_labels, logits[0], features[0]),
            DiscriminatorOutput(fake_images, fake_labels, logits[1], features[1]),
        )

    def _gradient(self, output: DiscriminatorOutput) -> tf.Tensor:
        """The gradient of the logits, of patches their mean: float32 [B, H, W, C]."""
        num_patches = float(output.logits[0].shape.num_elements())
        return self._tape.gradient(output.logits, output.images) / num_patches

    def _gradient_between(self, fractions: tf.Tensor) -> tf.Tensor:
        (real_images, real_labels), (fake_images, _) = self._real_images, self._fake_images
        fractions = tf.reshape(fractions, [-1] + [1] * (len(real_images.shape) - 1))
        images = real_images + (fake_images - real_images) * fractions
        with tf.GradientTape(watch_accessed_variables=False) as tape, discarded_updates(self.discriminator):
            tape.watch(images)
            logits = per_example(self._run((images, real_labels), "between").logits)
        return tape.gradient(logits, images)
