"""Style mixing: images with the coarse styles of some samples and the fine styles of others."""

import itertools
from collections.abc import Iterator

import numpy as np

from trainer.errors import ConfigError, quote
from trainer.models import GAN, StyleGAN2
from trainer.models.sampler import Sampler
from trainer.networks.stylegan2 import SYNTHESIS
from trainer.sampling.samples import Samples, check_num_samples, images_of, padded_blocks, parse_seeds


def parse_seed_pair(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the seeds of rows and columns in a text such as `0-3:10-15`.

    Raises:
        ConfigError: If the text is no such pair, a seed is too large, or there are too many of them.
    """
    parts = text.split(":")
    if len(parts) != 2:
        raise ConfigError(
            f"mix_styles={quote(text)} needs the seeds of rows and of columns with one colon between them; write "
            "SEEDS:SEEDS, such as 0-3:10-15."
        )
    rows, columns = (parse_seeds(part, "mix_styles") for part in parts)
    check_num_samples("mix_styles", text, (len(rows) + 1) * (len(columns) + 1))
    return rows, columns


def mixed_images(gan: GAN, rows: Samples, columns: Samples, num_coarse: int | None) -> Iterator[np.ndarray]:
    """Returns a grid of mixed images, with the images of the columns above and those of the rows at the left.

    Args:
        gan: Model.
        rows: Samples whose fine styles the images of a row have.
        columns: Samples whose coarse styles the images of a column have.
        num_coarse: Number of layers with coarse styles; None for half of them.

    Returns:
        Blocks of the (rows + 1) * (columns + 1) images uint8 [B, H, W, C], row by row. The first block is a black
        image, which takes no computation.

    Raises:
        ConfigError: If the model has no styles, or not as many.
    """
    if not isinstance(gan, StyleGAN2):
        raise ConfigError(
            f"--mix_styles needs a StyleGAN2, and the run is a {type(gan).__name__}, which has no styles; omit it."
        )
    return _grid_blocks(gan, rows, columns, gan.style_mixer(num_coarse))


def _grid_blocks(gan: StyleGAN2, rows: Samples, columns: Samples, mix: Sampler) -> Iterator[np.ndarray]:
    yield np.zeros((1, *gan.ema_generator.get_layer(SYNTHESIS).output_shape[1:]), np.uint8)
    yield from images_of(gan, columns)
    mixed = _mixed_blocks(gan, rows, columns, mix)
    first_column, others = (itertools.chain.from_iterable(blocks) for blocks in (images_of(gan, rows), mixed))
    for image in first_column:
        yield np.stack([image, *itertools.islice(others, len(columns.indices))])


def _mixed_blocks(gan: StyleGAN2, rows: Samples, columns: Samples, mix: Sampler) -> Iterator[np.ndarray]:
    """Yields the mixed images, uint8 [B, H, W, C], row by row."""
    coarse, fine = columns.latents(gan), rows.latents(gan)
    for number, (positions, count) in enumerate(padded_blocks(len(fine) * len(coarse))):
        of_rows, of_columns = np.divmod(positions, len(coarse))
        labels = (
            None if samples.labels is None else samples.labels[chosen]
            for samples, chosen in ((columns, of_columns), (rows, of_rows))
        )
        latents = coarse[of_columns], fine[of_rows]
        yield mix(gan.image_range, *latents, *labels, seed=gan.seed, first_block=number)[:count]
