"""Affine maps, one an image, of the points of its plane or of its colors.

Shapes: `B` images of a replica, `D` dimensions (2 of the plane, C of the colors).
"""

import functools
import operator
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf


class Affine(NamedTuple):
    """The maps v -> linear·v + offset."""

    linear: tf.Tensor
    """float32 [B, D, D]."""
    offset: tf.Tensor
    """float32 [B, D]."""

    def then(self, following: "Affine") -> "Affine":
        """This map, and `following` after it."""
        # Sums of products, because a GPU's matrix product may round its factors to ten bits.
        linear = tf.reduce_sum(following.linear[:, :, :, tf.newaxis] * self.linear[:, tf.newaxis], axis=2)
        offset = tf.reduce_sum(following.linear * self.offset[:, tf.newaxis], axis=2) + following.offset
        return Affine(linear, offset)

    def where(self, applied: tf.Tensor) -> "Affine":
        """This map for the images where `applied`, bool [B]; for the others exactly the identity."""
        linear = tf.where(applied[:, tf.newaxis, tf.newaxis], self.linear, tf.eye(self.offset.shape[-1]))
        return Affine(linear, tf.where(applied[:, tf.newaxis], self.offset, 0.0))


def in_turn(maps: Sequence[tuple[tf.Tensor, Affine]]) -> tuple[tf.Tensor, Affine]:
    """Pairs of whether a map applies, bool [B], and the map, done one after the other: whether any applies, and all."""
    total = functools.reduce(Affine.then, (one.where(applied) for applied, one in maps))
    return functools.reduce(operator.or_, (applied for applied, _ in maps)), total


def linear_map(rows: Sequence[Sequence[tf.Tensor]]) -> Affine:
    """A map without offset, from the rows of its matrix: D times D float32 [B]."""
    linear = tf.stack([tf.stack(list(row), axis=-1) for row in rows], axis=-2)
    return Affine(linear, tf.zeros_like(linear[:, 0]))


def scaling(factors: Sequence[tf.Tensor]) -> Affine:
    """Multiplies each dimension by its factor, float32 [B]."""
    linear = tf.linalg.diag(tf.stack(list(factors), axis=-1))
    return Affine(linear, tf.zeros_like(linear[:, 0]))


def shift(offsets: Sequence[tf.Tensor]) -> Affine:
    """Adds to each dimension its offset, float32 [B]."""
    offset = tf.stack(list(offsets), axis=-1)
    return Affine(tf.zeros_like(offset)[:, :, tf.newaxis] + tf.eye(len(offsets)), offset)
