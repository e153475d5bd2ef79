"""The shards of a prepared set as local files: verified where they lie, or fetched from a bucket into a cache."""

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
from trainer.storage import Location, check_sha256, file_sha256, path_below
from trainer.storage.local import LocalLocation

DEFAULT_CACHE_MIB = 10_240
_MIB = 2**20
_DAY_SECS = 86_400
_TRIES = 10
_Result = TypeVar("_Result")


class ShardCache:
    """Local, verified files of a set's shards.

    The cache holds files by their SHA-256, for all sets and runs of this user; the least recently used ones go when it
    is full. Another run may do that at any moment: `using` fetches again what is gone.

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
        self._closing = threading.Event()
        self.manifest: DatasetSpec = read_dataset_spec(folder)

    def until(self, closing: threading.Event) -> "ShardCache":
        """The same files for a reader that may have to stop: CancelledError at the next shard once `closing` is set."""
        files = copy.copy(self)
        files._closing = closing
        return files

    def paths(self, shards: Iterable[Shard]) -> list[Path]:
        """Where the shards lie now, in the order given: those that are missing are fetched, in parallel.

        Raises:
            DataError: A shard is missing, damaged, or not what the manifest states.
            StorageError: The bucket or the cache cannot be used.
        """
        shards = list(shards)
        if not self._is_local:
            self._fetch(shards)
        for shard in shards:
            if shard.sha256 not in self._verified:
                self.using(shard, functools.partial(_verify, shard, self._name(shard)))
                self._verified.add(shard.sha256)
        return [self.path(shard) for shard in shards]

    def path(self, shard: Shard) -> Path:
        """Where a shard lies when it is there."""
        if isinstance(self._folder, LocalLocation):
            return path_below(self._folder.path, shard.file, self._folder / SPEC_NAME, DataError)
        return self._cache / f"{check_sha256(shard.sha256, self._folder / SPEC_NAME, DataError)}.tfrecord"

    def using(self, shard: Shard, act: Callable[[Path], _Result]) -> _Result:
        """What is made of a shard's file, which is fetched again where another run needed its room.

        Args:
            shard: What `paths` has given before.
            act: (path) -> the result; FileNotFoundError where the file is gone. Once it is open, it may go.

        Raises:
            DataError: The file of a local set is gone.
            StorageError: The bucket or the cache cannot be used.
        """
        self._check_open()
        for _ in range(_TRIES):
            with contextlib.suppress(FileNotFoundError):
                return act(self.path(shard))
            if self._is_local:
                raise DataError(
                    f"shard {self._name(shard)} is missing, {SPEC_NAME} names it; copy the whole data set again."
                )
            self._fetch([shard])
        raise StorageError(
            f"shard {self._name(shard)} was fetched into {self._cache} {_TRIES} times, and went each time before it "
            "could be read; give the runs that share this cache more --cache_mib."
        )

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise concurrent.futures.CancelledError

    @property
    def _is_local(self) -> bool:
        return isinstance(self._folder, LocalLocation)

    def _name(self, shard: Shard) -> str:
        return str(self._folder / shard.file)

    def _fetch(self, shards: list[Shard]) -> None:
        """Brings what is missing into the cache, and marks all as used."""
        wanted = dict.fromkeys(self.path(shard) for shard in shards)
        missing = {shard.file: self.path(shard) for shard in shards if not self._holds(shard)}
        if missing:
            self._make_room(sum(shard.num_bytes for shard in shards if shard.file in missing), keep=set(wanted))
            self._folder.download(missing, check=self._check_open)
        for path in wanted:
            now = time.time_ns()  # finer than the clock that the file system would take
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, ns=(now, now))

    def _holds(self, shard: Shard) -> bool:
        """Whether the cache has a shard; a file that was damaged there is not taken for it."""
        self._check_open()
        path = self.path(shard)
        with contextlib.suppress(FileNotFoundError):
            if shard.sha256 not in self._verified and file_sha256(path) == shard.sha256:
                self._verified.add(shard.sha256)
        return path.exists() and shard.sha256 in self._verified

    def _make_room(self, num_bytes: int, keep: set[Path]) -> None:
        """Deletes what was used least recently until so much more fits in, and what broken-off transfers left."""
        for when, _, path in _found(self._cache.glob(".*.partial")):
            if time.time() - when / 1e9 > _DAY_SECS:
                path.unlink(missing_ok=True)
        held = sorted(_found(self._cache.glob("*.tfrecord")))
        total = sum(size for _, size, _ in held)
        for _, size, path in held:
            if total + num_bytes <= self._limit:
                return
            if path not in keep:
                path.unlink(missing_ok=True)
                total -= size


def _found(paths: Iterable[Path]) -> Iterator[tuple[int, int, Path]]:
    """When each file was used, in nanoseconds, its bytes and its path; those left out that are gone meanwhile."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            state = path.stat()
            yield state.st_mtime_ns, state.st_size, path


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gan-trainer" / "shards"


def _verify(shard: Shard, name: str, path: Path) -> None:
    num_bytes = path.stat().st_size
    if num_bytes != shard.num_bytes:
        raise DataError(
            f"shard {name} has {num_bytes} bytes, {SPEC_NAME} states {shard.num_bytes}; copy the data set again."
        )
    digest = file_sha256(path)
    if digest != shard.sha256:
        raise DataError(
            f"shard {name} has SHA-256 {digest[:12]}…, {SPEC_NAME} states {shard.sha256[:12]}…; "
            "copy the data set again."
        )
