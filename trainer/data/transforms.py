"""Sets that are made from another one as it is loaded: `inverted:SOURCE` and `tinted:SOURCE`.

Shapes: `N` images, `H W C` height, width and channels.
"""

import colorsys
from collections.abc import Callable

import numpy as np

from trainer.errors import ConfigError

_TINT_SEED = 170310593


def inverted(images: np.ndarray) -> np.ndarray:
    """Negatives: 255 less every value. uint8 [N, H, W, C] to uint8 [N, H, W, C]."""
    return 255 - images


def tinted(images: np.ndarray) -> np.ndarray:
    """Gray images in bright colors, each in one of its own: uint8 [N, H, W, 1] to uint8 [N, H, W, 3].

    Hues come from the raw stream of PCG64, the same on every machine. They go by the position of an image among those
    that are given: where `--classes` leaves some out, the others have hues that they have not in the whole set.
    """
    hues = (np.random.PCG64(_TINT_SEED).random_raw(len(images)) >> np.uint64(11)) / 2.0**53
    colors = np.array([colorsys.hsv_to_rgb(hue, 0.9, 1.0) for hue in hues], np.float32)
    return np.rint(images * colors[:, np.newaxis, np.newaxis, :]).astype(np.uint8)


DERIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"inverted": inverted, "tinted": tinted}
"""By what stands before the colon."""


def shape_of(derivation: str, source_shape: tuple[int, int, int], source: str) -> tuple[int, int, int]:
    """The shape of a derived set's images.

    Raises:
        ConfigError: Color images would have to be tinted.
    """
    height, width, channels = source_shape
    if derivation != "tinted":
        return source_shape
    if channels != 1:
        raise ConfigError(
            f"dataset=tinted:{source} needs gray images, {source} has {channels} channels; choose another source."
        )
    return height, width, 3
