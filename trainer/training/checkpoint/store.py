"""The checkpoints of a run: written in the background, committed by their manifest, verified before use."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from trainer.errors import DIVERGENCE_ADVICE, CheckpointError, DivergenceError
from trainer.storage import Location, file_sha256, local_path, path_below
from trainer.storage.run_directory import checkpoint_name, checkpoint_step
from trainer.training.checkpoint.manifest import MANIFEST, CheckpointManifest, state_sha256, verify
from trainer.training.checkpoint.remote_checkpoints import RemoteCheckpoints


class CheckpointStore:
    """The checkpoints of one run, in `directory/step-00001000/{state.index, state.data-…, MANIFEST.json}`.

    Args:
        directory: Folder of the checkpoints.
        max_to_keep: Number of the newest checkpoints to keep.
        best: Name of a metric. The checkpoint with its smallest value is also kept; None for no such checkpoint.
        fingerprints: Hashes that are written to each manifest and compared on restore.
        remote: Folder in a bucket to which every checkpoint is uploaded, and from which missing ones are downloaded.
        before_publishing: Function that is called in the background before an upload.
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
        self._remote = None if remote is None else RemoteCheckpoints(remote)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._damaged: set[int] = set()

    def save(self, state: Mapping[str, keras.Variable], step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Takes a snapshot now and commits it in the background.

        Raises:
            CheckpointError: If the previous checkpoint could not be written.
            DivergenceError: If the previous checkpoint had values that are not finite, and was not committed.
        """
        self.wait()
        # Reading does not copy: TensorFlow copies a value at its next update if it is still referenced.
        snapshot = {name: _read(variable) for name, variable in state.items()}
        self._pending = self._writer.submit(self._commit, snapshot, step, dict(metrics or {}))

    def wait(self) -> None:
        """Waits until the last checkpoint is committed.

        Raises:
            CheckpointError: If it could not be written.
            DivergenceError: If it has values that are not finite.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def restore(self, state: Mapping[str, keras.Variable]) -> CheckpointManifest | None:
        """Assigns the newest valid checkpoint to `state`, and sets `rejected`.

        Returns:
            The manifest; None if there is no checkpoint.

        Raises:
            CheckpointError: If there are checkpoints but none is valid, or the newest valid one belongs to another
                config, data set or model.
        """
        manifest, self.rejected = self.find()
        if manifest is None:
            return None
        self._check_fingerprints(manifest)
        load(self.folder(manifest.step), state)
        return manifest

    rejected: tuple[str, ...] = ()
    """The reasons why `restore` skipped newer checkpoints."""

    def find(self, step: int | None = None) -> tuple[CheckpointManifest | None, tuple[str, ...]]:
        """Finds the newest valid checkpoint, or the one of `step`.

        Returns:
            Its manifest, or None if there is no checkpoint; and the reasons why newer ones were skipped.

        Raises:
            CheckpointError: If there are checkpoints but none is valid.
        """
        manifest, problems = self._first(number for number in reversed(self.steps()) if step in (None, number))
        if manifest is None and problems:
            raise CheckpointError(
                f"no checkpoint in {self.directory} is valid: {'; '.join(problems)}; restore one from a backup, or use "
                "another job_dir."
            )
        return manifest, problems

    def find_best(self) -> tuple[CheckpointManifest | None, tuple[str, ...]]:
        """Finds the valid checkpoint with the smallest value of the metric `best`.

        Returns:
            Its manifest, or None if no valid checkpoint was evaluated; and the reasons why better ones were skipped.
        """
        return self._first(number for _, number in sorted(self._evaluated()))

    def best(self) -> int | None:
        """Returns the step of the checkpoint with the smallest value of the metric `best`, or None.

        It reads manifests only. Checkpoints that are known to be damaged do not count.
        """
        evaluated = self._evaluated()
        return min(evaluated)[1] if evaluated else None

    def best_value(self) -> float:
        """Returns the smallest value of the metric `best`; infinity if no checkpoint was evaluated."""
        return min(self._evaluated(), default=(float("inf"), 0))[0]

    def _evaluated(self) -> list[tuple[float, int]]:
        """The metric `best` and the step of each evaluated checkpoint."""
        evaluated: list[tuple[float, int]] = []
        for number in set(self.steps()) - self._damaged:
            with contextlib.suppress(OSError, ValueError):
                metrics = self._manifest(number).metrics
                if self._best in metrics:
                    evaluated.append((metrics[self._best], number))
        return evaluated

    def _first(self, steps: Iterable[int]) -> tuple[CheckpointManifest | None, tuple[str, ...]]:
        """The manifest of the first valid checkpoint, and the reasons why earlier ones were skipped."""
        problems: list[str] = []
        for number in steps:
            self._fetch(number)
            manifest, problem = verify(self.folder(number))
            if manifest is not None and manifest.step == number:
                return manifest, tuple(problems)
            problems.append(problem or f"{self.folder(number).name}/{MANIFEST} belongs to another step")
            self._damaged.add(number)
        return None, tuple(problems)

    def steps(self) -> list[int]:
        """Returns the steps of all checkpoints in ascending order.

        Raises:
            CheckpointError: If a folder is a link out of the directory.
        """
        folders = {path: checkpoint_step(path.name) for path in self.directory.glob("step-*")}
        local = {step for step in folders.values() if step is not None}
        for path, step in folders.items():
            if step is not None and path.is_symlink():
                path_below(self.directory, path.name, error=CheckpointError)
        return sorted(local if self._remote is None else local | self._remote.steps)

    def folder(self, step: int) -> Path:
        """Returns the local folder of a checkpoint."""
        return self.directory / checkpoint_name(step)

    def _commit(self, snapshot: dict[str, tf.Tensor], step: int, metrics: dict[str, float]) -> None:
        broken = next((name for name, value in snapshot.items() if not _is_finite(value)), None)
        if broken is not None:
            raise DivergenceError(
                f"{broken} is not finite at step {step}; this checkpoint was not written, earlier ones remain: "
                f"{DIVERGENCE_ADVICE}."
            )
        temporary = self.directory / f".{checkpoint_name(step)}.partial"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            self._write(temporary, snapshot, step, metrics)
            shutil.rmtree(self.folder(step), ignore_errors=True)
            os.rename(temporary, self.folder(step))
            _sync(self.directory)
            self._damaged.discard(step)
            if self._remote is not None:
                self._before_publishing()
                self._remote.publish(self.folder(step), step)
            self._retain(step)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            reason = getattr(error, "strerror", None) or _reason(error)
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be written to {self.directory} ({reason}); earlier ones remain. "
                "Free space or use another job_dir."
            ) from error

    def _write(self, folder: Path, snapshot: dict[str, tf.Tensor], step: int, metrics: dict[str, float]) -> None:
        with tf.device("CPU:0"):
            tf.raw_ops.SaveV2(
                prefix=str(folder / "state"),
                tensor_names=list(snapshot),
                shape_and_slices=[""] * len(snapshot),
                tensors=list(snapshot.values()),
            )
        paths = sorted(folder.iterdir())
        manifest = CheckpointManifest(
            step=step,
            files={path.name: {"num_bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in paths},
            state_sha256=state_sha256({name: value.numpy() for name, value in snapshot.items()}),
            fingerprints=self._fingerprints,
            metrics=metrics,
            versions={"tensorflow": tf.__version__, "keras": keras.__version__},
        )
        (folder / MANIFEST).write_bytes(manifest.to_bytes())
        for path in (*paths, folder / MANIFEST, folder):
            _sync(path)

    def _retain(self, newest: int) -> None:
        """Deletes checkpoints that are neither among the newest nor the best, each manifest first.

        Checkpoints newer than `newest` are damaged, because training resumed from an older one.
        """
        steps = self.steps()
        to_keep = {*[number for number in steps if number <= newest][-self._max_to_keep :], self.best()}
        for number in set(steps) - to_keep:
            if self._remote is not None:
                self._remote.delete(number)
            (self.folder(number) / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(self.folder(number), ignore_errors=True)

    def _fetch(self, step: int) -> None:
        """Downloads a checkpoint that exists only in the bucket."""
        if self._remote is None or self.folder(step).exists():
            return
        temporary = self.directory / f".{checkpoint_name(step)}.partial"
        shutil.rmtree(temporary, ignore_errors=True)
        self._remote.fetch(step, temporary)
        os.rename(temporary, self.folder(step))

    def _manifest(self, step: int) -> CheckpointManifest:
        path = self.folder(step) / MANIFEST
        if self._remote is not None and not path.exists():
            return CheckpointManifest.from_bytes(self._remote.manifest(step), path)
        return CheckpointManifest.from_bytes(path.read_bytes(), path)

    def _check_fingerprints(self, manifest: CheckpointManifest) -> None:
        for name, value in self._fingerprints.items():
            if manifest.fingerprints.get(name, value) != value:
                raise CheckpointError(
                    f"the checkpoint of step {manifest.step} in {self.directory} was made with another {name}; use "
                    f"the same {name}, or another job_dir."
                )


def load(folder: Path, state: Mapping[str, keras.Variable]) -> None:
    """Assigns the tensors of a verified checkpoint to `state`.

    Raises:
        CheckpointError: If a name, type or shape differs; the message names the first one.
    """
    reader = tf.train.load_checkpoint(str(folder / "state"))
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    for name, variable in state.items():
        stored = (tuple(shapes[name]), types[name].name) if name in shapes else "nothing"
        expected = (tuple(variable.shape), tf.as_dtype(variable.dtype).name)
        if stored != expected:
            raise CheckpointError(
                f"{folder.name} has {stored} for {name}, but this model has {expected}; the networks have changed, so "
                "use another job_dir."
            )
    for name, variable in state.items():
        variable.assign(reader.get_tensor(name))


def _read(variable: keras.Variable) -> tf.Tensor:
    value = variable.value
    if hasattr(value, "values"):  # a mirrored variable, equal on all replicas
        value = value.values[0]
    return value.read_value()


def _is_finite(value: tf.Tensor) -> bool:
    return not value.dtype.is_floating or bool(np.isfinite(value.numpy()).all())


def _reason(error: Exception) -> str:
    """Returns the reason at the end of a TensorFlow error, without the place in its code and the file."""
    return str(error).splitlines()[0].rpartition("; ")[2].partition(" [Op:")[0]


def _sync(path: Path) -> None:
    with _open_descriptor(path) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _open_descriptor(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
