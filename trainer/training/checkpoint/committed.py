"""The committed checkpoints of a run, on this machine and in a bucket: which there are, and which are valid."""

import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from trainer.errors import CheckpointError, MissingError, quote
from trainer.storage import Location, local_path
from trainer.storage.run_directory import checkpoint_name, checkpoint_step
from trainer.training.checkpoint.manifest import (
    MANIFEST,
    CheckpointManifest,
    NewerFormatError,
    read_manifest,
    verify,
)
from trainer.training.checkpoint.remote_checkpoints import RemoteCheckpoints
from trainer.training.checkpoint.run_history import RunHistory

PARTIAL = ".", ".partial"
"""Beginning and end of the name of a temporary folder."""


class CommittedCheckpoints:
    """The checkpoints of one run, in `directory/step-00001000/{state.index, state.data-…, MANIFEST.json}`.

    Args:
        directory: Folder of the checkpoints.
        best: Name of a metric, whose smallest value is the best; None for no metric.
        history: Fingerprints of the run. A checkpoint with other ones is skipped. None: they are unknown.
        remote: Folder in a bucket from which missing checkpoints are downloaded.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        best: str | None = None,
        history: RunHistory | None = None,
        remote: Location | None = None,
    ):
        self.directory = local_path(directory)
        self._name = str(self.directory if remote is None else remote)
        self._best = best
        self.history = RunHistory() if history is None else history
        self._remote = None if remote is None else RemoteCheckpoints(remote)
        self._damaged: set[int] = set()

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

    def newest_manifest(self) -> CheckpointManifest | None:
        """Returns the manifest of the newest checkpoint of this run, whose files are not verified; None without one.

        Raises:
            StorageError: If a manifest cannot be read.
        """
        for step in reversed(self.steps()):
            if (manifest := self._own_manifests([step]).get(step)) is not None:
                return manifest
        return None

    def find_best(self) -> tuple[CheckpointManifest | None, tuple[str, ...]]:
        """Finds the valid checkpoint with the smallest value of the metric `best`.

        Returns:
            Its manifest, or None if no valid checkpoint was evaluated; and the reasons why better ones were skipped.
        """
        return self._first(number for _, number in sorted(self._evaluated()))

    def best_value(self) -> float:
        """Returns the smallest value of the metric `best`; infinity if no checkpoint was evaluated."""
        return min(self._evaluated(), default=(float("inf"), 0))[0]

    def _evaluated(self, manifests: Mapping[int, CheckpointManifest | None] | None = None) -> list[tuple[float, int]]:
        """The metric `best` and the step of each checkpoint with a finite value of it."""
        if self._best is None:
            return []
        return [
            (value, step)
            for step, manifest in (self._own_manifests(self.steps()) if manifests is None else manifests).items()
            if manifest is not None and step not in self._damaged
            if math.isfinite(value := manifest.metrics.get(self._best, math.nan))
        ]

    def _own_manifests(self, steps: Iterable[int]) -> dict[int, CheckpointManifest | None]:
        """The manifests of those checkpoints that belong to this run, by step; None for a missing or damaged one.

        A checkpoint in the bucket that another process has deleted after this one listed it is left out.
        """
        manifests: dict[int, CheckpointManifest | None] = {}
        for step in steps:
            if not self._is_folder(step):
                continue
            try:
                manifest = self._manifest(step)
            except (NewerFormatError, MissingError):
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
        return sorted(self._local_steps() | (set() if self._remote is None else self._remote.steps))

    def _local_steps(self) -> set[int]:
        names = {path.name for path in self.directory.glob("step-*")}
        return {step for name in names if (step := checkpoint_step(name)) is not None}

    def folder(self, step: int) -> Path:
        """Returns the local folder of a checkpoint."""
        return self.directory / checkpoint_name(step)

    def _fetch(self, step: int) -> None:
        """Downloads a checkpoint that exists only in the bucket."""
        if self._remote is None or self.folder(step).exists():
            return
        temporary = self._temporary(step)
        remove(temporary)
        self._remote.fetch(step, temporary)
        os.rename(temporary, self.folder(step))

    def _temporary(self, step: int) -> Path:
        return self.directory / f"{PARTIAL[0]}{checkpoint_name(step)}{PARTIAL[1]}"

    def _manifest(self, step: int) -> CheckpointManifest:
        if self._remote is not None and not self.folder(step).exists():
            return CheckpointManifest.from_bytes(self._remote.manifest(step), self.folder(step) / MANIFEST)
        return read_manifest(self.folder(step))


def remove(path: Path) -> None:
    """Deletes a folder, a file, or a link but not its target, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
