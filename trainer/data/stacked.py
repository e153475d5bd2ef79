"""Stacked datasets: three random digits of a source become the red, green and blue channels of one image.

Shapes: `M` images of the source, `N` stacked images, `H W` height and width.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from trainer.config.dataset_names import DatasetPrefix

PREFIX = f"{DatasetPrefix.STACKED}:"
"""Prefix of the source in the name of a stacked dataset."""
NUM_IMAGES = 128_000
NUM_DIGITS = 10
CLASS_NAMES = tuple(f"{label:03d}" for label in range(NUM_DIGITS**3))
"""Red, green and blue digit of each label."""
_DRAW_SEED = 171204086
_BLOCK_SIZE = 4096
"""Number of images that are gathered at a time, so that their pixels fit into the processor's cache."""


@dataclasses.dataclass(frozen=True, eq=False)
class Draw:
    """Random digits of all images of a stacked dataset."""

    positions: np.ndarray
    """Positions among the source's images sorted by class, int64 [N, 3] in [0, M)."""
    labels: np.ndarray
    """100 red + 10 green + blue, int32 [N] in [0, 1000)."""


def draw(class_counts: Sequence[int]) -> Draw:
    """Draws the digits of all `NUM_IMAGES` images, uniformly and with replacement, without reading pixels.

    The positions refer to the source sorted by class, so the classes depend on the source's class counts only. They
    come from the raw stream of PCG64, which NumPy guarantees not to change: the same counts give the same digits on
    every machine. (Scaling 32 random bits to [0, M) changes the probability of an image by less than M / 2³².)

    Source: arXiv 1712.04086 (PacGAN): 128,000 images of 1,000 modes.

    Args:
        class_counts: Number of images of each of the source's 10 classes. Their sum M is in [1, 2³²).
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
        source_labels: Integers [M] in [0, 10).
        classes: Stacked labels to make, in [0, 1000). None: all labels.

    Returns:
        images: uint8 [N, H, W, 3] in [0, 255], N = `NUM_IMAGES` if `classes` is None.
        labels: int32 [N] in [0, 1000).
    """
    drawn = draw(np.bincount(source_labels, minlength=NUM_DIGITS).tolist())
    is_selected = slice(None) if classes is None else np.isin(drawn.labels, classes)
    labels = drawn.labels[is_selected]
    digits = np.argsort(source_labels, kind="stable")[drawn.positions[is_selected]]
    images = np.empty((len(labels), *source_images.shape[1:3], 3), np.uint8)
    for start in range(0, len(labels), _BLOCK_SIZE):
        block = slice(start, start + _BLOCK_SIZE)
        for channel in range(3):
            images[block, :, :, channel] = source_images[digits[block, channel], :, :, 0]
    return images, labels
