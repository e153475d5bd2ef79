"""Transformations that move an image's pixels.

Shapes: `B` images of a replica, `H W C` height, width and channels.
"""

import math

import tensorflow as tf

from trainer.models.augment.affine import Affine, in_turn, linear_map, scaling, shift
from trainer.models.augment.draws import Chances
from trainer.models.augment.resampling import both, keep, sample, shifted

_TRANSLATION = 0.125  # of a side
_CUTOUT = 0.5  # of a side
_SCALE = 0.2  # of an octave


def translate(images: tf.Tensor, chances: Chances, image_range: tuple[float, float]) -> tf.Tensor:
    """Shifts by whole pixels, each way by up to an eighth of the side; the middle of the range comes in."""
    reach_y, reach_x = (int(_TRANSLATION * side + 0.5) for side in images.shape[1:3])
    down, right = chances.whole("translation", 2 * reach_y + 1, 2 * reach_x + 1)
    applied = chances.applied("translation")
    down, right = (tf.where(applied, moved, 0) for moved in (down - reach_y, right - reach_x))
    return shifted(images, down, right, fill=sum(image_range) / 2)


def cut_out(images: tf.Tensor, chances: Chances, image_range: tuple[float, float]) -> tf.Tensor:
    """Fills a box of half of each side, centerd anywhere in the image, with the middle of the range."""
    sides = images.shape[1:3]
    boxes = [int(_CUTOUT * side + 0.5) for side in sides]
    # A box of even size has its center between two pixels, and one more place for it.
    centers = chances.whole("cutout", *(side + 1 - box % 2 for side, box in zip(sides, boxes, strict=True)))
    inside = []
    for side, box, center in zip(sides, boxes, centers, strict=True):
        from_start = tf.range(side) - (center - box // 2)[:, tf.newaxis]
        inside.append((from_start >= 0) & (from_start < box))
    rows, columns = inside[0] & chances.applied("cutout")[:, tf.newaxis], inside[1]
    return keep(images, ~both(rows, columns, images.shape[-1]), fill=sum(image_range) / 2)


def warp(images: tf.Tensor, chances: Chances, *, blit: bool, geom: bool) -> tf.Tensor:
    """ADA's moves of pixels, all in one sampling of the image.

    `blit`: a flip in one of two draws; none to three quarter turns; a shift by whole pixels, up to an eighth of a side.
    `geom`: scale by 2^(0.2·N(0, 1)); rotation by any angle; a stretch to such a factor times one axis and the other
    divided by it; one more rotation; a shift by N(0, 1) eighths of a side. The two rotations share the probability:
    any of them applies with it.
    """
    sides = images.shape[1:3]
    maps = (_blit(chances, *sides) if blit else []) + (_geom(chances, *sides) if geom else [])
    # These maps lead from a place in the result to a place in the image: what is done to it last comes first.
    touched, source = in_turn(maps[::-1])
    return tf.where(touched[:, tf.newaxis, tf.newaxis, tf.newaxis], sample(images, source), images)


def _blit(chances: Chances, height: int, width: int) -> list[tuple[tf.Tensor, Affine]]:
    (flipped,), (quarters,) = chances.whole("x_flip", 2), chances.whole("quarter_turns", 4)
    mirror = 1.0 - 2.0 * tf.cast(flipped, tf.float32)
    cosine, sine = (
        tf.gather(tf.constant(values), quarters) for values in ([1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0])
    )
    down, right = (_TRANSLATION * (2.0 * draw - 1.0) for draw in chances.uniform("translation", 2))
    return [
        (chances.applied("x_flip"), scaling([tf.ones_like(mirror), mirror])),
        (chances.applied("quarter_turns"), linear_map([[cosine, -sine], [sine, cosine]])),
        (chances.applied("translation"), shift([-tf.round(down * height), -tf.round(right * width)])),
    ]


def _geom(chances: Chances, height: int, width: int) -> list[tuple[tf.Tensor, Affine]]:
    (octaves,), (stretch,) = chances.normal("scale"), chances.normal("stretch")
    factor, longer = 2.0 ** (-_SCALE * octaves), 2.0 ** (-_SCALE * stretch)
    down, right = (_TRANSLATION * draw for draw in chances.normal("fractional_translation", 2))
    return [
        (chances.applied("scale"), scaling([factor, factor])),
        (chances.applied("rotation", ways=2), _rotation(chances, "rotation")),
        (chances.applied("stretch"), scaling([1.0 / longer, longer])),
        (chances.applied("rotation_after", ways=2), _rotation(chances, "rotation_after")),
        (chances.applied("fractional_translation"), shift([-down * height, -right * width])),
    ]


def _rotation(chances: Chances, name: str) -> Affine:
    angle = math.pi * (2.0 * chances.uniform(name)[0] - 1.0)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    return linear_map([[cosine, -sine], [sine, cosine]])
