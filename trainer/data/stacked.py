"""Stacked sets: three digits of a source, drawn at random, as the red, green and blue channel of one image.

Shapes: `M` images of the source, `N` stacked images, `H W` height and width.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

PREFIX = "stacked:"
"""What stands before the source in the name of a stacked set."""
NUM_IMAGES = 128_000
NUM_DIGITS = 10
CLASS_NAMES = tuple(f"{label:03d}" for label in range(NUM_DIGITS**3))
"""Red, green and blue digit of each label."""
_DRAW_SEED = 171204086
_BLOCK = 4096
"""Images that are gathered at a time, so that the pixels between stay in the processor's cache."""


@dataclasses.dataclass(frozen=True, eq=False)
class Draw:
    """Which digits every image of a stacked set is made of."""

    positions: np.ndarray
    """int64 [N, 3] in [0, M): places among the source's images when those stand sorted by class."""
    labels: np.ndarray
    """int32 [N] in [0, 1000): 100 red + 10 green + blue."""


def draw(class_counts: Sequence[int]) -> Draw:
    """Draws the digits of all `NUM_IMAGES` images, uniformly and with replacement; no pixel is needed for it.

    The places are drawn in the source sorted by class, so that the classes follow from the source's counts alone. They
    come from the raw stream of PCG64, which numpy promises never to change: the same counts give the same draw on every
    machine. (Scaling 32 random bits to [0, M) favors no image by more than M / 2³².)

    Source: arXiv 1712.04086 (PacGAN): 128,000 images of 1,000 modes.

    Args:
        class_counts: images of each of the source's 10 classes; their sum M in [1, 2³²).
    """
    bits = np.random.PCG64(_DRAW_SEED).random_raw(NUM_IMAGES * 3) >> np.uint64(32)
    positions = ((bits * np.uint64(sum(class_counts))) >> np.uint64(32)).astype(np.int64).reshape(NUM_IMAGES, 3)
    digits = np.searchsorted(np.cumsum(class_counts), positions, side="right")
    return Draw(positions, (digits @ np.array([NUM_DIGITS**2, NUM_DIGITS, 1])).astype(np.int32))


def stack(
    source_images: np.ndarray, source_labels: np.ndarray, classes: tuple[int, ...] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Makes the stacked images.

    Args:
        source_images: uint8 [M, H, W, 1] in [0, 255].
        source_labels: integers [M] in [0, 10).
        classes: stacked labels to make, in [0, 1000); `None` makes all.

    Returns:
        images: uint8 [N, H, W, 3] in [0, 255], N = `NUM_IMAGES` when all classes are made.
        labels: int32 [N] in [0, 1000).
    """
    drawn = draw(np.bincount(source_labels, minlength=NUM_DIGITS).tolist())
    kept = slice(None) if classes is None else np.isin(drawn.labels, classes)
    labels = drawn.labels[kept]
    digits = np.argsort(source_labels, kind="stable")[drawn.positions[kept]]
    images = np.empty((len(labels), *source_images.shape[1:3], 3), np.uint8)
    for start in range(0, len(labels), _BLOCK):
        block = slice(start, start + _BLOCK)
        for channel in range(3):
            images[block, :, :, channel] = source_images[digits[block, channel], :, :, 0]
    return images, labels
