"""Differentiable augmentation of the images that a discriminator sees, registered by one decorator.

Shapes: `B` images of a replica, `H W C` height, width and channels.

Every augmentation is an affine map of each image, drawn from numbers that are keyed by purpose and by the image's place
in the global batch. It has derivatives of every order, so a penalty can be taken with respect to the plain images.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from trainer.errors import ConfigError
from trainer.models.augment import color, geometry
from trainer.models.augment.draws import Chances, Draws
from trainer.registry import Registry, check_known

__all__ = ["Draws", "ada", "adapted_probability", "augmentation", "check_name", "diffaugment", "get", "names"]

_TARGET_SIGN = 0.6
_IMAGES_FROM_NEVER_TO_ALWAYS = 500_000

_AUGMENTATIONS: Registry[Callable[..., tf.Tensor]] = Registry("augmentation")
names, check_name = _AUGMENTATIONS.names, _AUGMENTATIONS.check_name


def register_augmentation(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Registers an augmentation under the name of its function.

    The function takes `images` (float32 [B, H, W, C]), `rng` (a `Draws`) and `probability` (in [0, 1]: the chance
    that each of its transformations is applied to an image), then `image_range` (low, high) and its own options by
    keyword, with defaults. It returns float32 [B, H, W, C]; images that no transformation is applied to come back as
    they were.
    """
    return _AUGMENTATIONS.add(function.__name__, function)


def get(name: str) -> Callable[..., tf.Tensor]:
    """An augmentation from its name.

    Raises:
        ConfigError: The name is unknown; the message names the nearest one.
    """
    return _AUGMENTATIONS[name]


@register_augmentation
def diffaugment(
    images: tf.Tensor,
    rng: Draws,
    probability: float | tf.Tensor = 1.0,
    *,
    image_range: tuple[float, float] = (-1.0, 1.0),
    policy: Sequence[str] = ("color", "translation", "cutout"),
) -> tf.Tensor:
    """Jitters the colors, shifts by up to an eighth of each side, and cuts out a box of half of each side.

    Args:
        images: float32 [B, H, W, C] in `image_range`; C is 1 or 3.
        rng: Where the random numbers come from.
        probability: The chance, in [0, 1], that each transformation is applied to an image: a float or a scalar tensor.
        image_range: The values (low, high) of black and white.
        policy: Which transformations, of `color` (brightness, saturation, contrast), `translation` and `cutout`.

    Returns:
        float32 [B, H, W, C], which color jitter may take out of `image_range`.

    Raises:
        ConfigError: A word of the policy is unknown, the probability is out of range, or C is neither 1 nor 3.

    Source: arXiv 2006.10738, section 3.2. Its strengths are for images in [-1, 1] and are scaled to `image_range`. What
    is shifted in or cut out is the middle of the range: zero in the paper's units.
    """
    _check(images, probability, policy, known=("color", "translation", "cutout"))
    chances = Chances("diffaugment", rng, probability)
    if "color" in policy:
        images = color.jitter(images, chances, image_range)
    if "translation" in policy:
        images = geometry.translate(images, chances, image_range)
    if "cutout" in policy:
        images = geometry.cut_out(images, chances, image_range)
    return images


@register_augmentation
def ada(
    images: tf.Tensor,
    rng: Draws,
    probability: float | tf.Tensor = 1.0,
    *,
    image_range: tuple[float, float] = (-1.0, 1.0),
    policy: Sequence[str] = ("blit", "geom", "color"),
) -> tf.Tensor:
    """Flips, turns, shifts, scales and recolors images; `adapted_probability` says how often.

    Args:
        images: float32 [B, H, W, C] in `image_range`; C is 1 or 3.
        rng: Where the random numbers come from.
        probability: The chance, in [0, 1], that each transformation is applied to an image: a float or a scalar tensor.
        image_range: The values (low, high) of black and white.
        policy: Which transformations: `blit` (flip, quarter turns, shift by whole pixels), `geom` (scale, rotation,
            stretch, rotation, shift by fractions of a pixel), `color` (brightness, contrast, and luma flip; hue and
            saturation where C is 3). A flip and the turns leave an image as it is in one of two and of four draws.

    Returns:
        float32 [B, H, W, C], which `color` may take out of `image_range`.

    Raises:
        ConfigError: A word of the policy is unknown, the probability is out of range, or C is neither 1 nor 3.

    Source: arXiv 2006.06676, appendix B. Its strengths are for images in [-1, 1] and are scaled to `image_range`.
    Deviations: images are sampled once, bilinearly, without the paper's wavelet filters around it; and what lies
    outside of an image is its reflection without end, where the paper's ends in zeros far outside.
    """
    _check(images, probability, policy, known=("blit", "geom", "color"))
    chances = Chances("ada", rng, probability)
    if "blit" in policy or "geom" in policy:
        images = geometry.warp(images, chances, blit="blit" in policy, geom="geom" in policy)
    if "color" in policy:
        images = color.recolor(images, chances, image_range)
    return images


def adapted_probability(
    probability: float | tf.Tensor, mean_sign: float | tf.Tensor, num_images: int | tf.Tensor
) -> tf.Tensor:
    """The probability of ADA's transformations after a look at how far the discriminator overfits.

    Args:
        probability: The probability so far, in [0, 1].
        mean_sign: The mean of sign(D(x)) over the real images since the last change, D's output being a logit; in
            [-1, 1]. At more than 0.6 the discriminator overfits.
        num_images: Real images since the last change. The paper changes the probability every 4 batches.

    Returns:
        float32 scalar in [0, 1]; from 0 to 1 takes 500,000 images at least.

    Source: arXiv 2006.06676, section 3 (the heuristic r_t of equation 1).
    """
    towards = tf.sign(tf.cast(mean_sign, tf.float32) - _TARGET_SIGN)
    change = towards * tf.cast(num_images, tf.float32) / _IMAGES_FROM_NEVER_TO_ALWAYS
    return tf.clip_by_value(tf.cast(probability, tf.float32) + change, 0.0, 1.0)


def _check(images: tf.Tensor, probability: float | tf.Tensor, policy: Sequence[str], known: Sequence[str]) -> None:
    for word in policy:
        check_known("word of an augmentation's policy", word, known)
    if isinstance(probability, (int, float)) and not 0.0 <= probability <= 1.0:
        raise ConfigError(f"probability={probability} of an augmentation is out of range; give one in [0, 1].")
    if images.shape[-1] not in (1, 3):
        raise ConfigError(f"Images of {images.shape[-1]} channels cannot be augmented; give them 1 or 3, or use none.")
