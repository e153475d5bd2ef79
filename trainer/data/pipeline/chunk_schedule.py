"""Schedule of chunks: which shards of a dataset are in memory at each visit."""

import bisect
import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np

from trainer.data.dataset_spec import DatasetSpec, Shard
from trainer.errors import ConfigError

_MIB = 2**20


@dataclass(frozen=True)
class ChunkSchedule:
    """A dataset divided into chunks of whole shards, in another seeded order in each epoch.

    The schedule depends on the shards, the number of chunks and the seed only, never on the machine.

    Attributes:
        shards: Shards of the dataset.
        num_chunks: Number of chunks in an epoch.
        seed: Seed of the run.
    """

    shards: tuple[Shard, ...]
    num_chunks: int
    seed: int

    def shards_of(self, visit: int) -> list[Shard]:
        """Returns the shards of a chunk.

        Args:
            visit: Number of the visit over all epochs, from 0.
        """
        epoch, chunk = divmod(visit, self.num_chunks)
        keys = np.random.PCG64(np.random.SeedSequence([self.seed, epoch])).random_raw(len(self.shards))
        order = np.argsort(keys, kind="stable")
        return [self.shards[index] for index in np.array_split(order, self.num_chunks)[chunk]]

    @functools.cached_property
    def max_chunk_size(self) -> int:
        """Number of images of the largest possible chunk."""
        return _sizes_of_largest(self.shards)[math.ceil(len(self.shards) / self.num_chunks)]


def choose_num_chunks(spec: DatasetSpec, memory_mib: float, padding: int = 0) -> int:
    """Returns the smallest number of chunks of which two fit into memory; 1 if the whole dataset fits.

    Args:
        spec: Description of the dataset.
        memory_mib: Memory for decoded images in MiB.
        padding: Pixels added to every side of every image.

    Raises:
        ConfigError: If two shards do not fit into memory.
    """
    height, width, channels = spec.array_shape
    image_bytes = (height + 2 * padding) * (width + 2 * padding) * channels
    budget = memory_mib * _MIB
    if spec.num_examples * image_bytes <= budget:
        return 1
    sizes = _sizes_of_largest(spec.shards)
    max_shards = bisect.bisect_right(sizes, budget, key=lambda size: 2 * size * image_bytes) - 1  # in a chunk
    if max_shards:
        return math.ceil(len(spec.shards) / max_shards)
    largest_mib = max(shard.num_examples for shard in spec.shards) * image_bytes / _MIB
    raise ConfigError(
        f"data_memory_mib={memory_mib:g} is less than two shards of {spec.name} need, the largest of which takes "
        f"{largest_mib:,.1f} MiB; set it to at least {math.ceil(2 * largest_mib)}, or prepare the dataset with a "
        "smaller --shard_mib."
    )


def _sizes_of_largest(shards: tuple[Shard, ...]) -> list[int]:
    """Returns the number of images of the k largest shards together, for each k from 0 to the number of shards."""
    sizes = sorted((shard.num_examples for shard in shards), reverse=True)
    return list(itertools.accumulate(sizes, initial=0))
