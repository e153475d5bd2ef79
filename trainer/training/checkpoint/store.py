"""The checkpoints of a run: written in the background, committed by their manifest, verified before use."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import keras
import tensorflow as tf

from trainer.errors import DIVERGENCE_ADVICE, CheckpointError, DivergenceError, quote
from trainer.storage import Location, local_path
from trainer.storage.run_directory import checkpoint_name, checkpoint_step
from trainer.training.checkpoint import state_file
from trainer.training.checkpoint.manifest import (
    MANIFEST,
    CheckpointManifest,
    NewerFormatError,
    read_manifest,
    verify,
)
from trainer.training.checkpoint.remote_checkpoints import RemoteCheckpoints
from trainer.training.checkpoint.run_history import RunHistory

_PARTIAL = ".", ".partial"
"""Beginning and end of the name of a temporary folder."""


class CheckpointStore:
    """The checkpoints of one run, in `directory/step-00001000/{state.index, state.data-…, MANIFEST.json}`.

    Args:
        directory: Folder of the checkpoints.
        max_to_keep: Number of the newest checkpoints to keep.
        best: Name of a metric. The checkpoint with its smallest value is also kept; None for no such checkpoint.
        fingerprints: Hashes that are written to each manifest, by name. A checkpoint with other ones is skipped. A
            `RunHistory` if they changed during the run.
        remote: Folder in a bucket to which every checkpoint is uploaded, and from which missing ones are downloaded.
        before_publishing: Function that is called in the background before an upload.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_to_keep: int = 3,
        best: str | None = None,
        fingerprints: Mapping[str, str] | RunHistory | None = None,
        remote: Location | None = None,
        before_publishing: Callable[[], None] | None = None,
    ):
        self.directory = local_path(directory)
        self._name = str(self.directory if remote is None else remote)
        self._max_to_keep = max_to_keep
        self._best = best
        if not isinstance(fingerprints, RunHistory):
            fingerprints = RunHistory.start(fingerprints or {})
        self.history = fingerprints
        self._before_publishing = before_publishing or (lambda: None)
        self._remote = None if remote is None else RemoteCheckpoints(remote)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._damaged: set[int] = set()

    def save(
        self,
        state: Mapping[str, keras.Variable],
        step: int,
        metrics: Mapping[str, float] | None = None,
        settings: Mapping[str, str | float] | None = None,
    ) -> None:
        """Takes a snapshot now and commits it in the background.

        Args:
            state: Variables by name.
            step: Number of steps taken.
            metrics: Metrics at this step, by name.
            settings: Settings that the state also contains, as they were before training changed them.

        Raises:
            CheckpointError: If the previous checkpoint could not be written.
            DivergenceError: If the previous checkpoint had values that are not finite, and was not committed.
        """
        self.wait()
        # Reading does not copy: TensorFlow copies a value at its next update if it is still referenced.
        snapshot = state_file.snapshot(state)
        manifest = CheckpointManifest(
            step=step,
            files={},
            state_sha256="",
            fingerprints=self.history.at(step),
            metrics=dict(metrics or {}),
            settings=dict(settings or {}),
            versions={"tensorflow": tf.__version__, "keras": keras.__version__},
        )
        self._pending = self._writer.submit(self._commit, snapshot, manifest)

    def wait(self) -> None:
        """Waits until the last checkpoint is committed.

        Raises:
            CheckpointError: If it could not be written.
            DivergenceError: If it has values that are not finite.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def restore(
        self,
        state: Mapping[str, keras.Variable],
        settings: Mapping[str, str | float] | None = None,
        step: int = 0,
    ) -> CheckpointManifest | None:
        """Assigns the newest valid checkpoint to `state`, and sets `rejected`.

        A setting that has changed since the checkpoint keeps its value. Otherwise its value is restored, because a
        callback may have changed it during training.

        Args:
            state: Variables by name.
            settings: Settings that the state also contains, as they were before training changed them.
            step: Number of steps that `state` has taken. The settings of the same step keep their values.

        Returns:
            The manifest; None if there is no checkpoint.

        Raises:
            CheckpointError: If there are checkpoints but none is valid, or the newest valid one belongs to another
                model.
        """
        manifest, self.rejected = self.find()
        if manifest is None:
            return None
        settings = settings or {}
        state_file.check_same_optimizers(manifest, settings)
        unchanged = set(settings) if step == manifest.step > 0 else self._changed_settings(manifest, settings)
        state_file.load(self.folder(manifest.step), state, unchanged=unchanged)
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
        if manifest is None and problems and step is not None:
            others = ", ".join(str(number) for number in reversed(self.steps()) if number != step) or "none"
            raise CheckpointError(
                f"the checkpoint of step {step} in {self._name} is not valid: {problems[0]}; choose another one: "
                f"{others}."
            )
        if manifest is None and problems:
            raise CheckpointError(
                f"no checkpoint in {self._name} is valid: {'; '.join(problems)}; restore one from a backup, use the "
                "version, settings and data of the run, or use another job_dir."
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

    def _evaluated(self, manifests: Mapping[int, CheckpointManifest | None] | None = None) -> list[tuple[float, int]]:
        """The metric `best` and the step of each evaluated checkpoint."""
        return [
            (manifest.metrics[self._best], step)
            for step, manifest in (self._own_manifests() if manifests is None else manifests).items()
            if manifest is not None and self._best in manifest.metrics and step not in self._damaged
        ]

    def _own_manifests(self) -> dict[int, CheckpointManifest | None]:
        """The manifests of all checkpoints that belong to this run, by step; None for a missing or damaged one."""
        manifests: dict[int, CheckpointManifest | None] = {}
        for step in self.steps():
            if not self._is_folder(step):
                continue
            try:
                manifest = self._manifest(step)
            except NewerFormatError:
                continue
            except (OSError, ValueError):
                manifests[step] = None
                continue
            if not self._problem(step, manifest):
                manifests[step] = manifest
        return manifests

    def _problem(self, step: int, manifest: CheckpointManifest) -> str:
        """The reason why the checkpoint in the folder of `step` does not belong there; an empty string if it does."""
        if manifest.step != step:
            return f"is the checkpoint of step {quote(manifest.step)}"
        return self.history.problem(manifest)

    def _is_folder(self, step: int) -> bool:
        """True if a checkpoint is in a folder of this directory or only in the bucket, and not a file or a link."""
        folder = self.folder(step)
        return not folder.is_symlink() and (folder.is_dir() or not folder.exists())

    def _first(self, steps: Iterable[int]) -> tuple[CheckpointManifest | None, tuple[str, ...]]:
        """The manifest of the first valid checkpoint, and the reasons why earlier ones were skipped."""
        problems: list[str] = []
        for step in steps:
            self._fetch(step)
            name, manifest, problem = self.folder(step).name, None, ""
            if self._is_folder(step):
                manifest, problem = verify(self.folder(step))
                misplaced = "" if manifest is None else self._problem(step, manifest)
                problem = f"{name} {misplaced}" if misplaced else problem
            else:
                problem = f"{name} is a link or a file, not a folder"
            if manifest is not None and not problem:
                return manifest, tuple(problems)
            problems.append(problem)
            self._damaged.add(step)
        return None, tuple(problems)

    def steps(self) -> list[int]:
        """Returns the steps of all checkpoints in ascending order, by the names of their folders."""
        names = {path.name for path in self.directory.glob("step-*")}
        local = {step for name in names if (step := checkpoint_step(name)) is not None}
        return sorted(local if self._remote is None else local | self._remote.steps)

    def folder(self, step: int) -> Path:
        """Returns the local folder of a checkpoint."""
        return self.directory / checkpoint_name(step)

    def _commit(self, snapshot: dict[str, tf.Tensor], manifest: CheckpointManifest) -> None:
        step = manifest.step
        broken = state_file.first_not_finite(snapshot)
        if broken is not None:
            raise DivergenceError(
                f"{broken} is not finite at step {step}; this checkpoint was not written, earlier ones remain: "
                f"{DIVERGENCE_ADVICE}."
            )
        temporary = self._temporary(step)
        try:
            self._remove_leftovers()
            temporary.mkdir(parents=True)
            state_file.write(temporary, snapshot, manifest)
            _remove(self.folder(step))
            os.rename(temporary, self.folder(step))
            state_file.sync(self.directory)
            self._damaged.discard(step)
            if self._remote is not None:
                self._before_publishing()
                self._remote.publish(self.folder(step), step)
            self._retain(step)
        except (OSError, tf.errors.OpError) as error:
            with contextlib.suppress(OSError):
                _remove(temporary)
            reason = getattr(error, "strerror", None) or _reason(error)
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be written to {self.directory} ({reason}); earlier ones remain. "
                "Free space or use another job_dir."
            ) from error

    def _retain(self, newest: int) -> None:
        """Deletes checkpoints of this run that are neither among the newest nor the best, each manifest first.

        Its checkpoints newer than `newest` are damaged, because training resumed from an older one. What does not
        belong to the run stays: links, and checkpoints of other runs.
        """
        manifests = self._own_manifests()
        to_keep = {number for number in manifests if number <= newest}
        to_keep = {
            *sorted(to_keep)[-self._max_to_keep :],
            *(number for _, number in sorted(self._evaluated(manifests))[:1]),
        }
        for number in set(manifests) - to_keep:
            if self._remote is not None:
                self._remote.delete(number)
            (self.folder(number) / MANIFEST).unlink(missing_ok=True)
            _remove(self.folder(number))

    def _fetch(self, step: int) -> None:
        """Downloads a checkpoint that exists only in the bucket."""
        if self._remote is None or self.folder(step).exists():
            return
        temporary = self._temporary(step)
        _remove(temporary)
        self._remote.fetch(step, temporary)
        os.rename(temporary, self.folder(step))

    def _remove_leftovers(self) -> None:
        """Deletes temporary folders of interrupted commits."""
        for path in self.directory.glob(f"{_PARTIAL[0]}*{_PARTIAL[1]}"):
            if checkpoint_step(path.name.removeprefix(_PARTIAL[0]).removesuffix(_PARTIAL[1])) is not None:
                _remove(path)

    def _temporary(self, step: int) -> Path:
        return self.directory / f"{_PARTIAL[0]}{checkpoint_name(step)}{_PARTIAL[1]}"

    def _manifest(self, step: int) -> CheckpointManifest:
        if self._remote is not None and not self.folder(step).exists():
            return CheckpointManifest.from_bytes(self._remote.manifest(step), self.folder(step) / MANIFEST)
        return read_manifest(self.folder(step))

    def _changed_settings(self, manifest: CheckpointManifest, settings: Mapping[str, str | float]) -> set[str]:
        """The names of settings that have changed since a checkpoint.

        Manifests of earlier versions have no settings. Then all count as changed if the fingerprints have changed.
        """
        current = self.history.after(manifest.step)
        if not manifest.settings and any(
            current.get(name, value) != value for name, value in manifest.fingerprints.items()
        ):
            return set(settings)
        return {name for name, value in settings.items() if manifest.settings.get(name, value) != value}


def _remove(path: Path) -> None:
    """Deletes a folder, a file, or a link but not its target, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """Returns the reason at the end of a TensorFlow error, without the place in its code and the file."""
    return str(error).splitlines()[0].rpartition("; ")[2].partition(" [Op:")[0]
