"""The shards of a prepared set as local files: verified where they lie, or fetched from a bucket into a cache."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from trainer.data.manifest import MANIFEST_NAME, Manifest, Shard, read_manifest
from trainer.errors import DataError
from trainer.storage import Location, file_sha256
from trainer.storage.locations import LocalLocation

DEFAULT_CACHE_MIB = 10_240
_MIB = 2**20


class ShardFiles:
    """Local, verified files of a set's shards.

    The cache holds files by their SHA-256, for all sets and runs of this user; the least recently used ones go when it
    is full.

    Args:
        folder: Of the set.
        cache: Folder of the cache. None: `$XDG_CACHE_HOME/gan-trainer/shards`, or `~/.cache/…`.
        cache_mib: What the cache may hold; 0 keeps no more than what is being read.

    Attributes:
        manifest: Of the set.

    Raises:
        DataError: `folder` holds no set.
        StorageError: It cannot be read.
    """

    def __init__(self, folder: Location, cache: Path | None = None, cache_mib: float = DEFAULT_CACHE_MIB):
        self._folder = folder
        self._cache = cache or _default_cache()
        self._limit = cache_mib * _MIB
        self._verified: set[str] = set()
        self.manifest: Manifest = read_manifest(folder)

    def paths(self, shards: Iterable[Shard]) -> list[Path]:
        """Where the shards lie now, in the order given: those that are missing are fetched, in parallel.

        Raises:
            DataError: A shard is missing, damaged, or not what the manifest states.
            StorageError: The bucket or the cache cannot be used.
        """
        shards = list(shards)
        if isinstance(self._folder, LocalLocation):
            there = self._folder.path
            found = [there / shard.file for shard in shards]
        else:
            found = self._fetched(shards)
        for shard, path in zip(shards, found, strict=True):
            if shard.sha256 not in self._verified:
                _verify(shard, path, str(self._folder / shard.file))
                self._verified.add(shard.sha256)
        return found

    def _fetched(self, shards: list[Shard]) -> list[Path]:
        found = {shard.sha256: self._cache / f"{shard.sha256}.tfrecord" for shard in shards}
        missing = [shard for shard in shards if not self._holds(shard, found[shard.sha256])]
        if missing:
            self._make_room(sum(shard.num_bytes for shard in missing), keep=set(found.values()))
            self._folder.download({shard.file: found[shard.sha256] for shard in missing})
        for path in found.values():
            now = time.time_ns()  # finer than the clock that the file system would take
            os.utime(path, ns=(now, now))
        return [found[shard.sha256] for shard in shards]

    def _holds(self, shard: Shard, path: Path) -> bool:
        """Whether the cache has a shard; a file that was damaged there is not taken for it."""
        if path.exists() and shard.sha256 not in self._verified and file_sha256(path) == shard.sha256:
            self._verified.add(shard.sha256)
        return path.exists() and shard.sha256 in self._verified

    def _make_room(self, num_bytes: int, keep: set[Path]) -> None:
        """Deletes what was used least recently until so much more fits in."""
        held = sorted(
            (path.stat().st_mtime_ns, path.stat().st_size, path)
            for path in self._cache.glob("*.tfrecord")
            if path not in keep
        )
        total = sum(size for _, size, _ in held) + sum(path.stat().st_size for path in keep if path.exists())
        for _, size, path in held:
            if total + num_bytes <= self._limit:
                return
            path.unlink(missing_ok=True)
            total -= size


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gan-trainer" / "shards"


def _verify(shard: Shard, path: Path, name: str) -> None:
    if not path.is_file():
        raise DataError(f"shard {name} is missing, {MANIFEST_NAME} names it; copy the whole data set again.")
    num_bytes = path.stat().st_size
    if num_bytes != shard.num_bytes:
        raise DataError(
            f"shard {name} has {num_bytes} bytes, {MANIFEST_NAME} states {shard.num_bytes}; copy the data set again."
        )
    digest = file_sha256(path)
    if digest != shard.sha256:
        raise DataError(
            f"shard {name} has SHA-256 {digest[:12]}…, {MANIFEST_NAME} states {shard.sha256[:12]}…; "
            "copy the data set again."
        )
