"""Single samples of a trained GAN, each a function of its seed.

The sample with seed `s` is image `s` of `GAN.sample`, whatever other samples are generated. `evaluate` measures the
samples with the seeds 0 to `num_metric_samples` - 1.

Legend: `N` samples, `H W C` an image, `Z` latent size.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.errors import ConfigError, count_of, quote
from trainer.metrics.extraction import BLOCK_SIZE
from trainer.models import GAN, CycleGAN

MAX_SEED = 10**8 - 1
"""Largest seed, which has as many digits as the names of files."""
MAX_SAMPLES = 10**7
"""Largest number of samples of one command."""
_RANGE = re.compile(r"\s*([0-9]{1,18})\s*(?:-\s*([0-9]{1,18})\s*)?")


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples to generate.

    Attributes:
        seeds: Seeds of the samples, different from each other: int64 [N].
        labels: Class of each sample, int32 [N]; None if the model has no classes.
        base_seed: Seed of the latents of all samples; None for the seed of the run.
        truncation: Factor in [0, 1] of `GAN.truncate_latents`; None for no truncation.
    """

    seeds: np.ndarray
    labels: np.ndarray | None
    base_seed: int | None = None
    truncation: float | None = None

    def latents(self, gan: GAN) -> np.ndarray:
        """Returns the latents float32 [N, Z]."""
        latents = gan.latents_of(self.seeds, seed=self.base_seed)
        return latents if self.truncation is None else gan.truncate_latents(latents, self.truncation)

    def rows(self, rows: slice) -> "Samples":
        """Returns some of the samples."""
        labels = None if self.labels is None else self.labels[rows]
        return Samples(self.seeds[rows], labels, self.base_seed, self.truncation)


def parse_seeds(text: str) -> np.ndarray:
    """Returns the seeds in a list of numbers and ranges, such as `0-99,7`. A seed that occurs twice counts once.

    Raises:
        ConfigError: If the text is no such list, a seed is too large, or there are too many of them.
    """
    parts = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ConfigError(
                f"seeds={quote(text)} has {quote(part)}, which is neither a number nor a range; write a list such as "
                "0-99,120."
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise ConfigError(f"seeds={quote(text)} has the range {quote(part)}, which ends before it begins; swap it.")
        if last > MAX_SEED:
            raise ConfigError(f"seeds={quote(text)} has {last}, but seeds are at most {MAX_SEED}; choose smaller ones.")
        parts.append(range(first, last + 1))
    check_num_samples("seeds", text, sum(map(len, parts)))
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


def labels_of(gan: GAN, seeds: np.ndarray, labels: Sequence[object] | None) -> np.ndarray | None:
    """Returns the class of each sample, int32 [N], or None if the model has no classes.

    Args:
        gan: Model.
        seeds: Seeds of the samples.
        labels: Classes that the samples get in turn. None: seed `s` has the `s`-th class, counted around.

    Raises:
        DataError: If the model has no classes, or not these.
    """
    if labels is None:
        return None if not gan.num_classes else gan.classes[seeds % len(gan.classes)].astype(np.int32)
    if not gan.num_classes:
        return gan.labels_to_sample(len(seeds), labels[0] if len(labels) == 1 else list(labels))
    return gan.labels_to_sample(len(seeds), np.resize(np.asarray(labels, np.int32), len(seeds)))


def images_of(gan: GAN, samples: Samples) -> Iterator[np.ndarray]:
    """Yields the images of samples, uint8 [B, H, W, C], up to 50 at a time.

    CycleGAN has no latents: the image with seed `s` is the translation of training image `s` of domain A.

    Raises:
        DataError: If CycleGAN has no image of a seed.
    """
    if isinstance(gan, CycleGAN):
        images, _ = gan.sample(int(samples.seeds.max()) + 1)
        yield images[samples.seeds]
        return
    yield from image_blocks(gan, samples.latents(gan), samples.labels, numbers=samples.seeds, seed=samples.base_seed)


def image_blocks(
    gan: GAN,
    latents: np.ndarray,
    labels: np.ndarray | None,
    *,
    numbers: np.ndarray | None = None,
    seed: int | None = None,
) -> Iterator[np.ndarray]:
    """Yields the images of latents, uint8 [B, H, W, C], block by block. Arguments as for `GAN.images_from`.

    The last block is filled up, so that an image has the same bits wherever it is in a list of at least one block.
    """
    for start in range(0, len(latents), BLOCK_SIZE):
        stop = min(start + BLOCK_SIZE, len(latents))
        end = stop if len(latents) < BLOCK_SIZE else start + BLOCK_SIZE
        index = np.minimum(np.arange(start, end), stop - 1)
        block_labels, block_numbers = (None if array is None else array[index] for array in (labels, numbers))
        yield gan.images_from(latents[index], block_labels, numbers=block_numbers, seed=seed)[: stop - start]
