"""A recipe whose losses are not finite in some steps, for `exact_resume`: three rollbacks, and a shorter row."""

import numpy as np
import tensorflow as tf

from trainer.config import TrainConfig, recipes
from trainer.models import GAN, register_model
from trainer.training.plan import Losses, Metrics
from trainer.training.rng import StepRng

_BROKEN = ((105, 110, 1), (411, 413, 9), (705, 710, 2), (1238, 1243, 3))
"""First step, step after the last one, and number of rollbacks that end the row."""


@register_model("diverging")
class DivergingGAN(GAN):
    """A GAN with a loss that is NaN in some steps."""

    def forward(
        self, real_images: tf.Tensor, labels: tf.Tensor | None, rng: StepRng, phases: tuple[str, ...]
    ) -> tuple[Losses, Metrics]:
        losses, metrics = super().forward(real_images, labels, rng, phases)
        step = tf.cast(rng.step, tf.int64)
        rows = [tf.logical_and(step >= first, step < end) for first, end, salt in _BROKEN if rng.salt < salt]
        noise = tf.where(tf.reduce_any(rows), np.float32(np.nan), 0.0)
        return {name: loss + noise for name, loss in losses.items()}, metrics


def diverging() -> TrainConfig:
    """Returns the recipe `vanilla` with the diverging model."""
    return recipes.get("vanilla").override(model="diverging")
