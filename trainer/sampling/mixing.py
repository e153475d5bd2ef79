"""Style mixing: images with the coarse styles of some samples and the fine styles of others."""

import numpy as np

from trainer.errors import ConfigError, quote
from trainer.models import GAN, StyleGAN2
from trainer.sampling.samples import Samples, check_num_samples, images_of, parse_seeds


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


def mixed_images(gan: GAN, rows: Samples, columns: Samples, num_coarse: int | None) -> np.ndarray:
    """Returns a grid of mixed images, with the images of the columns above and those of the rows at the left.

    Args:
        gan: Model.
        rows: Samples whose fine styles the images of a row have.
        columns: Samples whose coarse styles the images of a column have.
        num_coarse: Number of layers with coarse styles; None for half of them.

    Returns:
        Images uint8 [(rows + 1) * (columns + 1), H, W, C], row by row, beginning with a black one.

    Raises:
        ConfigError: If the model has no styles, or not as many.
    """
    if not isinstance(gan, StyleGAN2):
        raise ConfigError(
            f"--mix_styles needs a StyleGAN2, and the run is a {type(gan).__name__}, which has no styles; omit it."
        )
    num_rows, num_columns = len(rows.indices), len(columns.indices)
    of_rows, of_columns = np.repeat(np.arange(num_rows), num_columns), np.tile(np.arange(num_columns), num_rows)
    inputs = [
        (samples.latents(gan)[index], None if samples.labels is None else samples.labels[index])
        for samples, index in ((columns, of_columns), (rows, of_rows))
    ]
    (coarse, coarse_labels), (fine, fine_labels) = inputs
    mixed = gan.mix_styles((coarse, fine), (coarse_labels, fine_labels), num_coarse)
    first_row, first_column = (np.concatenate([*images_of(gan, samples)]) for samples in (columns, rows))
    grid = np.zeros((num_rows + 1, num_columns + 1, *mixed.shape[1:]), np.uint8)
    grid[0, 1:], grid[1:, 0], grid[1:, 1:] = (
        first_row,
        first_column,
        mixed.reshape(num_rows, num_columns, *mixed.shape[1:]),
    )
    return grid.reshape(-1, *mixed.shape[1:])
