"""Verified local files of the shards of a prepared data set. Shards in a bucket are downloaded into a cache."""

import concurrent.futures
import contextlib
import copy
import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from trainer.data.dataset_spec import SPEC_NAME, DatasetSpec, Shard, read_dataset_spec
from trainer.errors import DataError, StorageError
from trainer.storage import Location, check_sha256, file_sha256, local_path, path_below
from trainer.storage.local import LocalLocation

DEFAULT_CACHE_MIB = 10_240
_MIB = 2**20
_DAY_SECS = 86_400
_MAX_ATTEMPTS = 10
_Result = TypeVar("_Result")


class ShardCache:
    """Verified local files of the shards of a data set.

    The cache names files by their SHA-256 and is shared by all data sets and runs of a user. When it is full, it
    deletes the least recently used files. Another run may delete a file at any moment, so `read_file` downloads a
    missing file again.

    Args:
        folder: Folder of the data set.
        cache: Folder of the cache. None: `$XDG_CACHE_HOME/gan-trainer/shards`, or `~/.cache/gan-trainer/shards`.
        cache_mib: Maximum size of the cache in MiB. 0 keeps only the shards that are in use.

    Attributes:
        spec: Description of the data set.

    Raises:
        DataError: If `folder` contains no valid data set.
        StorageError: If `folder` cannot be read.
    """

    def __init__(self, folder: Location, cache: Path | None = None, cache_mib: float = DEFAULT_CACHE_MIB):
        self._folder = folder
        self._cache = cache or _default_cache()
        self._max_bytes = cache_mib * _MIB
        self._verified: set[str] = set()
        self._cancelled = threading.Event()
        self.spec: DatasetSpec = read_dataset_spec(folder)

    def with_cancellation(self, cancelled: threading.Event) -> "ShardCache":
        """Returns a view of this cache that raises CancelledError at the next shard after `cancelled` is set."""
        view = copy.copy(self)
        view._cancelled = cancelled
        return view

    def fetch(self, shards: Iterable[Shard]) -> list[Path]:
        """Verifies shards and returns their local files. Missing files are downloaded in parallel.

        Raises:
            DataError: If a shard is missing, damaged, or differs from the description of the data set.
            StorageError: If the bucket or the cache cannot be used.
        """
        shards = list(shards)
        if not self._is_local:
            self._download(shards)
        for shard in shards:
            if shard.sha256 not in self._verified:
                self.read_file(shard, functools.partial(_verify, shard, self._display_name(shard)))
                self._verified.add(shard.sha256)
        return [self.path(shard) for shard in shards]

    def path(self, shard: Shard) -> Path:
        """Returns the path of the local file of a shard, which may not exist yet."""
        if isinstance(self._folder, LocalLocation):
            return path_below(self._folder.path, shard.file, self._folder / SPEC_NAME, DataError)
        return self._cache / f"{check_sha256(shard.sha256, self._folder / SPEC_NAME, DataError)}.tfrecord"

    def read_file(self, shard: Shard, read: Callable[[Path], _Result]) -> _Result:
        """Reads the local file of a shard. If another run deleted the file, it is downloaded again.

        Args:
            shard: Shard that was fetched before.
            read: Function of the path. It raises FileNotFoundError if the file does not exist. After it has opened the
                file, the file may be deleted.

        Returns:
            The result of `read`.

        Raises:
            DataError: If the file of a local data set is missing.
            StorageError: If the bucket or the cache cannot be used.
        """
        self._check_cancelled()
        for _ in range(_MAX_ATTEMPTS):
            with contextlib.suppress(FileNotFoundError):
                return read(self.path(shard))
            if self._is_local:
                raise DataError(
                    f"shard {self._display_name(shard)} is missing, but {SPEC_NAME} lists it; copy the whole data set "
                    "again."
                )
            self._download([shard])
        raise StorageError(
            f"shard {self._display_name(shard)} was downloaded into {self._cache} {_MAX_ATTEMPTS} times and deleted "
            "each time before it was read; give the runs that share this cache more --cache_mib."
        )

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise concurrent.futures.CancelledError

    @property
    def _is_local(self) -> bool:
        return isinstance(self._folder, LocalLocation)

    def _display_name(self, shard: Shard) -> str:
        return str(self._folder / shard.file)

    def _download(self, shards: list[Shard]) -> None:
        """Downloads missing shards into the cache, and marks all shards as used."""
        paths = dict.fromkeys(self.path(shard) for shard in shards)
        missing = {shard.file: self.path(shard) for shard in shards if not self._is_cached(shard)}
        if missing:
            self._free_space(sum(shard.num_bytes for shard in shards if shard.file in missing), keep=set(paths))
            self._folder.download(missing, check=self._check_cancelled)
        for path in paths:
            now = time.time_ns()  # more precise than the clock of the file system
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, ns=(now, now))

    def _is_cached(self, shard: Shard) -> bool:
        """Returns whether the cache has an undamaged file of a shard."""
        self._check_cancelled()
        path = self.path(shard)
        with contextlib.suppress(FileNotFoundError):
            if shard.sha256 not in self._verified and file_sha256(path) == shard.sha256:
                self._verified.add(shard.sha256)
        return path.exists() and shard.sha256 in self._verified

    def _free_space(self, num_bytes: int, keep: set[Path]) -> None:
        """Deletes files of interrupted downloads, and least recently used files until `num_bytes` more fit."""
        for used_at_ns, _, path in _file_stats(self._cache.glob(".*.partial")):
            if time.time() - used_at_ns / 1e9 > _DAY_SECS:
                path.unlink(missing_ok=True)
        files = sorted(_file_stats(self._cache.glob("*.tfrecord")))
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total + num_bytes <= self._max_bytes:
                return
            if path not in keep:
                path.unlink(missing_ok=True)
                total -= size


def _file_stats(paths: Iterable[Path]) -> Iterator[tuple[int, int, Path]]:
    """Yields the time of last use in nanoseconds, the size in bytes and the path of each file that still exists."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            yield status.st_mtime_ns, status.st_size, path


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (local_path(base) if base else Path.home() / ".cache") / "gan-trainer" / "shards"


def _verify(shard: Shard, display_name: str, path: Path) -> None:
    num_bytes = path.stat().st_size
    if num_bytes != shard.num_bytes:
        raise DataError(
            f"shard {display_name} has {num_bytes} bytes, but {SPEC_NAME} states {shard.num_bytes}; copy the data set "
            "again."
        )
    digest = file_sha256(path)
    if digest != shard.sha256:
        raise DataError(
            f"shard {display_name} has SHA-256 {digest[:12]}…, but {SPEC_NAME} states {shard.sha256[:12]}…; copy the "
            "data set again."
        )
