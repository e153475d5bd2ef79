"""Checkpoints of a run during training."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from trainer.callbacks.by_products import numbers
from trainer.callbacks.order import Priority
from trainer.callbacks.periodic import Periodic
from trainer.logging import log_fields
from trainer.storage import Location, Mirror
from trainer.training.checkpoint.run_history import SEED, RunHistory
from trainer.training.checkpoint.store import CheckpointStore

_logger = logging.getLogger(__name__)


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
    ):
        super().__init__(every_steps)
        self._fingerprints = {} if fingerprints is None else fingerprints
        self.store = CheckpointStore(
            directory,
            max_to_keep=max_to_keep,
            best=best,
            fingerprints=self._fingerprints,
            remote=remote,
            before_publishing=self._copy,
        )
        self._mirrors, self._reads_only = mirrors, reads_only
        self._best_name = best
        self._best_value = float("inf")
        self._saved_step = -1
        self.is_restored = False

    def restore(self, model: keras.Model) -> None:
        """Restores the newest valid checkpoint into a model.

        `Restore` calls it before other callbacks begin. A call before `fit` replaces that one. A learning rate that
        was set to another value before the first step keeps it; one that callbacks changed is restored.

        Raises:
            CheckpointError: If the checkpoint does not fit the model.
        """
        self.is_restored = True
        if model.step == 0 or not model.initial_settings:
            model.initial_settings = model.settings
        if not isinstance(self._fingerprints, RunHistory):
            self.store.history = RunHistory.start({SEED: str(model.seed), **self._fingerprints})
        manifest = self.store.restore(model.state, model.initial_settings, model.step)
        for problem in self.store.rejected:
            _logger.warning(f"Skipped a checkpoint: {problem}.")
        if manifest is None:
            return
        model.step = self._saved_step = manifest.step
        self._best_value = self.store.best_value()
        _logger.info(f"Resumed at step {manifest.step}.", extra=log_fields({"step": manifest.step}))

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        metrics = {name: value for name, value in numbers(logs or {}).items() if name.startswith("metric/")}
        value = metrics.get(self._best_name or "", float("inf"))
        is_best = value < self._best_value
        if is_best:
            self._best_value = value
            _logger.info(f"Step {self.model.step} has the best {self._best_name} so far; its checkpoint is kept.")
        if is_best or self.is_due:
            self._save(metrics)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if self.model.step != self._saved_step:
            self._save({})
        self.store.wait()

    def _copy(self) -> None:
        for mirror in self._mirrors:
            mirror.copy()

    def _save(self, metrics: Mapping[str, float]) -> None:
        if self._reads_only:
            return
        self._saved_step = self.model.step
        self.store.save(self.model.state, self.model.step, metrics, self.model.initial_settings)


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
