"""Augmentation of the images that a discriminator sees, with a fixed, scheduled or adapted probability."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer.models import augment
from trainer.models.validation import check_no_effect
from trainer.networks.layers import part_of_batch
from trainer.training import schedules
from trainer.training.rng import StepRng

_ADAPTED_EVERY_BATCHES = 4


class Augmenter(keras.layers.Layer):
    """Augments real and fake images alike.

    An adapted probability is state. It rises while the discriminator recognizes training images too easily.

    Args:
        name: Name of an augmentation in `trainer.augment`.
        probability: Probability of each transformation; a number, a schedule, or None to adapt it.

    Raises:
        ConfigError: If the name is unknown, or the probability is out of range.

    Source: arXiv 2006.06676, section 3, for the adapted probability.
    """

    def __init__(self, name: str, probability: schedules.ScheduleLike | None):
        super().__init__(name="augmenter", dtype="float32")
        if probability is not None:
            schedules.check("augment_probability", probability, maximum=1)
        self._augment = augment.get(name)
        self._schedule = None if probability is None else schedules.get(probability)
        if probability is None:
            self.probability, self.sign_sum, self.num_batches = (
                self.add_weight(shape=(), initializer="zeros", trainable=False, name=state)
                for state in ("probability", "sign_sum", "num_batches")
            )
        self.built = True

    def augment(
        self,
        images: tf.Tensor,
        rng: StepRng,
        image_range: tuple[float, float],
        channels_of_parts: Sequence[int] | None = None,
    ) -> tf.Tensor:
        """Returns augmented images: float32 [B, H, W, C].

        Args:
            images: float32 [B, H, W, C].
            rng: Random numbers of the step.
            image_range: Values (low, high) of black and white.
            channels_of_parts: Numbers of channels of images that are joined along the channels, and that get the same
                transformations each. None: a single image.
        """
        probability = self.probability.value if self._schedule is None else self._schedule(rng.step)
        parts = [images] if channels_of_parts is None else tf.split(images, channels_of_parts, axis=-1)
        augmented = [self._augment(part, rng, probability, image_range=image_range) for part in parts]
        return augmented[0] if len(augmented) == 1 else tf.concat(augmented, axis=-1)

    @property
    def adapts(self) -> bool:
        """True if the probability is adapted."""
        return self._schedule is None

    def observe(self, real_logits: tf.Tensor, *, is_first_pass: bool = True) -> None:
        """Counts the real images that the discriminator classifies as real, and adapts the probability every few steps.

        Args:
            real_logits: float32 [B] or [B, P], positive for images that are classified as real.
            is_first_pass: Whether this is the discriminator's first pass of the step. Later passes only count, because
                the counts of replicas are merged after each step.
        """
        if not self.adapts:
            return
        if is_first_pass:
            self._adapt(real_logits)
        sign = tf.reduce_mean(tf.sign(tf.stop_gradient(real_logits)))
        self.sign_sum.assign(self.sign_sum.value + sign)
        self.num_batches.assign(self.num_batches.value + 1.0)

    def _adapt(self, real_logits: tf.Tensor) -> None:
        """Adapts the probability if enough batches were counted, and resets the counts."""
        is_due = self.num_batches.value >= _ADAPTED_EVERY_BATCHES
        _, num_parts = part_of_batch()
        num_images = tf.cast(self.num_batches.value, tf.float32) * real_logits.shape[0] * num_parts
        mean_sign = tf.math.divide_no_nan(self.sign_sum.value, self.num_batches.value)
        adapted = augment.adapted_probability(self.probability.value, mean_sign, num_images)
        self.probability.assign(tf.where(is_due, adapted, self.probability.value))
        self.sign_sum.assign(tf.where(is_due, 0.0, self.sign_sum.value))
        self.num_batches.assign(tf.where(is_due, 0.0, self.num_batches.value))


def create_augmenter(name: str | None, probability: schedules.ScheduleLike | None) -> Augmenter | None:
    """Returns the augmenter for the arguments of `GAN.compile`; None without an augmentation.

    Raises:
        ConfigError: As for `Augmenter`, or if a probability is given without an augmentation.
    """
    if name:
        return Augmenter(name, probability)
    check_no_effect("augment", augment_probability=(probability, 1.0))
    return None
