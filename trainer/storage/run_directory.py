"""The paths of a run directory, and its copy on this machine where it lies in a bucket."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Container, Iterator
from pathlib import Path

from trainer.errors import CheckpointError, ConfigError, StorageError
from trainer.storage.base import Location
from trainer.storage.local import GrowingFolder
from trainer.storage.mirror import Mirror, state_of
from trainer.storage.resolve import is_remote, locate
from trainer.storage.safe_names import path_below

CONFIG = "config.json"
_CHECKPOINTS, _LOGS, _MODEL = "checkpoints", "logs", "model"
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


class RunDirectory:
    """The one place that knows a run's file names. Nothing is made until `opened`.

    Of a directory in a bucket, the paths are those of a folder of this machine, which is gone when it is closed.

    Args:
        root: A local folder, or `gs://BUCKET/NAME`.
    """

    def __init__(self, root: str | os.PathLike[str]):
        self.name = os.fspath(root)
        self._remote = locate(root) if is_remote(root) else None
        self._set_root(Path(root))
        self._copied: dict[str, tuple[int, int]] = {}

    @property
    def remote_checkpoints(self) -> Location | None:
        """The folder in the bucket where checkpoints are published; None of a local directory."""
        return None if self._remote is None else self._remote / _CHECKPOINTS

    @contextlib.contextmanager
    def opened(self, only: Container[str] | None = None) -> Iterator["RunDirectory"]:
        """While entered, what the directory holds can be read, checkpoints of a bucket left out.

        Args:
            only: Names in the directory, such as `config.json`, of what is to be read of a bucket. None: all of it.

        Raises:
            StorageError: The bucket cannot be read or has a name that is no plain relative one, or a file or folder of
                a local directory is a link that leads out of it.
        """
        if self._remote is None:
            self._check_links()
            yield self
            return
        with tempfile.TemporaryDirectory(prefix="gan-trainer-run-") as scratch:
            self._set_root(path_below(Path(scratch), self._remote.name, self.name))
            names = [entry.name for entry in self._remote.entries() if not entry.name.startswith(f"{_CHECKPOINTS}/")]
            if only is not None:
                names = [name for name in names if name in only]
            self._remote.download({name: path_below(self.root, name, self._remote) for name in names})
            self._copied = {name: state_of(self.root / name) for name in names}
            yield self

    @contextlib.contextmanager
    def mirrored(self, logs_to: str | None = None) -> Iterator[tuple[Mirror, ...]]:
        """While entered, what changes is copied to the bucket; all of it at the end. A local directory needs no copy.

        Checkpoints and the model are left out: what makes them whole must arrive last.

        Args:
            logs_to: Folder, local or `gs://`, that TensorBoard's events go to as well. None: they stay here alone.

        Raises:
            ConfigError: `logs_to` lies among the events.
            StorageError: The bucket, or that folder, cannot be written.
        """
        mirrors = []
        if self._remote is not None:
            without = _CHECKPOINTS, _MODEL
            mirrors.append(Mirror(self.root, self._remote, without=without, slow=(_LOGS,), copied=self._copied))
        elsewhere = self._elsewhere(self.logs, logs_to)
        if elsewhere is not None:
            if elsewhere.startswith(f"{self._place(self.logs)}/"):
                raise ConfigError(
                    f"TensorBoard's events are to go to {logs_to}, which lies among those of the run in "
                    f"{self._place(self.logs)}; name another folder."
                )
            to = locate(elsewhere) if is_remote(elsewhere) else GrowingFolder(elsewhere)
            mirrors.append(Mirror(self.logs, to, slow=("*",)))
        with contextlib.ExitStack() as entered:
            yield tuple(entered.enter_context(mirror) for mirror in mirrors)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """While entered, an error of the disk is a sentence.

        Raises:
            StorageError: The disk is full, or cannot be written any more.
        """
        try:
            yield
        except OSError as error:
            if error.errno not in _OF_THE_DISK:
                raise
            raise StorageError(
                f"{error.filename or self.root} cannot be written ({error.strerror}); what was committed stays: free "
                "space on that disk, and the same command goes on from there."
            ) from error

    def create(self) -> None:
        """Makes the folders.

        Raises:
            CheckpointError: The directory cannot be written.
        """
        try:
            for folder in (self.root, self.checkpoints, self.logs, self.samples):
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise CheckpointError(
                f"job_dir={self.root} cannot be written ({error.strerror}); give a directory that you may write to."
            ) from error

    def shown(self, path: Path) -> str:
        """What a user finds a file of this directory under."""
        return f"{self.name.rstrip('/')}/{path.relative_to(self.root).as_posix()}"

    def copies_of_model(self, named: str | None) -> list[Location]:
        """Where the model lies beside its folder here: in the bucket, and in the folder that a job names for it."""
        elsewhere = self._elsewhere(self.model, named)
        in_bucket = [] if self._remote is None else [self._remote / _MODEL]
        return in_bucket if elsewhere is None else [*in_bucket, locate(elsewhere)]

    def _elsewhere(self, folder: Path, named: str | None) -> str | None:
        """The folder that a job names for what one of this directory holds; None where it is that one, or none.

        Args:
            folder: Of this directory.
            named: A local path, or `gs://BUCKET/NAME`.
        """
        if named is None:
            return None
        there = str(locate(named)) if is_remote(named) else os.path.realpath(named)
        return None if there == self._place(folder) else there

    def _place(self, folder: Path) -> str:
        """Where a folder of this directory lies for good."""
        return os.path.realpath(folder) if self._remote is None else str(self._remote / folder.name)

    def _check_links(self) -> None:
        """Refuses links out of a local directory, which may come from somebody else: they would be written through."""
        partial = self.model.with_name(f".{self.model.name}.partial")
        for path in (self.config, self.metrics, self.checkpoints, self.logs, self.samples, self.model, partial):
            if path.is_symlink():
                path_below(self.root, path.name)

    def _set_root(self, root: Path) -> None:
        self.root = root
        self.config = root / CONFIG
        self.metrics = root / "metrics.jsonl"
        self.checkpoints = root / _CHECKPOINTS
        self.logs = root / _LOGS
        self.samples = root / "samples"
        self.model = root / _MODEL
