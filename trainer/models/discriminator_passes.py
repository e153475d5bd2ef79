"""The discriminator's outputs for one batch of real and fake images.

Shapes: `B` images of a replica, `H W C` an image, `P` patches that the discriminator rates one by one.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
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
class PassInputs:
    """The inputs of the discriminator's passes.

    Attributes:
        discriminate: Function that runs the discriminator.
        discriminator: Network that `discriminate` runs, whose updates of buffers some passes discard.
        real: Real images and their labels.
        fake: Fake images and their labels.
        rng: Random numbers of the step.
        image_range: Range of the images.
        channels_of_parts: Numbers of channels of images that are joined along the channels, and augmented alike. None:
            a single image.
    """

    discriminate: Discriminate
    discriminator: keras.Model
    real: LabeledImages
    fake: LabeledImages
    rng: StepRng
    image_range: tuple[float, float]
    channels_of_parts: tuple[int, ...] | None = None


@dataclass(frozen=True)
class DiscriminatorOutput:
    """Images, and the discriminator's output for them.

    Attributes:
        images: float32 [B, H, W, C], before augmentation.
        labels: int32 [B], or None.
        logits: float32 [B] or [B, P].
        features: What the discriminator returns beside its logits, such as [B, F], or a dict of tensors [B, ...]; or
            None.
    """

    images: tf.Tensor
    labels: tf.Tensor | None
    logits: tf.Tensor
    features: Any


class DiscriminatorPasses:
    """Runs the discriminator on a batch of real and then on a batch of fake images.

    The order is the same in every phase, so that layers with state, such as spectral normalization and dropout, are in
    the same state in a pass regardless of which losses use it.

    Args:
        inputs: Discriminator, images, and random numbers.
        augmenter: Augmentation of what the discriminator sees; None for none.
        concatenated: Whether to run real and fake images as one batch.
        record_gradients: Whether to make `input_gradients` available.

    Attributes:
        rng: Random numbers of the step.
        real: Output for the real images.
        fake: Output for the fake images.
    """

    def __init__(
        self,
        inputs: PassInputs,
        *,
        augmenter: Augmenter | None = None,
        concatenated: bool = False,
        record_gradients: bool = False,
    ):
        self.rng = inputs.rng
        self._inputs, self._augmenter, self._concatenated = inputs, augmenter, concatenated
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._tape:
            if record_gradients:
                self._tape.watch([inputs.real[0], inputs.fake[0]])
            if concatenated:
                self.real, self.fake = self._run_concatenated()
            else:
                self.real, self.fake = self._run(inputs.real, "real"), self._run(inputs.fake, "fake")

    def fake_for_generator(self) -> DiscriminatorOutput:
        """The output for the fake images as the generator's loss uses it: in a separate batch."""
        return self._run(self._inputs.fake, "fake") if self._concatenated else self.fake

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
        return DiscriminatorPasses(self._inputs, augmenter=self._augmenter, record_gradients=True)

    def discarded_updates(self) -> AbstractContextManager[None]:
        """Returns a context in which passes change neither the discriminator's buffers nor the augmenter's."""
        return discarded_updates(*filter(None, (self._inputs.discriminator, self._augmenter)))

    def _run(self, labeled: LabeledImages, purpose: str) -> DiscriminatorOutput:
        images, labels = labeled
        augmented = images
        if self._augmenter is not None:
            augmented = self._augmenter.augment(
                images, self.rng.child(f"augment/{purpose}"), self._inputs.image_range, self._inputs.channels_of_parts
            )
        outputs = self._inputs.discriminate(augmented, labels)
        is_pair = isinstance(outputs, (tuple, list)) and len(outputs) == 2
        logits, features = outputs if is_pair else (outputs, None)
        return DiscriminatorOutput(images, labels, as_logits(logits), features)

    def _run_concatenated(self) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
        """Runs real and fake images as one batch, which batch normalization sees as one."""
        (real_images, real_labels), (fake_images, fake_labels) = self._inputs.real, self._inputs.fake
        labels = None if real_labels is None else tf.concat([real_labels, fake_labels], axis=0)
        both = self._run((tf.concat([real_images, fake_images], axis=0), labels), "both")
        logits = tf.split(both.logits, 2)
        features = [None, None]
        if both.features is not None:
            halves = [tf.split(tensor, 2) for tensor in tf.nest.flatten(both.features)]
            features = [tf.nest.pack_sequence_as(both.features, list(half)) for half in zip(*halves, strict=True)]
        return (
            DiscriminatorOutput(real_images, real_labels, logits[0], features[0]),
            DiscriminatorOutput(fake_images, fake_labels, logits[1], features[1]),
        )

    def _gradient(self, output: DiscriminatorOutput) -> tf.Tensor:
        """The gradient of the logits, of patches their mean: float32 [B, H, W, C]."""
        num_patches = float(output.logits[0].shape.num_elements())
        return (
            self._tape.gradient(output.logits, output.images, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            / num_patches
        )

    def _gradient_between(self, fractions: tf.Tensor) -> tf.Tensor:
        (real_images, real_labels), (fake_images, _) = self._inputs.real, self._inputs.fake
        fractions = tf.reshape(fractions, [-1] + [1] * (len(real_images.shape) - 1))
        images = real_images + (fake_images - real_images) * fractions
        with tf.GradientTape(watch_accessed_variables=False) as tape, self.discarded_updates():
            tape.watch(images)
            logits = per_example(self._run((images, real_labels), "between").logits)
        # Without a gradient to the images, the generator would get none either, which its phase rejects.
        return tape.gradient(logits, images, unconnected_gradients=tf.UnconnectedGradients.ZERO)
