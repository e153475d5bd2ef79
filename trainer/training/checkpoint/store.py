"""The checkpoints of a run: written in the background, committed by their manifest, verified before use."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import keras
import tensorflow as tf

from trainer.errors import CheckpointError
from trainer.storage import Location, write_atomically
from trainer.storage.run_directory import checkpoint_step
from trainer.training.checkpoint import state_file
from trainer.training.checkpoint.committed import PARTIAL, CommittedCheckpoints, remove
from trainer.training.checkpoint.manifest import MANIFEST, CheckpointManifest, read_manifest
from trainer.training.checkpoint.run_history import RunHistory


class CheckpointStore(CommittedCheckpoints):
    """The checkpoints of one run, which it writes and restores.

    Args:
        directory: Folder of the checkpoints.
        every_steps: Steps between two regular checkpoints, to which a run may roll back; 0 for none.
        max_to_keep: Number of the newest checkpoints to keep.
        best: Name of a metric. The checkpoint with its smallest value is also kept; None for no such checkpoint.
        history: Fingerprints of the run, which are written to each manifest. A checkpoint with other ones is skipped.
            None: they are unknown.
        remote: Folder in a bucket to which every checkpoint is uploaded, and from which missing ones are downloaded.
        before_publishing: Function that is called in the background before an upload.
        verify_lease: Function that is called before checkpoints are written, committed or deleted. An exception, such
            as `LeaseError`, prevents it.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        every_steps: int = 0,
        max_to_keep: int = 3,
        best: str | None = None,
        history: RunHistory | None = None,
        remote: Location | None = None,
        before_publishing: Callable[[], None] | None = None,
        verify_lease: Callable[[], None] | None = None,
    ):
        super().__init__(directory, best=best, history=history, remote=remote)
        self._every_steps, self._max_to_keep = every_steps, max_to_keep
        self._before_publishing = before_publishing or (lambda: None)
        self._verify_lease = verify_lease or (lambda: None)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._is_clean = False

    def save(
        self,
        state: Mapping[str, keras.Variable],
        step: int,
        metrics: Mapping[str, float] | None = None,
        settings: Mapping[str, str | float] | None = None,
        callbacks: Mapping[str, dict[str, float]] | None = None,
        last_applied_step: int | None = None,
    ) -> None:
        """Takes a snapshot now and commits it in the background.

        Args:
            state: Variables by name.
            step: Number of steps taken.
            metrics: Metrics at this step, by name.
            settings: Settings that the state also contains, as they were before training changed them.
            callbacks: Numbers that callbacks continue from, by callback and name.
            last_applied_step: Last step before consecutive skipped steps, up to which a regular checkpoint is kept;
                None for `step`.

        Raises:
            CheckpointError: If the previous checkpoint could not be written.
            DivergenceError: If the state has values that are not finite.
        """
        self.wait()
        # Reading does not copy: TensorFlow copies a value at its next update if it is still referenced.
        snapshot = state_file.snapshot(state)
        state_file.check_finite(snapshot, step)
        manifest = CheckpointManifest(
            step=step,
            files={},
            state_sha256="",
            fingerprints=self.history.at(step),
            metrics=dict(metrics or {}),
            settings=dict(settings or {}),
            callbacks=dict(callbacks or {}),
            versions={"tensorflow": tf.__version__, "keras": keras.__version__},
        )
        last_applied_step = step if last_applied_step is None else last_applied_step
        self._pending = self._writer.submit(self._commit, snapshot, manifest, last_applied_step)

    def amend(
        self, step: int, metrics: Mapping[str, float], callbacks: Mapping[str, dict[str, float]], last_applied_step: int
    ) -> None:
        """Replaces metrics and states of callbacks in the checkpoint of `step`, which is valid all the time.

        Args:
            step: Step of the newest checkpoint.
            metrics: As in `save`.
            callbacks: As in `save`.
            last_applied_step: As in `save`.

        Raises:
            CheckpointError: If the previous checkpoint, or this change, could not be written.
        """
        self.wait()
        path = self.folder(step) / MANIFEST
        with self._errors_of(step):
            manifest = dataclasses.replace(read_manifest(path.parent), metrics=dict(metrics), callbacks=dict(callbacks))
            self._verify_lease()
            if self._remote is not None:
                self._before_publishing()
                self._remote.replace_manifest(step, manifest.to_bytes())
            write_atomically(path, manifest.to_bytes())  # last: until then, a resumed run makes the change again
            self._retain(step, last_applied_step)

    def wait(self) -> None:
        """Waits until the last checkpoint is committed.

        Raises:
            CheckpointError: If it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def has_leftovers(self, newest: int, last_applied_step: int) -> bool:
        """Returns whether a process was killed after it committed the newest checkpoint and before it deleted others.

        Args:
            newest: Step of the newest checkpoint.
            last_applied_step: As in `save`.
        """
        has_files = any(self._temporary_folders()) if self._remote is None else self._remote.has_leftovers
        return has_files or bool(self._superfluous(newest, last_applied_step))

    def clean(self, newest: int, last_applied_step: int) -> None:
        """Deletes what a killed process has left, unless this process has committed a checkpoint. Call `wait` first.

        Args:
            newest: Step of the newest checkpoint.
            last_applied_step: As in `save`.

        Raises:
            LeaseError: If another process writes the run directory.
            StorageError: If files in a bucket cannot be deleted.
        """
        if self._is_clean:
            return
        self._verify_lease()
        self._remove_temporary_folders()
        if self._remote is not None:
            self._remote.remove_leftovers()
        self._retain(newest, last_applied_step)

    def restore(
        self,
        state: Mapping[str, keras.Variable],
        settings: Mapping[str, str | float] | None = None,
        step: int = 0,
    ) -> CheckpointManifest | None:
        """Waits until the last checkpoint is committed, assigns the newest valid one to `state`, and sets `rejected`.

        A setting that has changed since the checkpoint keeps its value. Otherwise its value is restored, because a
        callback may have changed it during training.

        Args:
            state: Variables by name.
            settings: Settings that the state also contains, as they were before training changed them.
            step: Number of steps that `state` has taken. The settings of the same step keep their values.

        Returns:
            The manifest; None if there is no checkpoint.

        Raises:
            CheckpointError: If there are checkpoints but none is valid, the newest valid one belongs to another model,
                or the last checkpoint could not be written.
        """
        self.wait()
        manifest, self.rejected = self.find()
        if manifest is None:
            return None
        settings = settings or {}
        state_file.check_same_optimizers(manifest, settings)
        unchanged = set(settings) if step == manifest.step > 0 else self.history.changed_settings(manifest, settings)
        state_file.load(self.folder(manifest.step), state, unchanged=unchanged)
        return manifest

    rejected: tuple[str, ...] = ()
    """The reasons why newer checkpoints were skipped."""

    def find_rollback_step(self, last: int) -> int:
        """Waits until the last checkpoint is committed, and finds the one to which the run rolls back.

        Args:
            last: Number of steps before the consecutive skipped steps.

        Returns:
            Step of the newest valid regular checkpoint up to `last` with the current settings; 0 if there is none.
        """
        self.wait()
        steps = [step for step in self._regular(self.steps(), last) if step >= self.history.first_step]
        manifest, self.rejected = self._first(reversed(steps))
        return 0 if manifest is None else manifest.step

    def roll_back(
        self,
        step: int,
        state: Mapping[str, keras.Variable],
        settings: Mapping[str, str | float],
        *,
        reads_only: bool = False,
    ) -> CheckpointManifest:
        """Assigns the checkpoint of `step` to `state`, and deletes the later checkpoints of this run.

        Args:
            step: Step that `find_rollback_step` has returned, on this or another machine.
            state: Variables by name.
            settings: Settings that the state also contains, as they were before training changed them.
            reads_only: Whether another machine writes the checkpoints. It deletes those in the bucket; copies on this
                machine are deleted here.

        Returns:
            The manifest of the checkpoint.

        Raises:
            CheckpointError: If the checkpoint is not valid on this machine.
        """
        manifest, problems = self._first([step])
        if manifest is None:
            raise CheckpointError(
                f"the run cannot return to the checkpoint of step {step}, because {problems[0]}; start it again."
            )
        state_file.load(self.folder(step), state)
        for name in self.history.changed_settings(manifest, settings) & set(state):
            state[name].assign(settings[name])
        if not reads_only:
            self._verify_lease()
        steps = self._local_steps() if reads_only else self.steps()
        for number in self._own_manifests(number for number in steps if number > step):
            self._delete(number, in_bucket=not reads_only)
        return manifest

    def _commit(self, snapshot: dict[str, tf.Tensor], manifest: CheckpointManifest, last_applied_step: int) -> None:
        step = manifest.step
        temporary = self._temporary(step)
        with self._errors_of(step):
            self._verify_lease()
            self._remove_temporary_folders()
            temporary.mkdir(parents=True)
            state_file.write(temporary, snapshot, manifest)
            if self._remote is None:
                self._verify_lease()
            remove(self.folder(step))
            os.rename(temporary, self.folder(step))
            state_file.sync(self.directory)
            self._damaged.discard(step)
            if self._remote is not None:
                self._before_publishing()
                self._remote.publish(self.folder(step), step, self._verify_lease)
            self._retain(step, last_applied_step)

    @contextlib.contextmanager
    def _errors_of(self, step: int) -> Iterator[None]:
        """Turns errors of the disk while the checkpoint of `step` is written into a `CheckpointError`."""
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            with contextlib.suppress(OSError):
                remove(self._temporary(step))
            reason = getattr(error, "strerror", None) or _reason(error)
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be written to {self.directory} ({reason}); earlier ones remain. "
                "Free space or use another job_dir."
            ) from error

    def _retain(self, newest: int, last_applied_step: int) -> None:
        """Deletes the superfluous checkpoints of this run."""
        for number in self._superfluous(newest, last_applied_step):
            self._delete(number)
        self._is_clean = True

    def _superfluous(self, newest: int, last_applied_step: int) -> set[int]:
        """Returns the steps of all checkpoints but the newest ones, the best one, and those for rollbacks.

        A rollback must not depend on when SIGTERM has added checkpoints. Therefore the last regular checkpoint stays,
        also the last one before consecutive skipped steps.

        Newer ones are superfluous if they were damaged. What does not belong to the run stays: links, and checkpoints
        of other runs.
        """
        manifests = self._own_manifests(self.steps())
        return set(manifests) - {
            *(number for number in manifests if number > newest and number not in self._damaged),
            *sorted(number for number in manifests if number <= newest)[-self._max_to_keep :],
            *(number for _, number in sorted(self._evaluated(manifests))[:1]),
            *(max(self._regular(manifests, last), default=newest) for last in (last_applied_step, newest)),
        }

    def _regular(self, steps: Iterable[int], last: int) -> list[int]:
        """The steps up to `last` of regular checkpoints, which do not depend on when a run is interrupted."""
        return [step for step in steps if self._every_steps and step % self._every_steps == 0 and step <= last]

    def _delete(self, step: int, *, in_bucket: bool = True) -> None:
        """Deletes a checkpoint, its manifest first."""
        if self._remote is not None and in_bucket:
            self._remote.delete(step)
        (self.folder(step) / MANIFEST).unlink(missing_ok=True)
        remove(self.folder(step))

    def _remove_temporary_folders(self) -> None:
        """Deletes temporary folders of interrupted commits."""
        for path in self._temporary_folders():
            remove(path)

    def _temporary_folders(self) -> Iterator[Path]:
        for path in self.directory.glob(f"{PARTIAL[0]}*{PARTIAL[1]}"):
            if checkpoint_step(path.name.removeprefix(PARTIAL[0]).removesuffix(PARTIAL[1])) is not None:
                yield path


def _reason(error: Exception) -> str:
    """Returns the reason at the end of a TensorFlow error, without the place in its code and the file."""
    return str(error).splitlines()[0].rpartition("; ")[2].partition(" [Op:")[0]
