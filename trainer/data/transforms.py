"""Transformed datasets: `inverted:`, `tinted:` and `gray_to_color:SOURCE` change the images of a set while loading.

Shapes: `N` images, `H W C` height, width and channels.
"""

import colorsys
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from trainer.config.dataset_names import DatasetPrefix
from trainer.errors import ConfigError, count_of

_TINT_SEED = 170310593
_BLOCK_BYTES = 2**18


def invert(images: np.ndarray) -> np.ndarray:
    """Returns the negatives of images, 255 minus each value: uint8 [N, H, W, C]."""
    return 255 - images


def tint(images: np.ndarray) -> np.ndarray:
    """Colors gray images, each in one bright color: uint8 [N, H, W, 1] to uint8 [N, H, W, 3].

    Hues come from the raw stream of PCG64, which is the same on every machine. The hue of an image depends on its
    position among `images`: with `--classes`, images have other hues than in the whole dataset.
    """
    hues = (np.random.PCG64(_TINT_SEED).random_raw(len(images)) >> np.uint64(11)) / 2.0**53
    tinted = np.empty((*images.shape[:3], 3), np.uint8)
    for block in _blocks(images):
        colors = np.array([colorsys.hsv_to_rgb(hue, 0.9, 1.0) for hue in hues[block]], np.float32)
        tinted[block] = np.rint(images[block] * colors[:, np.newaxis, np.newaxis, :])
    return tinted


def add_gray_inputs(images: np.ndarray) -> np.ndarray:
    """Returns pairs of gray versions of color images and the images: uint8 [N, H, W, 3] to uint8 [N, H, W, 1 + 3]."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601-2, as Pillow converts
    pairs = np.empty((*images.shape[:3], 4), np.uint8)
    for block in _blocks(images):
        pairs[block, :, :, 0] = np.rint(np.dot(images[block].astype(np.float32), weights))
        pairs[block, :, :, 1:] = images[block]
    return pairs


def _blocks(images: np.ndarray) -> Iterator[slice]:
    """Returns slices of images, so that intermediate results take little memory and fit into the processor's cache."""
    size = max(1, _BLOCK_BYTES // math.prod(images.shape[1:]))
    return (slice(start, start + size) for start in range(0, len(images), size))


class Transform(NamedTuple):
    """A transform of images, and the shapes that it takes and returns."""

    function: Callable[[np.ndarray], np.ndarray]
    source_channels: int | None = None
    """Channels of the images that it takes. None: any number, and pairs."""
    output_channels: int | None = None
    """Channels of the images that it returns. None: those of the source."""
    input_channels: int = 0
    """Channels of the inputs that it adds to images; 0 if it adds none."""


TRANSFORMS: dict[DatasetPrefix, Transform] = {
    DatasetPrefix.INVERTED: Transform(invert),
    DatasetPrefix.TINTED: Transform(tint, source_channels=1, output_channels=3),
    DatasetPrefix.GRAY_TO_COLOR: Transform(add_gray_inputs, source_channels=3, input_channels=1),
}
"""Transforms by the prefix of the dataset's name."""


def transformed_shape(prefix: DatasetPrefix, source_shape: tuple[int, int, int], source: str) -> tuple[int, int, int]:
    """Returns the image shape of a transformed dataset.

    Args:
        prefix: Key of `TRANSFORMS`.
        source_shape: Image shape of the source: height, width and channels.
        source: Name of the source, for the message.

    Raises:
        ConfigError: If the transform does not take images of this number of channels.
    """
    height, width, channels = source_shape
    transform = TRANSFORMS[prefix]
    if transform.source_channels not in (None, channels):
        raise ConfigError(
            f"dataset={prefix}:{source} needs images of {count_of(transform.source_channels, 'channel')}, but {source} "
            f"has {count_of(channels, 'channel')}; choose another source."
        )
    return height, width, transform.output_channels or channels
