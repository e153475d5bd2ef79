"""Affine maps, one per image, of the points of its plane or of its colors.

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
        """Returns this map followed by another one."""
        # Sums of products, because a GPU's matrix product may round its factors to ten bits.
        linear = tf.reduce_sum(following.linear[:, :, :, tf.newaxis] * self.linear[:, tf.newaxis], axis=2)
        offset = tf.reduce_sum(following.linear * self.offset[:, tf.newaxis], axis=2) + following.offset
        return Affine(linear, offset)

    def where(self, applied: tf.Tensor) -> "Affine":
        """Returns this map for images with true `applied`, bool [B], and exactly the identity for all others."""
        linear = tf.where(applied[:, tf.newaxis, tf.newaxis], self.linear, tf.eye(self.offset.shape[-1]))
        return Affine(linear, tf.where(applied[:, tf.newaxis], self.offset, 0.0))


def compose(maps: Sequence[tuple[tf.Tensor, Affine]]) -> tuple[tf.Tensor, Affine]:
    """Composes maps in order.

    Args:
        maps: Pairs of whether the map is applied to each image, bool [B], and the map.

    Returns:
        Whether any map is applied to each image, bool [B], and the composition of the applied maps.
    """
    composition = functools.reduce(Affine.then, (affine.where(applied) for applied, affine in maps))
    return functools.reduce(operator.or_, (applied for applied, _ in maps)), composition


def linear_map(rows: Sequence[Sequence[tf.Tensor]]) -> Affine:
    """Returns a map without offset from the D rows of its matrix, each with D elements float32 [B]."""
    linear = tf.stack([tf.stack(list(row), axis=-1) for row in rows], axis=-2)
    return Affine(linear, tf.zeros_like(linear[:, 0]))


def scaling(factors: Sequence[tf.Tensor]) -> Affine:
    """Returns a map that multiplies each dimension by its factor, float32 [B]."""
    linear = tf.linalg.diag(tf.stack(list(factors), axis=-1))
    return Affine(linear, tf.zeros_like(linear[:, 0]))


def translation(offsets: Sequence[tf.Tensor]) -> Affine:
    """Returns a map that adds to each dimension its offset, float32 [B]."""
    offset = tf.stack(list(offsets), axis=-1)
    return Affine(tf.zeros_like(offset)[:, :, tf.newaxis] + tf.eye(len(offsets)), offset)
