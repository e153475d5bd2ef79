"""Transformed data sets: `inverted:SOURCE` and `tinted:SOURCE` change the images of another set while loading.

Shapes: `N` images, `H W C` height, width and channels.
"""

import colorsys
from collections.abc import Callable

import numpy as np

from trainer.errors import ConfigError, count_of

_TINT_SEED = 170310593


def invert(images: np.ndarray) -> np.ndarray:
    """Returns the negatives of images, 255 minus each value: uint8 [N, H, W, C]."""
    return 255 - images


def tint(images: np.ndarray) -> np.ndarray:
    """Colors gray images, each in one bright color: uint8 [N, H, W, 1] to uint8 [N, H, W, 3].

    Hues come from the raw stream of PCG64, which is the same on every machine. The hue of an image depends on its
    position among `images`: with `--classes`, images have other hues than in the whole data set.
    """
    hues = (np.random.PCG64(_TINT_SEED).random_raw(len(images)) >> np.uint64(11)) / 2.0**53
    colors = np.array([colorsys.hsv_to_rgb(hue, 0.9, 1.0) for hue in hues], np.float32)
    return np.rint(images * colors[:, np.newaxis, np.newaxis, :]).astype(np.uint8)


TRANSFORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"inverted": invert, "tinted": tint}
"""Transforms by the prefix of the data set's name."""


def split_transform(name: str) -> tuple[str | None, str]:
    """Splits the name of a transformed data set: `inverted:digits` into `inverted` and `digits`.

    Returns:
        transform: Key of `TRANSFORMS`; None if the name has no such prefix.
        source: Name of the source, or the name itself.
    """
    transform, colon, source = name.partition(":")
    return (transform, source) if colon and transform in TRANSFORMS else (None, name)


def transformed_shape(transform: str, source_shape: tuple[int, int, int], source: str) -> tuple[int, int, int]:
    """Returns the image shape of a transformed data set.

    Args:
        transform: Key of `TRANSFORMS`.
        source_shape: Image shape of the source: height, width and channels.
        source: Name of the source, for the message.

    Raises:
        ConfigError: If `tinted` is applied to color images.
    """
    height, width, channels = source_shape
    if transform != "tinted":
        return source_shape
    if channels != 1:
        raise ConfigError(
            f"dataset=tinted:{source} needs gray images, but {source} has {count_of(channels, 'channel')}; choose "
            "another source."
        )
    return height, width, 3
