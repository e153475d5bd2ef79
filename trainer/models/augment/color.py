"""Transformations of the colors of images.

Shapes: `B` images of a replica, `H W C` height, width and channels.
"""

import functools
import math
import operator

import tensorflow as tf

from trainer.models.augment.affine import Affine, compose, linear_map, scaling, translation
from trainer.models.augment.draws import TransformDraws, where_applied


def jitter(images: tf.Tensor, draws: TransformDraws, image_range: tuple[float, float]) -> tf.Tensor:
    """Applies DiffAugment's brightness, saturation and contrast, in this order.

    Brightness adds U[-0.5, 0.5) in units of half the range. Saturation multiplies the distance of each pixel from its
    own gray by U[0, 2). Contrast multiplies the distance of each pixel from the mean of the image by U[0.5, 1.5).
    """
    channels, half = images.shape[-1], (image_range[1] - image_range[0]) / 2
    applied = {name: draws.applied(name) for name in ("brightness", "saturation", "contrast")}
    brightness = half * _strength(draws, "brightness", applied, -0.5, 0.5, neutral=0.0)
    saturation = _strength(draws, "saturation", applied, 0.0, 2.0, neutral=1.0)
    contrast = _strength(draws, "contrast", applied, 0.5, 1.5, neutral=1.0)
    # All three are one map, because brightness shifts the mean of the image by itself and saturation preserves it.
    # The mean is taken in two steps, because the gradient of a mean of all pixels broadcasts single numbers.
    rows = tf.reshape(images, [-1, images.shape[1], images.shape[2] * channels])
    mean = tf.reduce_mean(tf.reduce_mean(rows, axis=1), axis=1)
    offset = brightness + (1.0 - contrast) * mean
    factors = contrast[:, tf.newaxis, tf.newaxis]
    linear = factors * _saturation(saturation, channels).linear
    jittered = _map_colors(images, Affine(linear, tf.repeat(offset[:, tf.newaxis], channels, axis=1)))
    return where_applied(functools.reduce(operator.or_, applied.values()), jittered, images)


def recolor(images: tf.Tensor, draws: TransformDraws, image_range: tuple[float, float]) -> tf.Tensor:
    """Applies ADA's brightness, contrast, luma flip, hue and saturation, in this order, as one affine map of colors.

    Brightness adds 0.2·N(0, 1) in units of half the range. Contrast multiplies by 2^(0.5·N(0, 1)) around the middle of
    the range. The luma flip mirrors the gray axis with probability 1/2. Hue rotates around that axis by any angle.
    Saturation multiplies the distance from it by 2^N(0, 1). Images of one channel have no hue and saturation.
    """
    channels = images.shape[-1]
    maps = {
        "brightness": translation([0.2 * draws.normal("brightness")[0]] * channels),
        "contrast": scaling([2.0 ** (0.5 * draws.normal("contrast")[0])] * channels),
        "luma_flip": _luma_flip(draws.uniform("luma_flip")[0], channels),
    }
    if channels == 3:
        maps["hue"] = _hue_rotation(math.pi * (2.0 * draws.uniform("hue")[0] - 1.0))
        maps["saturation"] = _saturation(2.0 ** draws.normal("saturation")[0], channels)
    applied, composition = compose([(draws.applied(name), colors) for name, colors in maps.items()])
    low, high = image_range
    middle, half = (low + high) / 2, (high - low) / 2
    offset = half * composition.offset + middle * (1.0 - tf.reduce_sum(composition.linear, axis=2))
    return where_applied(applied, _map_colors(images, Affine(composition.linear, offset)), images)


def _luma_flip(draw: tf.Tensor, channels: int) -> Affine:
    flipped = tf.cast(draw < 0.5, tf.float32)[:, tf.newaxis, tf.newaxis]
    linear = tf.eye(channels) - (2.0 / channels) * flipped  # I - 2·v·vᵀ, with the unit vector v along the grays
    return Affine(linear, tf.zeros_like(linear[:, 0]))


def _saturation(factor: tf.Tensor, channels: int) -> Affine:
    factor = factor[:, tf.newaxis, tf.newaxis]
    linear = tf.eye(channels) + (factor - 1.0) * (tf.eye(channels) - 1.0 / channels)  # Exactly 1 for one channel.
    return Affine(linear, tf.zeros_like(linear[:, 0]))


def _hue_rotation(angle: tf.Tensor) -> Affine:
    """Returns rotations around the gray axis by Rodrigues' formula; the rows are cyclic shifts of each other."""
    cosine, sine = tf.cos(angle), tf.sin(angle) / math.sqrt(3.0)
    third = (1.0 - cosine) / 3.0
    same, following, preceding = cosine + third, third - sine, third + sine
    return linear_map([[same, following, preceding], [preceding, same, following], [following, preceding, same]])


def _map_colors(images: tf.Tensor, colors: Affine) -> tf.Tensor:
    _, height, width, channels = images.shape
    if channels == 1:
        return images * colors.linear[:, tf.newaxis] + colors.offset[:, tf.newaxis, tf.newaxis]
    # On a GPU this product may round to ten bits, as the convolutions of the discriminator do with the same images.
    pixels = tf.matmul(tf.reshape(images, [-1, height * width, channels]), colors.linear, transpose_b=True)
    # The offset is added to rows of pixels, because broadcasting along a few channels is slow.
    rows = tf.reshape(pixels, [-1, height, width * channels]) + tf.tile(colors.offset, [1, width])[:, tf.newaxis]
    return tf.reshape(rows, tf.shape(images))


def _strength(
    draws: TransformDraws, name: str, applied: dict[str, tf.Tensor], low: float, high: float, *, neutral: float
) -> tf.Tensor:
    """Returns U[low, high) for images that a transformation is applied to, else its neutral strength: float32 [B]."""
    return tf.where(applied[name], low + (high - low) * draws.uniform(name)[0], neutral)
