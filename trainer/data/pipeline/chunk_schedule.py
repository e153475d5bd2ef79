"""Which shards of a set are in memory when: the cut into windows, and their order."""

import functools
import math
from dataclasses import dataclass

import numpy as np

from trainer.data.dataset_spec import DatasetSpec, Shard
from trainer.errors import ConfigError

_MIB = 2**20


@dataclass(frozen=True)
class ChunkSchedule:
    """A set cut into windows of whole shards, each epoch in another seeded order.

    It follows from the manifest, the number of windows and the seed: no machine has a say in it.

    Attributes:
        shards: Of the set.
        num_chunks: In an epoch.
        seed: The run's.
    """

    shards: tuple[Shard, ...]
    num_chunks: int
    seed: int

    def shards_of(self, visit: int) -> list[Shard]:
        """The shards of the window that is visited as number `visit`, over all epochs, from 0."""
        epoch, chunk = divmod(visit, self.num_chunks)
        keys = np.random.PCG64(np.random.SeedSequence([self.seed, epoch])).random_raw(len(self.shards))
        order = np.argsort(keys, kind="stable")
        return [self.shards[index] for index in np.array_split(order, self.num_chunks)[chunk]]

    @functools.cached_property
    def capacity(self) -> int:
        """Images of the largest window that there can be."""
        return _largest(self.shards, self.num_chunks)


def num_chunks(manifest: DatasetSpec, memory_mib: float, padding: int = 0) -> int:
    """Into how many windows a set is cut, so that two of them fit into memory; 1 where all of it does.

    Args:
        manifest: Of the set.
        memory_mib: For decoded images, MiB.
        padding: Pixels on every side of every image, which take memory as well.

    Raises:
        ConfigError: A shard alone is too large.
    """
    height, width, channels = manifest.image_shape
    bytes_each = (height + 2 * padding) * (width + 2 * padding) * channels
    budget = memory_mib * _MIB
    if manifest.num_examples * bytes_each <= budget:
        return 1
    for count in range(2, len(manifest.shards) + 1):
        if 2 * _largest(manifest.shards, count) * bytes_each <= budget:
            return count
    largest = max(shard.num_examples for shard in manifest.shards) * bytes_each / _MIB
    raise ConfigError(
        f"data_memory_mib={memory_mib:g} must hold two shards of {manifest.name}, the largest of which takes "
        f"{largest:,.1f} MiB; give at least {math.ceil(2 * largest)}, or prepare the set with a smaller --shard_mib."
    )


def _largest(shards: tuple[Shard, ...], count: int) -> int:
    """Images of the largest window, of whichever shards, when there are `count` windows."""
    sizes = sorted((shard.num_examples for shard in shards), reverse=True)
    return sum(sizes[: -(-len(sizes) // count)])
