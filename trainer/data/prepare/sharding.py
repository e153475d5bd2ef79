"""Division of the selected images into shards, and of the shards among machines.

Shard k is a pure function of the list of images, the options, and k. It has an equal part of the shuffled images, so
that every machine knows the content of every shard in advance, and can make any of them.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterable

import numpy as np

from trainer.errors import ConfigError, count_of

MAX_SHARDS = 60_000
"""Maximum number of shards of a dataset, so that `dataset.json`, with some 230 bytes for each, can be read."""


@dataclasses.dataclass(frozen=True)
class Part:
    """The shards that one of several machines makes: every `num_replicas`-th one.

    Attributes:
        index: Index of the machine in [0, num_replicas). Machine 0 is the chief, which writes `dataset.json`.
        num_replicas: Number of machines.
        owner: Job and machine on Vertex AI, which a restarted machine keeps. Empty: it is in no job.

    Raises:
        ConfigError: If `index` is out of range.
    """

    index: int = 0
    num_replicas: int = 1
    owner: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.num_replicas:
            raise ConfigError(
                f"replica={self.index} is not one of num_replicas={self.num_replicas}; give a number from 0 to "
                f"{self.num_replicas - 1}."
            )

    @property
    def is_chief(self) -> bool:
        """True for the machine that writes `dataset.json`."""
        return self.index == 0

    def owns(self, shard: int) -> bool:
        """Returns whether this machine makes a shard."""
        return shard % self.num_replicas == self.index


def choose_num_shards(num_images: int, image_bytes: float, shard_mib: float) -> int:
    """Returns the number of shards of about `shard_mib`, in [1, num_images].

    Args:
        num_images: Number of images, at least 1.
        image_bytes: Mean size of an encoded image in bytes.
        shard_mib: Size of a shard in MiB.
    """
    return min(max(1, math.ceil(num_images * image_bytes / (shard_mib * 2**20))), num_images, MAX_SHARDS)


def check_num_shards(num_shards: int, num_images: int) -> None:
    """Checks a number of shards that the user states.

    Raises:
        ConfigError: If a shard would have no image, or there are too many shards.
    """
    if not 1 <= num_shards <= min(num_images, MAX_SHARDS):
        raise ConfigError(
            f"num_shards={num_shards} does not fit {count_of(num_images, 'image')}; give a number from 1 to "
            f"{min(num_images, MAX_SHARDS)}."
        )


def shard_bounds(num_images: int, num_shards: int) -> np.ndarray:
    """Returns the position of the first image of each shard, and `num_images`: int64 [num_shards + 1]."""
    return np.arange(num_shards + 1, dtype=np.int64) * num_images // num_shards


def digest_of(names: Iterable[str], sizes: Iterable[int], labels: np.ndarray, settings: object) -> str:
    """Returns the SHA-256 of everything that the bytes of all shards depend on: 64 hexadecimal digits.

    Args:
        names: Name of each image in the order of the dataset, and then of each input of a pair.
        sizes: Size in bytes of each of these files before its conversion, or an upper bound.
        labels: Label of each image, int64 [N].
        settings: Settings whose `repr` determines the conversion.
    """
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(np.ascontiguousarray(labels, "<i8").tobytes())
    for name, size in zip(names, sizes, strict=True):
        digest.update(f"{size} {name}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()
