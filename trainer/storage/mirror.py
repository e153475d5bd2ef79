"""A local folder, copied elsewhere as it changes: in the background, whole files, each at most once in a while."""

import contextlib
import fnmatch
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from trainer.errors import StorageError
from trainer.storage.base import Location
from trainer.storage.safe_names import path_below

_EVERY_SECS = 5.0
_SLOW_EVERY_SECS = 60.0
_PAUSE_SECS = 1.0
"""Cloud Storage takes one write a second of the same object."""


class Mirror:
    """Copies what changes in a folder; a context manager that ends when all is copied.

    What was copied is not deleted when the local file is. Files whose names begin with a dot are being written, and are
    left alone.

    Args:
        folder: The local one.
        remote: Where it goes.
        without: Names in the folder that are not copied.
        slow: Names in it (`*`: all) whose files grow all the time: they are copied once a minute, and at the end.
        copied: What is there already, by name: the `state_of` each file here when it was the same.
    """

    def __init__(
        self,
        folder: Path,
        remote: Location,
        *,
        without: tuple[str, ...] = (),
        slow: tuple[str, ...] = (),
        copied: Mapping[str, tuple[int, int]] | None = None,
    ):
        self._folder, self._remote = folder, remote
        self._without, self._slow = without, slow
        self._copied = dict(copied or {})
        self._when: dict[str, float] = {}
        self._ending = threading.Event()
        self._error: StorageError | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def __enter__(self) -> "Mirror":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ending.set()
        self._thread.join()
        self.check()
        self.copy(all_now=True)

    def check(self) -> None:
        """Raises StorageError where copying has failed in the meantime."""
        if self._error is not None:
            raise self._error

    def copy(self, *, all_now: bool = False) -> None:
        """Copies what has changed.

        Args:
            all_now: Also what changes all the time.

        Raises:
            StorageError: It cannot be copied, or is a link that leads out of the folder.
        """
        with self._lock:
            self._copy(all_now)

    def _copy(self, all_now: bool) -> None:
        due = {}
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            top = name.partition("/")[0]
            if top in self._without or path.name.startswith(".") or not path.is_file():
                continue
            if path.is_symlink():
                path_below(self._folder, name)
            with contextlib.suppress(FileNotFoundError):
                state = state_of(path)
                slow = any(fnmatch.fnmatchcase(top, pattern) for pattern in self._slow)
                waits = slow and time.monotonic() - self._when.get(name, -1e9) < _SLOW_EVERY_SECS
                if self._copied.get(name) != state and (all_now or not waits):
                    due[name] = state
        last = max((self._when.get(name, -1e9) for name in due), default=-1e9)
        time.sleep(max(0.0, last + _PAUSE_SECS - time.monotonic()))
        self._remote.upload(self._folder, list(due))
        self._copied |= due
        self._when |= dict.fromkeys(due, time.monotonic())

    def _run(self) -> None:
        while not self._ending.wait(_EVERY_SECS):
            try:
                self.copy()
            except StorageError as error:
                self._error = error
                return


def state_of(path: Path) -> tuple[int, int]:
    """What changes when a file does: when it was written, in nanoseconds, and its bytes."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size
