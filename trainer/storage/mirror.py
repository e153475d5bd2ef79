"""Copies a local folder to another location while it changes: in the background, complete files, at a limited rate."""

import contextlib
import fnmatch
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from trainer.errors import StorageError
from trainer.storage.base import Location
from trainer.storage.safe_names import path_below

_INTERVAL_SECS = 5.0
_SLOW_INTERVAL_SECS = 60.0
_MIN_REWRITE_SECS = 1.0
"""Cloud Storage accepts one write per second to the same object."""

FileState = tuple[int, int]
"""Modification time of a file in nanoseconds, and its size in bytes."""


class Mirror:
    """Context manager that copies changed files of a folder, and on exit all remaining changes.

    Deleted local files stay at the destination. Files whose names begin with a dot are skipped, because they are still
    being written.

    Args:
        folder: Local folder.
        remote: Destination folder.
        without: Names in the folder that are not copied.
        slow: Names in the folder (`*`: all) of files that grow continuously. They are copied once per minute and on
            exit.
        copied: State of each local file that is already at the destination, by name.
    """

    def __init__(
        self,
        folder: Path,
        remote: Location,
        *,
        without: tuple[str, ...] = (),
        slow: tuple[str, ...] = (),
        copied: Mapping[str, FileState] | None = None,
    ):
        self._folder, self._remote = folder, remote
        self._without, self._slow = without, slow
        self._copied = dict(copied or {})
        self._copied_at: dict[str, float] = {}
        self._stop = threading.Event()
        self._error: StorageError | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def __enter__(self) -> "Mirror":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self.check()
        self.copy(include_slow=True)

    def check(self) -> None:
        """Raises the StorageError of a background copy that failed."""
        if self._error is not None:
            raise self._error

    def copy(self, *, include_slow: bool = False) -> None:
        """Copies changed files.

        Args:
            include_slow: Whether to copy slow files even if their interval has not passed.

        Raises:
            StorageError: If a file cannot be copied, or is a link that leads out of the folder.
        """
        with self._lock:
            self._copy(include_slow)

    def _copy(self, include_slow: bool) -> None:
        changed = {}
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            top = name.partition("/")[0]
            if top in self._without or path.name.startswith(".") or not path.is_file():
                continue
            if path.is_symlink():
                path_below(self._folder, name)
            with contextlib.suppress(FileNotFoundError):
                state = file_state(path)
                is_slow = any(fnmatch.fnmatchcase(top, pattern) for pattern in self._slow)
                must_wait = is_slow and time.monotonic() - self._copied_at.get(name, -1e9) < _SLOW_INTERVAL_SECS
                if self._copied.get(name) != state and (include_slow or not must_wait):
                    changed[name] = state
        last_copy = max((self._copied_at.get(name, -1e9) for name in changed), default=-1e9)
        time.sleep(max(0.0, last_copy + _MIN_REWRITE_SECS - time.monotonic()))
        self._remote.upload(self._folder, list(changed))
        self._copied |= changed
        self._copied_at |= dict.fromkeys(changed, time.monotonic())

    def _run(self) -> None:
        while not self._stop.wait(_INTERVAL_SECS):
            try:
                self.copy()
            except StorageError as error:
                self._error = error
                return


def file_state(path: Path) -> FileState:
    """Returns the modification time of a file in nanoseconds and its size in bytes, which change with the file."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size
