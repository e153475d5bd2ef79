"""Single samples of a trained GAN, each a function of its index and the seed of all samples.

The sample with index `i` is image `i` of `GAN.sample`, whatever other samples are generated. `evaluate` measures the
samples with the indices 0 to `num_metric_samples` - 1. The flag `--seeds` selects samples by their indices.

Shapes: `N` samples, `H W C` an image, `Z` latent size.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.errors import ConfigError, count_of, quote
from trainer.metrics.extraction import BLOCK_SIZE
from trainer.models import GAN, ImageTranslator
from trainer.models.inference import MAX_SAMPLE_INDEX

MAX_SAMPLES = 10**7
"""Largest number of samples of one command."""
_RANGE = re.compile(r"\s*([0-9]{1,18})\s*(?:-\s*([0-9]{1,18})\s*)?")


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples to generate.

    Attributes:
        indices: Indices of the samples, different from each other: int64 [N].
        labels: Class of each sample, int32 [N], or conditions, float32 [N, K]; None if the model has no classes.
        seed: Seed of the latents of all samples; None for the seed of the run.
        truncation: Factor in [0, 1] of `GAN.truncate_latents`; None for no truncation.
    """

    indices: np.ndarray
    labels: np.ndarray | None
    seed: int | None = None
    truncation: float | None = None

    def latents(self, gan: GAN) -> np.ndarray:
        """Returns the latents float32 [N, Z]."""
        latents = gan.latents_of(self.indices, seed=self.seed)
        return latents if self.truncation is None else gan.truncate_latents(latents, self.truncation)

    def rows(self, rows: np.ndarray) -> "Samples":
        """Returns some of the samples, by their positions."""
        labels = None if self.labels is None else self.labels[rows]
        return Samples(self.indices[rows], labels, self.seed, self.truncation)


def parse_seeds(text: str, setting: str = "seeds") -> np.ndarray:
    """Returns the seeds in a list of numbers and ranges, such as `0-99,7`. A seed that occurs twice counts once.

    Args:
        text: The list.
        setting: Name of the setting, for messages.

    Raises:
        ConfigError: If the text is no such list, a seed is too large, or there are too many of them.
    """
    parts = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ConfigError(
                f"{setting}={quote(text)} has {quote(part)}, which is neither a number nor a range; write a list such "
                "as 0-99,120."
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise ConfigError(
                f"{setting}={quote(text)} has the range {quote(part)}, which ends before it begins; swap it."
            )
        if last > MAX_SAMPLE_INDEX:
            raise ConfigError(
                f"{setting}={quote(text)} has {last}, but seeds are at most {MAX_SAMPLE_INDEX}; choose smaller ones."
            )
        parts.append(range(first, last + 1))
    check_num_samples(setting, text, sum(map(len, parts)))
    seeds = np.concatenate([np.arange(part.start, part.stop) for part in parts])
    _, first_positions = np.unique(seeds, return_index=True)
    return seeds[np.sort(first_positions)]


def check_num_samples(setting: str, value: object, count: int) -> None:
    """Rejects more samples than a command generates.

    Raises:
        ConfigError: If there are too many.
    """
    if count > MAX_SAMPLES:
        raise ConfigError(
            f"{setting}={quote(value)} asks for {count_of(count, 'image')}, more than {MAX_SAMPLES:,} in one command; "
            "use several commands, with a range of --seeds each."
        )


def labels_of(gan: GAN, indices: np.ndarray, labels: Sequence[object] | None) -> np.ndarray | None:
    """Returns the class of each sample, int32 [N], or None if the model has no classes.

    Args:
        gan: Model.
        indices: Indices of the samples.
        labels: Classes, or vectors of conditions, that the samples get in turn. None: those of `GAN.sample`.

    Raises:
        DataError: If the model has no classes, or not these.
    """
    if labels is None:
        return gan.default_labels(indices).numpy() if gan.num_classes else None
    if not gan.num_classes:
        return gan.labels_to_sample(len(indices), labels[0] if len(labels) == 1 else list(labels))
    values = np.asarray(labels)
    return gan.labels_to_sample(len(indices), values[np.arange(len(indices)) % len(values)])


def images_of(gan: GAN, samples: Samples) -> Iterator[np.ndarray]:
    """Yields the images of samples, uint8 [B, H, W, C], up to 50 at a time.

    An image translator has no latents: the image with index `i` is the translation of its grid image `i`.

    Raises:
        DataError: If an image translator has no image of an index.
    """
    if isinstance(gan, ImageTranslator):
        images, _ = gan.sample(int(samples.indices.max()) + 1, seed=samples.seed)
        yield images[samples.indices]
        return
    for rows, count in padded_blocks(len(samples.indices)):
        block = samples.rows(rows)
        latents = block.latents(gan)
        yield gan.images_from(latents, block.labels, indices=block.indices, seed=samples.seed)[:count]


def image_blocks(
    gan: GAN,
    latents: np.ndarray,
    labels: np.ndarray | None,
    *,
    indices: np.ndarray | None = None,
    seed: int | None = None,
) -> Iterator[np.ndarray]:
    """Yields the images of latents, uint8 [B, H, W, C], block by block. Arguments as for `GAN.images_from`."""
    for rows, count in padded_blocks(len(latents)):
        block_labels, block_indices = (None if array is None else array[rows] for array in (labels, indices))
        yield gan.images_from(latents[rows], block_labels, indices=block_indices, seed=seed)[:count]


def padded_blocks(num_rows: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields the rows of each block, int64 [B], and the number of them that count.

    The last row fills up the last block, so that an image has the same bits wherever it is in a list of at least one
    block.
    """
    size = min(num_rows, BLOCK_SIZE)
    for start in range(0, num_rows, BLOCK_SIZE):
        yield np.minimum(np.arange(start, start + size), num_rows - 1), min(size, num_rows - start)
