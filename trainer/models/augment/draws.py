"""Random numbers of an augmentation: the transformations that are applied to each image, and their strengths.

Shapes: `B` images of a replica.
"""

from typing import NamedTuple, Protocol

import tensorflow as tf


class ImageRng(Protocol):
    """Random numbers per image, keyed by purpose: equal purposes give equal numbers, others independent ones."""

    def uniform(self, purpose: str, size: int) -> tf.Tensor:
        """Returns U[0, 1), float32 [B, size]."""

    def normal(self, purpose: str, size: int) -> tf.Tensor:
        """Returns N(0, 1), float32 [B, size]."""


def where_applied(applied: tf.Tensor, changed: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Returns the changed images, but images that no transformation is applied to are the same to the bit.

    Args:
        applied: Whether any transformation is applied to each image, bool [B].
        changed: float32 [B, H, W, C], a differentiable function of the images that is the identity, up to rounding and
            the sign of zeros, for images with false `applied`. Its derivatives are those of the result.
        images: float32 [B, H, W, C], before the transformations.
    """

    @tf.custom_gradient
    def select(values: tf.Tensor) -> tuple[tf.Tensor, object]:
        # This operation copies whole images; `tf.where` broadcasts the condition, which is many times slower on a CPU.
        return tf.raw_ops.Select(condition=applied, x=values, y=images), tf.identity

    return select(changed)


class TransformDraws(NamedTuple):
    """Random draws of an augmentation's transformations.

    The purposes of a transformation are `scope/name` and `scope/name/applied`.
    """

    scope: str
    rng: ImageRng
    probability: float | tf.Tensor

    def applied(self, name: str, num_sharing: int = 1) -> tf.Tensor:
        """Returns whether a transformation is applied to each image: bool [B].

        Args:
            name: Name of the transformation.
            num_sharing: Number of transformations that share the probability, such that at least one of them is applied
                with that probability.
        """
        probability = self.probability
        if num_sharing > 1:
            probability = 1.0 - (1.0 - self.probability) ** (1.0 / num_sharing)
        return self.rng.uniform(f"{self.scope}/{name}/applied", 1)[:, 0] < probability

    def uniform(self, name: str, size: int = 1) -> list[tf.Tensor]:
        """Returns `size` strengths of a transformation, U[0, 1): float32 [B] each."""
        return tf.unstack(self.rng.uniform(f"{self.scope}/{name}", size), axis=-1)

    def normal(self, name: str, size: int = 1) -> list[tf.Tensor]:
        """Returns `size` strengths of a transformation, N(0, 1): float32 [B] each."""
        return tf.unstack(self.rng.normal(f"{self.scope}/{name}", size), axis=-1)

    def integers(self, name: str, *counts: int) -> list[tf.Tensor]:
        """Returns one uniform integer in [0, count) for each of `counts`: int32 [B] each."""
        draws = self.uniform(name, len(counts))
        return [tf.minimum(tf.cast(draw * n, tf.int32), n - 1) for draw, n in zip(draws, counts, strict=True)]
