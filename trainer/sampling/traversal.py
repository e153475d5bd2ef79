"""Traversals of the continuous codes of an InfoGAN."""

from collections.abc import Iterator

import numpy as np

from trainer.errors import ConfigError
from trainer.models import GAN, InfoGAN
from trainer.sampling.samples import Samples, image_blocks

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
    inputs = [gan.traversal(latents[np.newaxis], shown, COLUMNS) for latents in samples.latents(gan)]
    latents, labels = (np.concatenate(parts) for parts in zip(*inputs, strict=True))
    return image_blocks(gan, latents, labels), len(latents)
