"""Checkpoints of a run during training."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import keras

from trainer import stopwatch
from trainer.callbacks.base import Periodic, Priority
from trainer.callbacks.by_products import metric_values
from trainer.config.fields import check_number
from trainer.errors import ConfigError, quote
from trainer.logging import log_fields
from trainer.metrics.log_names import own_name
from trainer.stopwatch import Activity
from trainer.storage import Location, Mirror
from trainer.storage.lease import Lease
from trainer.training.checkpoint import state_file
from trainer.training.checkpoint.manifest import IMAGE_RANGE, CheckpointManifest
from trainer.training.checkpoint.run_history import SEED, RunHistory
from trainer.training.checkpoint.store import CheckpointStore

_logger = logging.getLogger(__name__)


class StatefulCallback(Protocol):
    """A callback whose decisions depend on earlier steps, such as `CollapseAlarm`."""

    def get_state(self) -> dict[str, float]:
        """Returns the numbers to continue from, by name."""
        ...

    def set_state(self, state: Mapping[str, float]) -> None:
        """Continues from such numbers. They are empty if the checkpoint has none."""
        ...


class Checkpoint(Periodic):
    """Restores the newest valid checkpoint when `fit` starts, and commits new checkpoints in the background.

    Args:
        directory: Folder of the checkpoints.
        every_steps: Steps between two checkpoints; 0 for only at the end and at a new best.
        max_to_keep: Number of the newest checkpoints to keep, in addition to the best one.
        best: Name in the logs of the metric whose smallest value is the best, such as `metric/frechet_digits_5k`.
        fingerprints: SHA-256 of config and data, by name, to which the seed of the model is added. Checkpoints with
            other values are skipped. A `RunHistory` if they changed during the run; the seed is not added then.
        remote: Folder in a bucket to which checkpoints are uploaded, and from which they are downloaded.
        mirrors: Mirrors of the run directory. They copy its files before each upload of a checkpoint, except for the
            last minute of TensorBoard's events.
        reads_only: Whether to restore only, because another machine writes.
        callback_states: Callbacks whose state is saved and restored, by name.
        lease: Lease of the run directory. Nothing is written after it is lost. None: no other process writes there.

    Raises:
        ConfigError: If a number is out of range, the directory is in a bucket or is no path, or `fingerprints` or
            `remote` has another type.
    """

    priority = Priority.CHECKPOINT

    def __init__(
        self,
        directory: str | os.PathLike[str],
        every_steps: int = 500,
        *,
        max_to_keep: int = 3,
        best: str | None = None,
        fingerprints: Mapping[str, str] | RunHistory | None = None,
        remote: Location | None = None,
        mirrors: Sequence[Mirror] = (),
        reads_only: bool = False,
        callback_states: Mapping[str, StatefulCallback] | None = None,
        lease: Lease | None = None,
    ):
        super().__init__(every_steps)
        check_number("max_to_keep", max_to_keep, whole=True, minimum=1)
        if not isinstance(fingerprints, (Mapping, RunHistory, type(None))):
            raise ConfigError(f"fingerprints={quote(fingerprints)} has the wrong type; pass a dict, or omit it.")
        if not isinstance(remote, (Location, type(None))):
            raise ConfigError(
                f"remote={quote(remote)} is no location; pass trainer.storage.locate(FOLDER), or omit it."
            )
        self._fingerprints = {} if fingerprints is None else fingerprints
        self.store = CheckpointStore(
            directory,
            every_steps=every_steps,
            max_to_keep=max_to_keep,
            best=best,
            history=fingerprints if isinstance(fingerprints, RunHistory) else RunHistory.start(fingerprints or {}),
            remote=remote,
            before_publishing=self._copy,
            verify_lease=None if lease is None else lease.verify,
        )
        self._mirrors, self._reads_only = mirrors, reads_only
        self._callback_states = dict(callback_states or {})
        self._best_name = best
        self._best_value = math.inf
        self.saved_step = -1
        """Step of the newest checkpoint that this machine has restored or saved; -1 if there is none."""
        self.is_restored = False

    def restore(self, model: keras.Model) -> None:
        """Restores the newest valid checkpoint into a model.

        `Restore` calls it before other callbacks begin. A call before `fit` replaces that one. A learning rate that
        was set to another value before the first step keeps it; one that callbacks changed is restored. The range of
        the images becomes that of the checkpoint, unless the user has set one.

        Raises:
            CheckpointError: If the checkpoint does not fit the model, or the last checkpoint of an earlier `fit` could
                not be written.
        """
        self.saved_step, self._best_value = -1, math.inf
        model.record_optimizer_settings()
        if not isinstance(self._fingerprints, RunHistory):
            self.store.history = RunHistory.start({SEED: str(model.seed), **self._fingerprints})
        manifest = self.store.restore(model.state, model.initial_optimizer_settings, model.step)
        self.is_restored = True
        for problem in self.store.rejected:
            _logger.warning(f"Skipped a checkpoint: {problem}.")
        if manifest is None:
            return
        model.step = self.saved_step = manifest.step
        model.set_trained_range(manifest.image_range)
        self._best_value = self.store.best_value()
        self._restore_callbacks(manifest)
        _logger.info(f"Resumed at step {manifest.step}.", extra=log_fields({"step": manifest.step}))

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        if self.model.step > 0 and metric_values(logs):  # an evaluation that an earlier process has abandoned
            self.on_train_batch_end(0, logs)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        metrics = metric_values(logs)
        value = metrics.get(self._best_name or "", math.inf)
        is_best = math.isfinite(value) and value < self._best_value
        is_saved = self.model.step == self.saved_step
        if not (is_saved or self.is_due or (is_best and self._is_finite())):
            return
        self._save(metrics)
        if is_best:
            self._best_value = value
            name = own_name(self._best_name or "")
            _logger.info(f"Step {self.model.step} has the best {name} of all checkpoints, so it is kept.")

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if self.model.step != self.saved_step and (not self.model.preempted or self._is_finite()):
            self._save({})
        with stopwatch.measured(Activity.CHECKPOINTS):
            self.store.wait()
            if not self._reads_only and self.saved_step >= 0:
                self.store.clean(self.saved_step, self.model.divergence.last_applied_step(self.saved_step))

    def find_rollback_step(self, last: int) -> int:
        """Returns the step of the checkpoint to return to after a divergence.

        Args:
            last: Number of steps before the divergence.

        Returns:
            Step of the newest valid checkpoint at a multiple of `every_steps`, up to `last`; 0 if there is none, or if
            another machine chooses it.
        """
        if self._reads_only:
            return 0
        step = self.store.find_rollback_step(last)
        for problem in self.store.rejected:
            _logger.warning(f"Skipped a checkpoint: {problem}.")
        return step

    def roll_back(self, step: int) -> None:
        """Restores a checkpoint that `find_rollback_step` has returned, and deletes later ones, which have diverged.

        Raises:
            CheckpointError: If the checkpoint is not valid on this machine.
        """
        model = self.model
        settings = model.initial_optimizer_settings
        manifest = self.store.roll_back(step, model.state, settings, reads_only=self._reads_only)
        model.step = self.saved_step = step
        self._best_value = self.store.best_value()
        self._restore_callbacks(manifest)

    def _restore_callbacks(self, manifest: CheckpointManifest) -> None:
        for name, callback in self._callback_states.items():
            callback.set_state(manifest.callbacks.get(name, {}))

    def _copy(self) -> None:
        for mirror in self._mirrors:
            mirror.copy()

    def _is_finite(self) -> bool:
        """Returns whether all state is finite. If not, the next regular checkpoint ends in a rollback."""
        broken = state_file.first_not_finite(state_file.snapshot(self.model.state))
        if broken is not None:
            _logger.warning(f"{broken} is not finite at step {self.model.step}; this checkpoint was not written.")
        return broken is None

    @stopwatch.measured(Activity.CHECKPOINTS)
    def _save(self, metrics: Mapping[str, float]) -> None:
        """Saves a checkpoint, or adds metrics and states of callbacks to the one that was saved at this step.

        A machine that only reads makes the same checks, so that all of them roll back together.

        Raises:
            DivergenceError: If the state is not finite.
        """
        model = self.model
        if self._reads_only:
            state_file.check_finite(state_file.snapshot(model.state), model.step)
            return
        states = {name: callback.get_state() for name, callback in self._callback_states.items()}
        states = {name: state for name, state in states.items() if state}
        last_applied_step = model.divergence.last_applied_step(model.step)
        if model.step == self.saved_step:
            self.store.amend(model.step, metrics, states, last_applied_step)
        else:
            settings = {**model.initial_optimizer_settings, **_range_settings(model)}
            self.store.save(model.state, model.step, metrics, settings, states, last_applied_step)
            self.saved_step = model.step


def _range_settings(model: keras.Model) -> dict[str, str | float]:
    """Returns the range of the images that a model was trained on, as settings of a manifest."""
    return dict(zip(IMAGE_RANGE, model.image_range, strict=True)) if model.is_range_known else {}


class Restore(keras.callbacks.Callback):
    """Restores the newest valid checkpoint of a `Checkpoint` before other callbacks begin. `GAN.fit` adds it.

    Args:
        checkpoint: Callback that has the checkpoints.
    """

    priority = Priority.FIRST

    def __init__(self, checkpoint: Checkpoint):
        super().__init__()
        self._checkpoint = checkpoint

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        if not self._checkpoint.is_restored:
            self._checkpoint.restore(self.model)
        self._checkpoint.is_restored = False  # the next `fit` restores again
