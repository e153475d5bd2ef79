"""Checkpoints that are committed by their manifest: written in the background, verified before they are trusted."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from trainer.errors import CheckpointError, DivergenceError
from trainer.storage import Location, file_sha256, local_path, path_below
from trainer.training.checkpoint.manifest import MANIFEST, CheckpointManifest, state_sha256, step_of, verify
from trainer.training.checkpoint.remote_checkpoints import RemoteCheckpoints


class CheckpointStore:
    """The checkpoints of one run, in `directory/step-00001000/{state.index, state.data-…, MANIFEST.json}`.

    Args:
        directory: Their folder.
        max_to_keep: How many of the newest to keep.
        best: Name of the metric whose smallest value marks a checkpoint that is kept as well; None: none is.
        fingerprints: Written to each manifest and compared on restore.
        remote: A folder in a bucket where every checkpoint is published as well, its manifest last; those that are not
            on this machine are fetched from it.
        before_publishing: Called in the background before a checkpoint is published.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_to_keep: int = 3,
        best: str | None = None,
        fingerprints: Mapping[str, str] | None = None,
        remote: Location | None = None,
        before_publishing: Callable[[], None] | None = None,
    ):
        self.directory = local_path(directory)
        self._max_to_keep = max_to_keep
        self._best = best
        self._fingerprints = dict(fingerprints or {})
        self._before_publishing = before_publishing or (lambda: None)
        self._published = None if remote is None else RemoteCheckpoints(remote)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._damaged: set[int] = set()

    def save(self, state: Mapping[str, keras.Variable], step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Takes a snapshot now and commits it in the background; an error of the one before surfaces here.

        Raises:
            CheckpointError: The checkpoint before could not be written.
            DivergenceError: The checkpoint before held values that are not finite, and was not committed.
        """
        self.wait()
        # Reading makes no copy: the next update of a variable that is still held makes one.
        snapshot = {name: _read(variable) for name, variable in state.items()}
        self._pending = self._writer.submit(self._commit, snapshot, step, dict(metrics or {}))

    def wait(self) -> None:
        """Returns when nothing is being written.

        Raises:
            CheckpointError: It could not be written.
            DivergenceError: It held values that are not finite.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def restore(self, state: Mapping[str, keras.Variable]) -> CheckpointManifest | None:
        """Assigns the newest checkpoint that verifies, and reports those that did not as `rejected`.

        Returns:
            Its manifest; None where there is no checkpoint at all.

        Raises:
            CheckpointError: There are checkpoints and none verifies, or the newest belongs to another config, data
                set or model.
        """
        manifest, self.rejected = self.find()
        if manifest is None:
            return None
        self._check_fingerprints(manifest)
        load(self.folder(manifest.step), state)
        return manifest

    rejected: tuple[str, ...] = ()
    """What was wrong with each newer checkpoint that `restore` passed over, a sentence each."""

    def find(self, step: int | None = None) -> tuple[CheckpointManifest | None, tuple[str, ...]]:
        """The newest checkpoint that verifies (or the one of `step`), and what was wrong with newer ones.

        Raises:
            CheckpointError: There are checkpoints and none verifies.
        """
        manifest, problems = self._first(number for number in reversed(self.steps()) if step in (None, number))
        if manifest is None and problems:
            raise CheckpointError(
                f"no checkpoint in {self.directory} can be trusted: {'; '.join(problems)}; restore one from a copy, "
                "or start in another job_dir."
            )
        return manifest, problems

    def find_best(self) -> tuple[CheckpointManifest | None, tuple[str, ...]]:
        """The checkpoint with the smallest value of the best-metric that verifies, and what was wrong with better ones.

        None where none was evaluated, or none of those verifies.
        """
        return self._first(number for _, number in sorted(self._evaluated()))

    def best(self) -> int | None:
        """Step of the checkpoint with the smallest value of the best-metric; None where none was evaluated.

        Only manifests are read. A checkpoint that was found to be damaged before is left out.
        """
        found = self._evaluated()
        return min(found)[1] if found else None

    def best_value(self) -> float:
        """The smallest value of the best-metric; infinity where none was evaluated."""
        return min(self._evaluated(), default=(float("inf"), 0))[0]

    def _evaluated(self) -> list[tuple[float, int]]:
        found: list[tuple[float, int]] = []
        for number in set(self.steps()) - self._damaged:
            with contextlib.suppress(OSError, ValueError):
                metrics = self._manifest(number).metrics
                if self._best in metrics:
                    found.append((metrics[self._best], number))
        return found

    def _first(self, steps: Iterable[int]) -> tuple[CheckpointManifest | None, tuple[str, ...]]:
        """The first checkpoint that verifies, and what was wrong with those before it."""
        problems: list[str] = []
        for number in steps:
            self._fetch(number)
            manifest, problem = verify(self.folder(number))
            if manifest is not None and manifest.step == number:
                return manifest, tuple(problems)
            problems.append(problem or f"{self.folder(number).name}/{MANIFEST} is that of another step")
            self._damaged.add(number)
        return None, tuple(problems)

    def steps(self) -> list[int]:
        """Steps of all checkpoints, ascending; a folder appears whole or not at all.

        Raises:
            CheckpointError: A folder is a link that leads out of the directory.
        """
        found = {path: step_of(path.name) for path in self.directory.glob("step-*")}
        here = {step for step in found.values() if step is not None}
        for path, step in found.items():
            if step is not None and path.is_symlink():
                path_below(self.directory, path.name, error=CheckpointError)
        return sorted(here if self._published is None else here | self._published.steps)

    def folder(self, step: int) -> Path:
        """The folder of a checkpoint."""
        return self.directory / f"step-{step:08d}"

    def _commit(self, snapshot: dict[str, tf.Tensor], step: int, metrics: dict[str, float]) -> None:
        broken = next((name for name, value in snapshot.items() if not _is_finite(value)), None)
        if broken is not None:
            raise DivergenceError(
                f"{broken} is not finite at step {step}; the checkpoint was not written and the one before stands: "
                "lower the learning rates or choose another loss."
            )
        temporary = self.directory / f".step-{step:08d}.partial"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            self._write(temporary, snapshot, step, metrics)
            shutil.rmtree(self.folder(step), ignore_errors=True)
            os.rename(temporary, self.folder(step))
            _sync(self.directory)
            self._damaged.discard(step)
            if self._published is not None:
                self._before_publishing()
                self._published.publish(self.folder(step), step)
            self._retain(step)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            reason = getattr(error, "strerror", None) or _reason(error)
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be written to {self.directory} ({reason}); the one before "
                "stands: free space or give another job_dir."
            ) from error

    def _write(self, folder: Path, snapshot: dict[str, tf.Tensor], step: int, metrics: dict[str, float]) -> None:
        with tf.device("CPU:0"):
            tf.raw_ops.SaveV2(
                prefix=str(folder / "state"),
                tensor_names=list(snapshot),
                shape_and_slices=[""] * len(snapshot),
                tensors=list(snapshot.values()),
            )
        written = sorted(folder.iterdir())
        manifest = CheckpointManifest(
            step=step,
            files={path.name: {"num_bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in written},
            state_sha256=state_sha256({name: value.numpy() for name, value in snapshot.items()}),
            fingerprints=self._fingerprints,
            metrics=metrics,
            versions={"tensorflow": tf.__version__, "keras": keras.__version__},
        )
        (folder / MANIFEST).write_bytes(manifest.to_bytes())
        for path in (*written, folder / MANIFEST, folder):
            _sync(path)

    def _retain(self, newest: int) -> None:
        """Deletes what is neither among the newest nor the best, each manifest first.

        What is newer than the one just committed is damaged: training went on from an older one.
        """
        steps = self.steps()
        kept = {*[number for number in steps if number <= newest][-self._max_to_keep :], self.best()}
        for number in set(steps) - kept:
            if self._published is not None:
                self._published.delete(number)
            (self.folder(number) / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(self.folder(number), ignore_errors=True)

    def _fetch(self, step: int) -> None:
        """Brings a checkpoint to this machine, where it is in the bucket alone."""
        if self._published is None or self.folder(step).exists():
            return
        temporary = self.directory / f".step-{step:08d}.partial"
        shutil.rmtree(temporary, ignore_errors=True)
        self._published.fetch(step, temporary)
        os.rename(temporary, self.folder(step))

    def _manifest(self, step: int) -> CheckpointManifest:
        here = self.folder(step) / MANIFEST
        if self._published is not None and not here.exists():
            return CheckpointManifest.from_bytes(self._published.manifest(step), here)
        return CheckpointManifest.from_bytes(here.read_bytes(), here)

    def _check_fingerprints(self, manifest: CheckpointManifest) -> None:
        for what, value in self._fingerprints.items():
            if manifest.fingerprints.get(what, value) != value:
                raise CheckpointError(
                    f"the checkpoint of step {manifest.step} in {self.directory} was made with another {what}; "
                    f"use the same {what} again, or another job_dir."
                )


def load(folder: Path, state: Mapping[str, keras.Variable]) -> None:
    """Assigns the tensors of a verified checkpoint to `state`.

    Raises:
        CheckpointError: A name, type or shape differs; the message names the first one.
    """
    reader = tf.train.load_checkpoint(str(folder / "state"))
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    for name, variable in state.items():
        found = (tuple(shapes[name]), types[name].name) if name in shapes else "nothing"
        expected = (tuple(variable.shape), tf.as_dtype(variable.dtype).name)
        if found != expected:
            raise CheckpointError(
                f"{folder.name} holds {found} for {name} where this model has {expected}; the networks have changed "
                "since, so start in another job_dir."
            )
    for name, variable in state.items():
        variable.assign(reader.get_tensor(name))


def _read(variable: keras.Variable) -> tf.Tensor:
    held = variable.value
    if hasattr(held, "values"):  # mirrored: every replica holds the same
        held = held.values[0]
    return held.read_value()


def _is_finite(value: tf.Tensor) -> bool:
    return not value.dtype.is_floating or bool(np.isfinite(value.numpy()).all())


def _reason(error: Exception) -> str:
    """What TensorFlow says at the end of the line, after the place in its code and the file."""
    return str(error).splitlines()[0].rpartition("; ")[2].partition(" [Op:")[0]


def _sync(path: Path) -> None:
    with _opened(path) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
