"""File names of a run directory, and its local copy if it is in a bucket."""

import contextlib
import functools
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

from trainer.errors import CheckpointError, ConfigError
from trainer.storage import documents, lease
from trainer.storage.base import Location, too_large
from trainer.storage.lease import Lease
from trainer.storage.local import AppendOnlyFolder, LocalLocation
from trainer.storage.local_files import explain_unwritable, remove_leftovers, scratch_folder, write_atomically
from trainer.storage.mirror import FileState, Mirror, file_state
from trainer.storage.resolve import is_remote, locate, parse_path, place_of, state_absence
from trainer.storage.safe_names import path_below

CONFIG = "config.json"
METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
REAL_VS_REAL_EVENT = "real_vs_real"
"""Event with the metrics of real images against other real images."""
REPORT = "report.html"
NEIGHBORS = "neighbors.png"
TRACKERS = "trackers.json"
CHECKPOINTS = "checkpoints"
LOGS = "logs"
MODEL = "model"
SAMPLES = "samples"
PROGRESSION = "progression.gif"
_OWN_NAMES = CONFIG, METRICS, EVENTS, REPORT, NEIGHBORS, TRACKERS, CHECKPOINTS, LOGS, MODEL, SAMPLES
_STEP = r"step-([0-9]{8}|[1-9][0-9]{8,17})"
_CHECKPOINT = re.compile(_STEP)
_SAMPLE_GRID = re.compile(rf"{_STEP}\.png")
_BY_PRODUCT = (
    rf"{re.escape(METRICS)}|{re.escape(EVENTS)}|{re.escape(NEIGHBORS)}|{re.escape(TRACKERS)}"
    rf"|{SAMPLES}/({_STEP}\.png|{re.escape(PROGRESSION)})|{LOGS}/[^/]*tfevents[^/]*"
)
_FILE = re.compile(rf"{re.escape(CONFIG)}|{MODEL}/.*|{_BY_PRODUCT}")
"""Files of a run in a bucket, without checkpoints. Other files, such as copies that users made, are not downloaded."""
_EARLY_FILE = re.compile(rf"{_BY_PRODUCT}|{re.escape(REPORT)}|{re.escape(lease.LEASE)}")


class RunDirectory:
    """Paths of the files of a run. Nothing is created before `open`.

    If the directory is in a bucket, the paths are those of a temporary local folder, which `open` creates and deletes.

    Args:
        root: Local folder, or `gs://BUCKET/NAME`.

    Attributes:
        lease: Lease of the directory; None for a process that only reads.
    """

    def __init__(self, root: str | os.PathLike[str]):
        self.name = parse_path(root)
        self._remote = locate(root) if is_remote(root) else None
        self._set_root(Path(self.name))
        self._downloaded: dict[str, FileState] = {}
        self._absent: frozenset[str] = frozenset()
        self.lease: Lease | None = None

    @contextlib.contextmanager
    def hold_lease(self, replica: str = "", *, waits: bool = False) -> Iterator[Lease]:
        """Keeps other processes from writing the directory while the context is active. Call it before `open`.

        Args:
            replica: Job, trial and machine on Vertex AI. Its next process takes over the lease at once.
            waits: Whether to wait until another process that writes the directory ends.

        Raises:
            CheckpointError: If the directory cannot be written.
            LeaseError: If another process writes the directory and `waits` is False.
            StorageError: If the bucket cannot be read or written.
        """
        folder, name = self._remote or LocalLocation(self.root), f"job_dir={self.name}"
        advice = "wait until it ends, use another job_dir, or pass --wait_for_lease"
        with lease.hold(folder, name, replica=replica, waits=waits, advice=advice, error=CheckpointError) as self.lease:
            yield self.lease

    @property
    def remote_checkpoints(self) -> Location | None:
        """Folder of the checkpoints in the bucket; None for a local directory."""
        return None if self._remote is None else self._remote / CHECKPOINTS

    @contextlib.contextmanager
    def open(self, only: Container[str] | None = None) -> Iterator["RunDirectory"]:
        """Makes the files of the directory readable while the context is active, except checkpoints in a bucket.

        Args:
            only: Names in the directory to download from a bucket, such as `config.json`; `download` reads others.
                None: all names.

        Raises:
            StorageError: If the bucket cannot be read, or has an unsafe name or a very large config, or if a file or
                folder of a local directory is a link that leads out of it.
        """
        if self._remote is None:
            self._check_links()
            yield self
            return
        with scratch_folder() as scratch:
            self._set_root(path_below(scratch, self._remote.name, self.name))
            entries = [entry for entry in self._remote.entries() if _FILE.fullmatch(entry.name)]
            names = [entry.name for entry in entries if only is None or entry.name in only]
            if any(entry.name == CONFIG and entry.num_bytes > documents.MAX_DOCUMENT_BYTES for entry in entries):
                raise too_large(self._remote / CONFIG, documents.MAX_DOCUMENT_BYTES)
            self._downloaded, self._absent = {}, frozenset(entry.name for entry in entries)
            self.download(self.root / name for name in names)
            yield self

    def download(self, paths: Iterable[Path]) -> None:
        """Downloads files that are in the bucket and not yet here. Other paths, and local directories, need none.

        Args:
            paths: Paths in this directory, whether or not a file exists there.

        Raises:
            StorageError: If the bucket cannot be read, or has an unsafe name.
        """
        names = [path.relative_to(self.root).as_posix() for path in paths]
        names = [name for name in names if name in self._absent]
        if self._remote is None or not names:
            return
        self._remote.download({name: path_below(self.root, name, self._remote) for name in names})
        self._downloaded |= {name: file_state(self.root / name) for name in names}
        self._absent -= set(names)

    def sample_grids(self) -> dict[int, Path]:
        """Returns the sample grids by step, in ascending order, also those that `download` has yet to read."""
        names = [name.removeprefix(f"{SAMPLES}/") for name in self._absent if name.startswith(f"{SAMPLES}/")]
        absent = {int(match[1]): self.samples / name for name in names if (match := _SAMPLE_GRID.fullmatch(name))}
        return dict(sorted((absent | sample_grids(self.samples)).items()))

    @contextlib.contextmanager
    def mirror_changes(self, log_dir: str | None = None) -> Iterator[tuple[Mirror, ...]]:
        """Copies changed files to the bucket while the context is active, and all changes at its end.

        A local directory needs no copy. The config, checkpoints and the model are not copied here: they are not
        by-products, whose errors are only logged.

        Args:
            log_dir: Folder, local or `gs://`, that also receives TensorBoard's event files. None: no other folder.

        Raises:
            ConfigError: If `log_dir` is inside the folder of the event files.
        """
        mirrors = []
        if self._remote is not None:
            without = CONFIG, CHECKPOINTS, MODEL
            slow = LOGS, EVENTS, REPORT
            check = None if self.lease is None else functools.partial(self.lease.verify, lease.BY_PRODUCT_AGE_SECS)
            mirrors.append(
                Mirror(self.root, self._remote, without=without, slow=slow, copied=self._downloaded, check=check)
            )
        target = self._external_folder(self.logs, log_dir)
        if target is not None:
            own_logs = self._permanent_path(self.logs)
            if target.startswith(f"{own_logs}/"):
                raise ConfigError(
                    f"the TensorBoard folder {log_dir} is inside {own_logs}, where the run writes its event files; "
                    "give another folder."
                )
            location = locate(target) if is_remote(target) else AppendOnlyFolder(target)
            mirrors.append(Mirror(self.logs, location, slow=("*",)))
        with contextlib.ExitStack() as stack:
            yield tuple(stack.enter_context(mirror) for mirror in mirrors)

    def create(self) -> None:
        """Creates the folders of the run and of its checkpoints, and deletes what killed processes left there.

        Raises:
            CheckpointError: If the directory cannot be written.
        """
        with explain_unwritable(f"job_dir={self.root}", CheckpointError):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        remove_leftovers(self.root, "|".join(map(re.escape, (CONFIG, METRICS, REPORT, TRACKERS))))
        remove_leftovers(self.samples, f"{_SAMPLE_GRID.pattern}|{re.escape(PROGRESSION)}")
        shutil.rmtree(self._partial_model, ignore_errors=True)

    def write_config(self, content: bytes) -> None:
        """Writes the config, also to the bucket.

        Raises:
            OSError: If the local file cannot be written.
            StorageError: If the bucket cannot be written, or another process has taken over the lease.
        """
        if self.lease is not None:
            self.lease.verify()
        write_atomically(self.config, content)
        if self._remote is not None:
            (self._remote / CONFIG).write_bytes(content)

    def display_path(self, path: Path) -> str:
        """Returns the path under which the user finds a file of this directory."""
        return f"{self.name.rstrip('/')}/{path.relative_to(self.root).as_posix()}"

    def model_destinations(self, model_dir: str | None) -> list[Location]:
        """Returns where the model is copied to: the bucket of the run, and the folder that the job sets for the model.

        Args:
            model_dir: Folder of the job for the model, local or `gs://`; None if there is no such folder.
        """
        target = self._external_folder(self.model, model_dir)
        in_bucket = [] if self._remote is None else [self._remote / MODEL]
        return in_bucket if target is None else [*in_bucket, locate(target)]

    def _external_folder(self, folder: Path, target: str | None) -> str | None:
        """Returns the resolved path of `target`, or None if it is unset or is the folder of this directory itself.

        Args:
            folder: Folder of this directory, such as `logs`.
            target: Folder that a job sets for the same content, a local path or `gs://BUCKET/NAME`.
        """
        if target is None:
            return None
        resolved = str(locate(target)) if is_remote(target) else os.path.realpath(parse_path(target))
        return None if resolved == self._permanent_path(folder) else resolved

    def _permanent_path(self, folder: Path) -> str:
        """Returns the resolved path of a folder of this directory: in the bucket, or on the local disk."""
        return os.path.realpath(folder) if self._remote is None else str(self._remote / folder.name)

    def _check_links(self) -> None:
        """Rejects links that lead out of a local directory: a copied directory could make the run write elsewhere."""
        folders = (self.checkpoints, self.logs, self.samples, self.model, self._partial_model)
        for path in (self.config, self.metrics, self.events, self.report, self.neighbors, self.trackers, *folders):
            if path.is_symlink():
                path_below(self.root, path.name)

    @property
    def _partial_model(self) -> Path:
        """Folder of a model that is being written."""
        return self.model.with_name(f".{self.model.name}.partial")

    def _set_root(self, root: Path) -> None:
        self.root = root
        self.config = root / CONFIG
        self.metrics = root / METRICS
        self.events = root / EVENTS
        self.report = root / REPORT
        self.neighbors = root / NEIGHBORS
        self.trackers = root / TRACKERS
        self.checkpoints = root / CHECKPOINTS
        self.logs = root / LOGS
        self.samples = root / SAMPLES
        self.model = root / MODEL


def missing_run(job_dir: str) -> CheckpointError:
    """Returns the error that a folder has no run. It names a run below if the folder is a study, with one per trial."""
    advice = "pass the directory of a run"
    folder = locate(job_dir)
    if (folder / "1" / CONFIG).exists():
        advice = f"it has trials of a study, so pass the directory of one, such as {job_dir.rstrip('/')}/1"
    return CheckpointError(f"job_dir={job_dir} {state_absence(folder, f'has no run (it has no {CONFIG})')}; {advice}.")


def own_part(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> str | None:
    """Returns the name of the file or folder of a run directory that a path is, or is in; None if there is none.

    Args:
        path: Path to look for, local or in a bucket.
        root: Run directory.
    """
    name = place_of(path).removeprefix(f"{place_of(root)}/").partition("/")[0]
    return name if name in _OWN_NAMES else None


def is_early_file(name: str) -> bool:
    """Returns whether a name in a run directory is that of a file that a run may have written before its config."""
    return _EARLY_FILE.fullmatch(name) is not None


def checkpoint_name(step: int) -> str:
    """Returns the folder name of the checkpoint of a step, such as `step-00001000`."""
    return f"step-{step:08d}"


def checkpoint_step(name: str) -> int | None:
    """Returns the step of a checkpoint's folder name; None for any other name."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else None


def sample_grid_name(step: int) -> str:
    """Returns the file name of the sample grid of a step, such as `step-00001000.png`."""
    return f"step-{step:08d}.png"


def sample_grids(folder: Path) -> dict[int, Path]:
    """Returns the sample grids in a folder by step, in ascending order. Only regular files with exact names count."""
    grids = {}
    with contextlib.suppress(OSError):  # no folder
        for path in folder.iterdir():
            match = _SAMPLE_GRID.fullmatch(path.name)
            if match and stat.S_ISREG(path.lstat().st_mode):
                grids[int(match[1])] = path
    return dict(sorted(grids.items()))


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Reads the scalars of a run.

    Args:
        path: Path of `metrics.jsonl`.

    Returns:
        The readable lines, which have a step, and the number of damaged lines.

    Raises:
        OSError: If the file cannot be read, or is not a regular file.
    """
    return documents.read_json_lines(path, documents.record({"step": documents.whole()}))


def read_events(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Reads the starts and ends of the processes of a run, and other facts about them.

    Args:
        path: Path of `events.jsonl`.

    Returns:
        The readable lines, which have an event and a time, and the number of damaged lines.

    Raises:
        OSError: If the file cannot be read, or is not a regular file.
    """
    schema = documents.record({"event": documents.text(), "time": documents.number})
    return documents.read_json_lines(path, schema)
