"""Transformations of the geometry of images.

Shapes: `B` images of a replica, `H W C` height, width and channels.
"""

import math

import tensorflow as tf

from trainer.models.augment.affine import Affine, compose, linear_map, scaling, translation
from trainer.models.augment.draws import TransformDraws, where_applied
from trainer.models.augment.resampling import fill_outside, outer_mask, sample, shift

_TRANSLATION = 0.125  # Fraction of a side.
_CUTOUT = 0.5  # Fraction of a side.
_SCALE = 0.2  # Fraction of an octave.


def translate(images: tf.Tensor, draws: TransformDraws, image_range: tuple[float, float]) -> tf.Tensor:
    """Shifts images by whole pixels, up to an eighth of each side, and fills with the middle of the range."""
    max_y, max_x = (int(_TRANSLATION * side + 0.5) for side in images.shape[1:3])
    down, right = draws.integers("translation", 2 * max_y + 1, 2 * max_x + 1)
    applied = draws.applied("translation")
    down, right = (tf.where(applied, offset, 0) for offset in (down - max_y, right - max_x))
    return where_applied(applied, shift(images, down, right, fill=sum(image_range) / 2), images)


def cut_out(images: tf.Tensor, draws: TransformDraws, image_range: tuple[float, float]) -> tf.Tensor:
    """Fills a box of half of each side, centered anywhere in the image, with the middle of the range."""
    sides = images.shape[1:3]
    boxes = [int(_CUTOUT * side + 0.5) for side in sides]
    # A box of even size is centered between two pixels, which gives one more possible position.
    centers = draws.integers("cutout", *(side + 1 - box % 2 for side, box in zip(sides, boxes, strict=True)))
    inside = []
    for side, box, center in zip(sides, boxes, centers, strict=True):
        distance = tf.range(side) - (center - box // 2)[:, tf.newaxis]
        inside.append((distance >= 0) & (distance < box))
    applied = draws.applied("cutout")
    rows, columns = inside[0] & applied[:, tf.newaxis], inside[1]
    cut = fill_outside(images, 1.0 - outer_mask(rows, columns, images.shape[-1]), fill=sum(image_range) / 2)
    return where_applied(applied, cut, images)


def warp(images: tf.Tensor, draws: TransformDraws, *, blit: bool, geom: bool) -> tf.Tensor:
    """Applies ADA's geometric transformations with one sampling of each image.

    Args:
        images: float32 [B, H, W, C].
        draws: Random draws of the transformations.
        blit: True for a flip with probability 1/2, up to three quarter turns, and a shift by whole pixels, up to an
            eighth of a side.
        geom: True for scaling by 2^(0.2·N(0, 1)), rotation by any angle, stretching by such a factor along one axis and
            its inverse along the other, another rotation, and a shift by N(0, 1) eighths of a side. The rotations share
            the probability that at least one of them is applied.
    """
    sides = images.shape[1:3]
    maps = (_blit(draws, *sides) if blit else []) + (_geom(draws, *sides) if geom else [])
    # These maps lead from positions in the result to positions in the image, so the last transformation comes first.
    applied, source = compose(maps[::-1])
    return where_applied(applied, sample(images, source), images)


def _blit(draws: TransformDraws, height: int, width: int) -> list[tuple[tf.Tensor, Affine]]:
    (flipped,), (quarters,) = draws.integers("x_flip", 2), draws.integers("quarter_turns", 4)
    mirror = 1.0 - 2.0 * tf.cast(flipped, tf.float32)
    cosine, sine = (
        tf.gather(tf.constant(values), quarters) for values in ([1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0])
    )
    down, right = (_TRANSLATION * (2.0 * draw - 1.0) for draw in draws.uniform("translation", 2))
    return [
        (draws.applied("x_flip"), scaling([tf.ones_like(mirror), mirror])),
        (draws.applied("quarter_turns"), linear_map([[cosine, -sine], [sine, cosine]])),
        (draws.applied("translation"), translation([-tf.round(down * height), -tf.round(right * width)])),
    ]


def _geom(draws: TransformDraws, height: int, width: int) -> list[tuple[tf.Tensor, Affine]]:
    (octaves,), (stretch,) = draws.normal("scale"), draws.normal("stretch")
    factor, ratio = 2.0 ** (-_SCALE * octaves), 2.0 ** (-_SCALE * stretch)
    down, right = (_TRANSLATION * draw for draw in draws.normal("fractional_translation", 2))
    return [
        (draws.applied("scale"), scaling([factor, factor])),
        (draws.applied("rotation", num_sharing=2), _rotation(draws, "rotation")),
        (draws.applied("stretch"), scaling([1.0 / ratio, ratio])),
        (draws.applied("rotation_after", num_sharing=2), _rotation(draws, "rotation_after")),
        (draws.applied("fractional_translation"), translation([-down * height, -right * width])),
    ]


def _rotation(draws: TransformDraws, name: str) -> Affine:
    angle = math.pi * (2.0 * draws.uniform(name)[0] - 1.0)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    return linear_map([[cosine, -sine], [sine, cosine]])
