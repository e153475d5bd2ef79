"""The random numbers of one call of an augmentation: which transformations apply to which image, and how strongly.

Shapes: `B` images of a replica.
"""

from typing import NamedTuple, Protocol

import tensorflow as tf


class Draws(Protocol):
    """Random numbers per image, keyed by purpose: a purpose gives the same numbers again, another one others."""

    def uniform(self, purpose: str, size: int) -> tf.Tensor:
        """U[0, 1): float32 [B, size]."""

    def normal(self, purpose: str, size: int) -> tf.Tensor:
        """N(0, 1): float32 [B, size]."""


class Chances(NamedTuple):
    """What an augmentation draws; a transformation has two purposes, `scope/name` and `scope/name/applied`."""

    scope: str
    rng: Draws
    probability: float | tf.Tensor

    def applied(self, name: str, ways: int = 1) -> tf.Tensor:
        """Whether the transformation `name` applies to each image: bool [B].

        Args:
            name: The transformation.
            ways: How many transformations share the probability, so that any of them applies with it.
        """
        chance = 1.0 - (1.0 - self.probability) ** (1.0 / ways) if ways > 1 else self.probability
        return self.rng.uniform(f"{self.scope}/{name}/applied", 1)[:, 0] < chance

    def uniform(self, name: str, size: int = 1) -> list[tf.Tensor]:
        """Strengths of a transformation, in [0, 1): `size` times float32 [B]."""
        return tf.unstack(self.rng.uniform(f"{self.scope}/{name}", size), axis=-1)

    def normal(self, name: str, size: int = 1) -> list[tf.Tensor]:
        """Strengths of a transformation, N(0, 1): `size` times float32 [B]."""
        return tf.unstack(self.rng.normal(f"{self.scope}/{name}", size), axis=-1)

    def whole(self, name: str, *counts: int) -> list[tf.Tensor]:
        """Uniform whole numbers, each under its own of `counts`: int32 [B] each."""
        draws = self.uniform(name, len(counts))
        return [tf.minimum(tf.cast(draw * n, tf.int32), n - 1) for draw, n in zip(draws, counts, strict=True)]
