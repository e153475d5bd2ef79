"""Local files of the shards of a prepared dataset, verified at every read. A cache holds the shards of buckets."""

import concurrent.futures
import contextlib
import copy
import functools
import hashlib
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from trainer.config import TrainConfig
from trainer.data.dataset_spec import SPEC_NAME, DatasetSpec, Shard, read_dataset_spec
from trainer.errors import DataError, StorageError, count_of
from trainer.storage import Location, cache_folder, check_sha256, paths_below
from trainer.storage.local import LocalLocation
from trainer.storage.local_files import describe_os_error

_MIB = 2**20
_DAY_SECS = 86_400
_MAX_ATTEMPTS = 10


@contextlib.contextmanager
def _explain_os_errors(path: object = "a file of the dataset or of the cache") -> Iterator[None]:
    """Explains errors of the system. Some of them, such as those of reading an open file, do not name the file."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{describe_os_error(error, error.filename or path, 'used')}.") from error


class ShardCache:
    """Local files of the shards of a dataset.

    `read` returns the bytes that it has verified, so that a file that changes at any moment of a run is either read as
    it was or refused.

    The cache names files by their SHA-256 and is shared by all datasets and runs of a user. When it is full, it
    deletes the least recently used files. Another run may delete a file at any moment, so `read` downloads a missing
    file again.

    Args:
        folder: Folder of the dataset.
        cache: Folder of the cache. None: `$XDG_CACHE_HOME/gan-trainer/shards`, or `~/.cache/gan-trainer/shards`.
        cache_mib: Maximum size of the cache in MiB. One shard is kept even if it is larger.

    Attributes:
        spec: Description of the dataset.

    Raises:
        DataError: If `folder` contains no valid dataset.
        StorageError: If `folder` cannot be read.
    """

    def __init__(self, folder: Location, cache: Path | None = None, cache_mib: float = TrainConfig.cache_mib):
        self._folder = folder
        self._cache_override = cache
        self._max_bytes = cache_mib * _MIB
        self._cancelled = threading.Event()
        self.spec: DatasetSpec = read_dataset_spec(folder)

    def with_cancellation(self, cancelled: threading.Event) -> "ShardCache":
        """Returns a view of this cache that raises CancelledError at the next shard after `cancelled` is set."""
        view = copy.copy(self)
        view._cancelled = cancelled
        return view

    @_explain_os_errors()
    def fetch(self, shards: Iterable[Shard]) -> None:
        """Downloads the shards that the cache does not have, several at a time, and checks the sizes of all files.

        Raises:
            DataError: If a file has another size than the description of the dataset states.
            StorageError: If the bucket or the cache cannot be used.
        """
        shards = list(shards)
        if not self._is_local:
            self._download(shards)
        for shard, path in zip(shards, self._paths(shards), strict=True):
            with contextlib.suppress(FileNotFoundError):  # `read` reports it, or downloads it again
                num_bytes = path.stat().st_size
                if num_bytes != shard.num_bytes:
                    raise self._changed(shard, f"{count_of(num_bytes, 'byte')}", f"{shard.num_bytes}")

    def fetch_ahead(self, shards: Sequence[Shard]) -> Iterator[Shard]:
        """Returns an iterator over shards that `fetch` has fetched, as many at a time as the cache can hold.

        The first ones are fetched before the function returns. Local shards are all checked before it returns.

        Raises:
            DataError, StorageError: As `fetch`; also the iterator.
        """
        groups = self._group(shards)
        self.fetch(groups[0])

        def fetch_others() -> Iterator[Shard]:
            yield from groups[0]
            for group in groups[1:]:
                self.fetch(group)
                yield from group

        return fetch_others()

    @_explain_os_errors()
    def read(self, shard: Shard) -> bytes:
        """Returns the content of a shard, with the size and the SHA-256 that the description of the dataset states.

        A missing or damaged file of the cache is downloaded again.

        Raises:
            DataError: If the shard is missing, or differs from the description of the dataset.
            StorageError: If the file, the bucket or the cache cannot be used.
        """
        path, may_be_stale = self.path(shard), not self._is_local
        for _ in range(_MAX_ATTEMPTS):
            self._check_cancelled()
            try:
                return self._read_verified(shard, path)
            except FileNotFoundError as error:
                if self._is_local:
                    raise DataError(
                        f"shard {self.display_name(shard)} is missing, but {SPEC_NAME} lists it; copy the whole "
                        "dataset again."
                    ) from error
            except DataError:
                if not self._is_local:
                    path.unlink(missing_ok=True)
                if not may_be_stale:
                    raise
                may_be_stale = False
            self._download([shard])
        raise StorageError(
            f"shard {self.display_name(shard)} was downloaded into {self._cache} {_MAX_ATTEMPTS} times and deleted "
            "each time before it was read; give the runs that share this cache more --cache_mib."
        )

    def path(self, shard: Shard) -> Path:
        """Returns the path of the local file of a shard, which may not exist yet."""
        return self._paths([shard])[0]

    def display_name(self, shard: Shard) -> str:
        """Returns the address of a shard for messages."""
        return str(self._folder / shard.file)

    def _paths(self, shards: Sequence[Shard]) -> list[Path]:
        """Returns the path of the local file of each shard."""
        spec = self._folder / SPEC_NAME
        if isinstance(self._folder, LocalLocation):
            return paths_below(self._folder.path, [shard.file for shard in shards], spec, DataError)
        return [self._cache / f"{check_sha256(shard.sha256, spec, DataError)}.tfrecord" for shard in shards]

    @functools.cached_property
    def _cache(self) -> Path:
        """Folder of the cache. Local datasets need none, and a user without a home directory may have none."""
        return self._cache_override or cache_folder("shards")

    @property
    def _is_local(self) -> bool:
        return isinstance(self._folder, LocalLocation)

    def _group(self, shards: Sequence[Shard]) -> list[list[Shard]]:
        """Returns shards in groups that each fit into the cache, or are one shard. Local shards are one group."""
        groups: list[list[Shard]] = [[]]
        num_bytes = 0
        for shard in shards:
            num_bytes += shard.num_bytes
            if groups[-1] and num_bytes > self._max_bytes and not self._is_local:
                groups.append([])
                num_bytes = shard.num_bytes
            groups[-1].append(shard)
        return groups

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise concurrent.futures.CancelledError

    def _read_verified(self, shard: Shard, path: Path) -> bytes:
        """Returns the content of a file after its size and SHA-256 were checked.

        Raises:
            FileNotFoundError: If the file does not exist, or is not a regular file.
        """
        if not path.is_file():  # opening a named pipe would block
            raise FileNotFoundError(path)
        with path.open("rb") as file, _explain_os_errors(path):
            num_bytes = os.fstat(file.fileno()).st_size
            if num_bytes != shard.num_bytes:
                raise self._changed(shard, f"{count_of(num_bytes, 'byte')}", f"{shard.num_bytes}")
            content = file.read(num_bytes)
        digest = hashlib.sha256(content).hexdigest()
        if digest != shard.sha256:
            raise self._changed(shard, f"SHA-256 {digest[:12]}…", f"{shard.sha256[:12]}…")
        return content

    def _changed(self, shard: Shard, received: str, expected: str) -> DataError:
        return DataError(
            f"shard {self.display_name(shard)} has {received}, but {SPEC_NAME} states {expected}: it is damaged, or "
            "was replaced while it was in use; copy the dataset again, or start a new run with the new one."
        )

    def _download(self, shards: list[Shard]) -> None:
        """Downloads missing shards into the cache, and marks all shards as used."""
        paths = dict.fromkeys(self.path(shard) for shard in shards)
        missing = {shard.file: self.path(shard) for shard in shards if not self._is_cached(shard)}
        if missing:
            self._free_space(sum(shard.num_bytes for shard in shards if shard.file in missing), keep=set(paths))
            self._folder.download(missing, check=self._check_cancelled)
        for path in paths:
            now = time.time_ns()  # more precise than the clock of the file system
            with contextlib.suppress(FileNotFoundError, PermissionError):  # the file may belong to another user
                os.utime(path, ns=(now, now))

    def _is_cached(self, shard: Shard) -> bool:
        """Returns whether the cache has a file of the right size for a shard. `read` verifies its content."""
        with contextlib.suppress(FileNotFoundError):
            return self.path(shard).stat().st_size == shard.num_bytes
        return False

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
