"""Copies a local folder to another location while it changes: in the background, complete files, at a limited rate."""

import fnmatch
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from trainer.errors import StorageError, count_of, escape
from trainer.storage.base import Location
from trainer.storage.safe_names import path_below

_logger = logging.getLogger(__name__)

_INTERVAL_SECS = 5.0
_SLOW_INTERVAL_SECS = 60.0
_MIN_REWRITE_SECS = 1.0
"""Cloud Storage accepts one write per second to the same object."""

FileState = tuple[int, int]
"""Modification time of a file in nanoseconds, and its size in bytes."""


class Mirror:
    """Context manager that copies changed files of a folder, and on exit all remaining changes.

    Deleted local files stay at the destination. Files and folders whose names begin with a dot are skipped, because
    they are still being written, and links to folders and links that lead out of the folder. The files are by-products:
    an error is logged as a warning, and the copy is tried again.

    Args:
        folder: Local folder.
        remote: Destination folder.
        without: Names in the folder that are not copied.
        slow: Names in the folder (`*`: all) of files that grow continuously. They are copied once per minute and on
            exit.
        copied: State of each local file that is already at the destination, by name.
        check: Function that is called before each copy. A `StorageError` prevents the copy.
    """

    def __init__(
        self,
        folder: Path,
        remote: Location,
        *,
        without: tuple[str, ...] = (),
        slow: tuple[str, ...] = (),
        copied: Mapping[str, FileState] | None = None,
        check: Callable[[], object] | None = None,
    ):
        self._folder, self._remote = folder, remote
        self._without, self._slow = without, slow
        self._check = check or (lambda: None)
        self._copied = dict(copied or {})
        self._copied_at: dict[str, float] = {}
        self._stop = threading.Event()
        self._failed: dict[str, str] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def __enter__(self) -> "Mirror":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self.copy(include_slow=True)
        if self._failed:
            name, reason = next(iter(self._failed.items()))
            _logger.warning(
                f"{count_of(len(self._failed), 'file')} cannot be copied to {self._remote}, such as {escape(name)}: "
                f"{reason}"
            )

    def copy(self, *, include_slow: bool = False) -> None:
        """Copies changed files.

        Args:
            include_slow: Whether to copy slow files even if their interval has not passed.
        """
        with self._lock:
            changed = self._changed_files(include_slow)
            last_copy = max((self._copied_at.get(name, -1e9) for name in changed), default=-1e9)
            time.sleep(max(0.0, last_copy + _MIN_REWRITE_SECS - time.monotonic()))
            # The first failure ends the copy, which may take minutes without a network; the rest comes first next time.
            for name in sorted(changed, key=lambda name: name in self._failed):
                try:
                    self._check()
                    self._remote.upload(self._folder, [name])
                except (StorageError, OSError) as error:
                    self._report(name, error)
                    return
                self._failed.pop(name, None)
                self._copied[name] = changed[name]
                self._copied_at[name] = time.monotonic()

    def _changed_files(self, include_slow: bool) -> dict[str, FileState]:
        """Returns the state of each file that differs from its copy, by name."""
        changed = {}
        names = sorted(self._list_names())
        self._failed = {name: self._failed[name] for name in names if name in self._failed}  # others were deleted
        for name in names:
            path, top = self._folder / name, name.partition("/")[0]
            try:
                if not path.is_file():
                    continue
                if path.is_symlink():
                    path_below(self._folder, name)
                state = file_state(path)
            except FileNotFoundError:
                continue  # deleted meanwhile
            except (StorageError, OSError) as error:
                self._report(name, error)
                continue
            is_slow = any(fnmatch.fnmatchcase(top, pattern) for pattern in self._slow)
            must_wait = is_slow and time.monotonic() - self._copied_at.get(name, -1e9) < _SLOW_INTERVAL_SECS
            if self._copied.get(name) != state and (include_slow or not must_wait):
                changed[name] = state
        return changed

    def _list_names(self) -> Iterator[str]:
        """Yields the names of the files that are copied. Other threads may rename and delete folders meanwhile."""
        for parent, folders, files in os.walk(self._folder):
            prefix = Path(parent).relative_to(self._folder)
            excluded = {*self._without} if prefix == Path() else {}
            folders[:] = [name for name in folders if name not in excluded and not name.startswith(".")]
            yield from (
                (prefix / name).as_posix() for name in files if name not in excluded and not name.startswith(".")
            )

    def _report(self, name: str, error: Exception) -> None:
        """Logs the first error."""
        if not self._failed:
            _logger.warning(f"{escape(name)} is not copied to {self._remote}, and is tried again later: {error}")
        self._failed[name] = str(error)

    def _run(self) -> None:
        while not self._stop.wait(_INTERVAL_SECS):
            self.copy()


def file_state(path: Path) -> FileState:
    """Returns the modification time of a file in nanoseconds and its size in bytes, which change with the file."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size
