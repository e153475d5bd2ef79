"""Transformations of an image's colors.

Shapes: `B` images of a replica, `H W C` height, width and channels.
"""

import math

import tensorflow as tf

from trainer.models.augment.affine import Affine, in_turn, linear_map, scaling, shift
from trainer.models.augment.draws import Chances


def jitter(images: tf.Tensor, chances: Chances, image_range: tuple[float, float]) -> tf.Tensor:
    """DiffAugment's brightness, saturation and contrast, in this order.

    Brightness adds U[-0.5, 0.5) in units of half the range; saturation takes each pixel to 0 to 2 times its distance
    from its own gray; contrast takes each pixel to 0.5 to 1.5 times its distance from the image's mean.
    """
    channels, half = images.shape[-1], (image_range[1] - image_range[0]) / 2
    applied = {name: chances.applied(name) for name in ("brightness", "saturation", "contrast")}
    added = half * _strength(chances, "brightness", applied, -0.5, 0.5, neutral=0.0)
    saturation = _strength(chances, "saturation", applied, 0.0, 2.0, neutral=1.0)
    contrast = _strength(chances, "contrast", applied, 0.5, 1.5, neutral=1.0)
    # All three are one map, for brightness moves the image's mean by itself and saturation leaves it where it is.
    mean = tf.reduce_mean(images, axis=[1, 2, 3])
    offset = added + (1.0 - contrast) * mean
    factors = contrast[:, tf.newaxis, tf.newaxis]
    linear = factors * _saturation(saturation, channels).linear
    jittered = _map_colors(images, Affine(linear, tf.repeat(offset[:, tf.newaxis], channels, axis=1)))
    return _where(applied["brightness"] | applied["saturation"] | applied["contrast"], jittered, images)


def recolor(images: tf.Tensor, chances: Chances, image_range: tuple[float, float]) -> tf.Tensor:
    """ADA's brightness, contrast, luma flip, hue and saturation, in this order, as one affine map of the colors.

    Brightness adds 0.2·N(0, 1) in units of half the range; contrast multiplies by 2^(0.5·N(0, 1)) around its middle;
    the luma flip mirrors the gray axis in one of two draws; hue turns around that axis by any angle; saturation
    multiplies the distance from it by 2^N(0, 1). Images of one channel have no hue and saturation.
    """
    channels = images.shape[-1]
    maps = {
        "brightness": shift([0.2 * chances.normal("brightness")[0]] * channels),
        "contrast": scaling([2.0 ** (0.5 * chances.normal("contrast")[0])] * channels),
        "luma_flip": _luma_flip(chances.uniform("luma_flip")[0], channels),
    }
    if channels == 3:
        maps["hue"] = _hue_turn(math.pi * (2.0 * chances.uniform("hue")[0] - 1.0))
        maps["saturation"] = _saturation(2.0 ** chances.normal("saturation")[0], channels)
    touched, total = in_turn([(chances.applied(name), colors) for name, colors in maps.items()])
    low, high = image_range
    middle, half = (low + high) / 2, (high - low) / 2
    offset = half * total.offset + middle * (1.0 - tf.reduce_sum(total.linear, axis=2))
    return _where(touched, _map_colors(images, Affine(total.linear, offset)), images)


def _luma_flip(draw: tf.Tensor, channels: int) -> Affine:
    flipped = tf.cast(draw < 0.5, tf.float32)[:, tf.newaxis, tf.newaxis]
    linear = tf.eye(channels) - (2.0 / channels) * flipped  # I - 2·v·vᵀ, v the unit vector along the grays
    return Affine(linear, tf.zeros_like(linear[:, 0]))


def _saturation(factor: tf.Tensor, channels: int) -> Affine:
    factor = factor[:, tf.newaxis, tf.newaxis]
    linear = tf.eye(channels) + (factor - 1.0) * (tf.eye(channels) - 1.0 / channels)  # of one channel exactly 1
    return Affine(linear, tf.zeros_like(linear[:, 0]))


def _hue_turn(angle: tf.Tensor) -> Affine:
    """Rodrigues' formula around the grays: each row of the matrix is the one above it, moved on by one channel."""
    cosine, sine = tf.cos(angle), tf.sin(angle) / math.sqrt(3.0)
    third = (1.0 - cosine) / 3.0
    same, following, before = cosine + third, third - sine, third + sine
    return linear_map([[same, following, before], [before, same, following], [following, before, same]])


def _map_colors(images: tf.Tensor, colors: Affine) -> tf.Tensor:
    _, height, width, channels = images.shape
    if channels == 1:
        return images * colors.linear[:, tf.newaxis] + colors.offset[:, tf.newaxis, tf.newaxis]
    # On a GPU this product may round to ten bits, as the discriminator's convolutions round the same images.
    pixels = tf.matmul(tf.reshape(images, [-1, height * width, channels]), colors.linear, transpose_b=True)
    # By rows of pixels, because a sum that broadcasts along a few channels is slow.
    rows = tf.reshape(pixels, [-1, height, width * channels]) + tf.tile(colors.offset, [1, width])[:, tf.newaxis]
    return tf.reshape(rows, tf.shape(images))


def _strength(
    chances: Chances, name: str, applied: dict[str, tf.Tensor], low: float, high: float, *, neutral: float
) -> tf.Tensor:
    """U[low, high) where a transformation applies to an image, else its neutral strength: float32 [B]."""
    return tf.where(applied[name], low + (high - low) * chances.uniform(name)[0], neutral)


def _where(applied: tf.Tensor, result: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """`result` for the images where `applied`, bool [B], and the others as they were, to the bit."""
    return tf.where(applied[:, tf.newaxis, tf.newaxis, tf.newaxis], result, images)
