"""Traversals of the continuous codes of an InfoGAN."""

from collections.abc import Iterator

import numpy as np

from trainer.errors import ConfigError
from trainer.models import GAN, InfoGAN
from trainer.sampling.samples import Samples, padded_blocks

COLUMNS = 10
"""Number of images in a row."""


def traversal_images(gan: GAN, samples: Samples, categories: list[int] | None) -> tuple[Iterator[np.ndarray], int]:
    """Returns the images of traversals, in rows of `COLUMNS` images along which one code changes from -2 to 2.

    Args:
        gan: Model.
        samples: Samples whose latents are used, without their codes.
        categories: Categories to show; None for all.

    Returns:
        Blocks of images uint8 [B, H, W, C], and the number of all images. For each sample and each continuous code,
        there is one row per category.

    Raises:
        ConfigError: If the model is no InfoGAN with continuous codes.
    """
    if not isinstance(gan, InfoGAN) or not gan.num_continuous:
        kind = "InfoGAN without continuous codes" if isinstance(gan, InfoGAN) else type(gan).__name__
        raise ConfigError(
            f"--traversal changes the continuous codes of an InfoGAN, but the run is a {kind}; omit it, or use --walk."
        )
    shown = np.arange(gan.num_classes) if categories is None else np.array(categories)
    num_images = len(samples.indices) * gan.num_continuous * len(shown) * COLUMNS
    return _blocks(gan, samples, shown, num_images), num_images


def _blocks(gan: InfoGAN, samples: Samples, categories: np.ndarray, num_images: int) -> Iterator[np.ndarray]:
    """Yields the images uint8 [B, H, W, C]. Only the latents of one block are computed at a time."""
    num_per_sample = num_images // len(samples.indices)
    for rows, count in padded_blocks(num_images):
        first, last = rows[0] // num_per_sample, rows[-1] // num_per_sample
        chosen = samples.rows(np.arange(first, last + 1)).latents(gan)
        inputs = [gan.traversal(latents[np.newaxis], categories, COLUMNS) for latents in chosen]
        latents, labels = (np.concatenate(parts) for parts in zip(*inputs, strict=True))
        positions = rows - first * num_per_sample
        yield gan.images_from(latents[positions], labels[positions])[:count]
