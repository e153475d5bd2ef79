"""Differentiable augmentations of the images that a discriminator sees, registered by one decorator.

Shapes: `B` images of a replica, `H W C` height, width and channels.

Each augmentation is an affine map of each image. Its random numbers are keyed by purpose and by the position of the
image in the global batch. It has derivatives of every order, so a penalty can use gradients with respect to the images
before augmentation.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from trainer.errors import ConfigError
from trainer.models.augment import color, geometry
from trainer.models.augment.draws import ImageRng, TransformDraws
from trainer.registry import Registry, check_known

__all__ = [
    "ImageRng",
    "ada",
    "adapted_probability",
    "check_name",
    "diffaugment",
    "get",
    "names",
    "register_augmentation",
]

_TARGET_SIGN = 0.6
_ADA_IMAGES = 500_000
"""Real images in which ADA changes the probability from 0 to 1."""

_AUGMENTATIONS: Registry[Callable[..., tf.Tensor]] = Registry("augmentation")
names, check_name = _AUGMENTATIONS.names, _AUGMENTATIONS.check_name


def register_augmentation(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Registers an augmentation under the name of its function.

    The function takes `images` (float32 [B, H, W, C]), `rng` (an `ImageRng`) and `probability` (in [0, 1], the
    probability that each of its transformations is applied to an image), then `image_range` (low, high) and its own
    options as keyword arguments with defaults. It returns float32 [B, H, W, C], with exactly the same values for images
    that no transformation is applied to.

    `GAN.compile` and `--augment` leave the options at their defaults. To use others, register a function that calls
    this one with them, such as `diffaugment` with `policy=("color", "translation")`.
    """
    return _AUGMENTATIONS.add(function.__name__, function)


def get(name: str) -> Callable[..., tf.Tensor]:
    """Returns the augmentation with a name.

    Raises:
        ConfigError: If the name is unknown. The message suggests the closest name.
    """
    return _AUGMENTATIONS[name]


@register_augmentation
def diffaugment(
    images: tf.Tensor,
    rng: ImageRng,
    probability: float | tf.Tensor = 1.0,
    *,
    image_range: tuple[float, float] = (-1.0, 1.0),
    policy: Sequence[str] = ("color", "translation", "cutout"),
) -> tf.Tensor:
    """Jitters colors, shifts images by up to an eighth of each side, and cuts out a box of half of each side.

    Args:
        images: float32 [B, H, W, C] in `image_range`, with C of 1, 3 or 4 (with alpha, which has no colors).
        rng: Source of random numbers.
        probability: Probability in [0, 1], a float or a scalar tensor, that each transformation is applied to an image.
        image_range: Values (low, high) of black and white.
        policy: Transformations to use: `color` (brightness, saturation, contrast), `translation` and `cutout`.

    Returns:
        float32 [B, H, W, C]. Color jitter can produce values outside `image_range`.

    Raises:
        ConfigError: If an element of the policy is unknown, the probability is out of range, or C is not 1, 3 or 4.

    Source: arXiv 2006.10738, section 3.2. Its strengths apply to images in [-1, 1] and are scaled to `image_range`.
    Pixels that are shifted in or cut out have the middle value of the range, which is zero in the paper.
    """
    _check(images, probability, policy, known=("color", "translation", "cutout"))
    draws = TransformDraws("diffaugment", rng, probability)
    if "color" in policy:
        images = _on_colors(color.jitter, images, draws, image_range)
    if "translation" in policy:
        images = geometry.translate(images, draws, image_range)
    if "cutout" in policy:
        images = geometry.cut_out(images, draws, image_range)
    return images


@register_augmentation
def ada(
    images: tf.Tensor,
    rng: ImageRng,
    probability: float | tf.Tensor = 1.0,
    *,
    image_range: tuple[float, float] = (-1.0, 1.0),
    policy: Sequence[str] = ("blit", "geom", "color"),
) -> tf.Tensor:
    """Flips, rotates, shifts, scales and recolors images.

    Args:
        images: float32 [B, H, W, C] in `image_range`, with C of 1, 3 or 4 (with alpha, which has no colors).
        rng: Source of random numbers.
        probability: Probability in [0, 1], a float or a scalar tensor, that each transformation is applied to an image.
        image_range: Values (low, high) of black and white.
        policy: Transformations to use: `blit` (flip, quarter turns, shift by whole pixels), `geom` (scale, rotation,
            stretch, rotation, shift by fractions of a pixel), `color` (brightness, contrast and luma flip; hue and
            saturation if C is not 1). An applied flip changes one in two images, and applied turns three in four.

    Returns:
        float32 [B, H, W, C]. `color` can produce values outside `image_range`.

    Raises:
        ConfigError: If an element of the policy is unknown, the probability is out of range, or C is not 1, 3 or 4.

    Source: arXiv 2006.06676, appendix B. Its strengths apply to images in [-1, 1] and are scaled to `image_range`.
    Deviations: images are sampled once, bilinearly, without the paper's wavelet filters; and images are continued by
    reflection without end, while those of the paper are zero far outside.
    """
    _check(images, probability, policy, known=("blit", "geom", "color"))
    draws = TransformDraws("ada", rng, probability)
    if "blit" in policy or "geom" in policy:
        images = geometry.warp(images, draws, blit="blit" in policy, geom="geom" in policy)
    if "color" in policy:
        images = _on_colors(color.recolor, images, draws, image_range)
    return images


def adapted_probability(
    probability: float | tf.Tensor, mean_sign: float | tf.Tensor, num_images: int | tf.Tensor
) -> tf.Tensor:
    """Returns the probability of ADA's transformations, adapted to the overfitting of the discriminator.

    Args:
        probability: Current probability, in [0, 1].
        mean_sign: Mean of sign(D(x)) in [-1, 1] over the real images since the last change, with D(x) as logits. The
            discriminator overfits if it is above 0.6.
        num_images: Number of real images since the last change. The paper changes the probability every 4 batches.

    Returns:
        float32 scalar in [0, 1]. It takes at least 500,000 images to change from 0 to 1.

    Source: arXiv 2006.06676, section 3 (the heuristic r_t of equation 1).
    """
    direction = tf.sign(tf.cast(mean_sign, tf.float32) - _TARGET_SIGN)
    change = direction * tf.cast(num_images, tf.float32) / _ADA_IMAGES
    return tf.clip_by_value(tf.cast(probability, tf.float32) + change, 0.0, 1.0)


def _on_colors(
    change: Callable[[tf.Tensor, TransformDraws, tuple[float, float]], tf.Tensor],
    images: tf.Tensor,
    draws: TransformDraws,
    image_range: tuple[float, float],
) -> tf.Tensor:
    """Changes the colors of images, and leaves a fourth channel (alpha) as it is."""
    if images.shape[-1] != 4:
        return change(images, draws, image_range)
    return tf.concat([change(images[..., :3], draws, image_range), images[..., 3:]], axis=-1)


def _check(images: tf.Tensor, probability: float | tf.Tensor, policy: Sequence[str], known: Sequence[str]) -> None:
    for name in policy:
        check_known("transformation in an augmentation policy", name, known)
    if isinstance(probability, (int, float)) and not 0.0 <= probability <= 1.0:
        raise ConfigError(f"augmentation probability={probability} is out of range; give a number in [0, 1].")
    if images.shape[-1] not in (1, 3, 4):
        raise ConfigError(
            f"images of {images.shape[-1]} channels cannot be augmented; give 1, 3 or 4 channels, or no augmentation."
        )
