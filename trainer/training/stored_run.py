"""The stored config of a run and the choice of one of its checkpoints. No network is built."""

import json
import logging
import re
from typing import NamedTuple

from trainer import metrics
from trainer.config import TrainConfig
from trainer.errors import CheckpointError, ConfigError, quote
from trainer.metrics.log_names import log_name
from trainer.storage import RunDirectory, documents, read_json
from trainer.storage.local import LocalLocation
from trainer.training.checkpoint.committed import CommittedCheckpoints
from trainer.training.checkpoint.manifest import CheckpointManifest
from trainer.training.checkpoint.run_history import RunHistory

_logger = logging.getLogger(__name__)
_STEP = re.compile("[0-9]{1,18}")

_SCHEMA = documents.record(
    {name: documents.text() for name in ("recipe", "model", "architecture", "dataset", "loss", "metrics")}
    | {name: documents.whole() for name in ("latent_dim", "global_batch_size", "steps")}
    | {"seed": documents.whole(minimum=-(2**63))}
)
"""Settings that the config of every run has. Later versions may add others, which earlier configs do not have."""
_FINGERPRINTS = "fingerprints"
"""Key in `config.json` of the fingerprints of settings and data; not a setting."""


class StoredRun(NamedTuple):
    """The content of `config.json`.

    Attributes:
        config: Config of the run.
        history: Fingerprints that its checkpoints must match.
    """

    config: TrainConfig
    history: RunHistory

    def known_history(self, config: TrainConfig) -> RunHistory:
        """Returns the history for a config that continues the run.

        It is empty for a run of version 0.1.0, which records no changes, if `config` allows them.
        """
        is_recorded = "data" in self.history.after(0)
        return RunHistory() if config.allow_config_change and not is_recorded else self.history

    def may_continue_as(self, config: TrainConfig, directory: RunDirectory) -> bool:
        """Returns whether a config is one of this run.

        A run without a checkpoint is continued with the same settings only. With other settings, a new run begins in
        its directory. With a checkpoint, `check_resumable` decides.

        Args:
            config: Config with the settings that were left open replaced by those of this run.
            directory: Run directory, open at least for its config.
        """
        if config.identity == self.config.identity:
            return True
        return bool(self.checkpoints(directory, with_best=False).steps())

    def checkpoints(self, directory: RunDirectory, *, with_best: bool = True) -> CommittedCheckpoints:
        """Returns the checkpoints of the run in an open run directory, to read them.

        Args:
            directory: Run directory.
            with_best: Whether to find the best checkpoint, which needs the metric suite of the run.

        Raises:
            ConfigError: If the suite is needed, and no imported module registers it.
        """
        return CommittedCheckpoints(
            directory.checkpoints,
            best=monitor_of(self.config) if with_best else None,
            history=self.history,
            remote=directory.remote_checkpoints,
        )


def stored_config(directory: RunDirectory) -> TrainConfig | None:
    """Returns the stored config of a run; None if the directory has no run.

    Raises:
        CheckpointError: If the file is damaged, or a setting is unknown or out of range.
        StorageError: If the file cannot be read.
    """
    stored = stored_run(directory)
    return None if stored is None else stored.config


def stored_run(directory: RunDirectory) -> StoredRun | None:
    """Returns the stored config and history of a run; None if the directory has no run.

    Runs of version 0.1.0 have stored no fingerprints; then they are those of the config.

    Raises:
        CheckpointError: If the file is damaged, or a setting is unknown or out of range.
        StorageError: If the file cannot be read.
    """
    if not directory.config.exists():
        return None
    path, remedy = directory.display_path(directory.config), "copy the run again, or use another directory"
    file = LocalLocation(directory.config)
    values = read_json(file, _SCHEMA, remedy=remedy, error=CheckpointError, origin=path)
    revisions = values.pop(_FINGERPRINTS, None)
    try:
        config = TrainConfig.from_dict(values)
        if revisions is None:
            return StoredRun(config, RunHistory.start({"config": config.fingerprint_of(values)}))
        return StoredRun(config, RunHistory.from_json(revisions))
    except ValueError as error:
        raise CheckpointError(f"{path} is not the config of a run of this version: {error}") from error


def monitor_of(config: TrainConfig) -> str | None:
    """Returns the name in the logs of the metric that selects the best checkpoint of a run; None without metrics."""
    return log_name(metrics.monitor_name(config.suite, config.num_metric_samples)) if config.has_metrics else None


def config_document(config: TrainConfig, history: RunHistory) -> bytes:
    """Returns the content of the file that `stored_run` reads."""
    return json.dumps(config.to_dict() | {_FINGERPRINTS: history.to_json()}, indent=2).encode()


def select(store: CommittedCheckpoints, checkpoint: str, where: str) -> CheckpointManifest:
    """Returns the manifest of the requested checkpoint, and logs which ones were skipped.

    Args:
        store: Checkpoints of a run.
        checkpoint: `best` by the metric of the store (the newest one if there is none), `latest`, or a step.
        where: Setting and value that name the run, for messages.

    Raises:
        CheckpointError: If there is no such checkpoint, or it is damaged.
        ConfigError: If `checkpoint` is unknown.
    """
    is_step = _STEP.fullmatch(checkpoint) is not None
    if checkpoint not in ("best", "latest") and not is_step:
        raise ConfigError(f"checkpoint={quote(checkpoint)} is unknown; choose best, latest or the number of a step.")
    manifest, problems = store.find_best() if checkpoint == "best" else (None, ())
    if manifest is None:
        manifest, more = store.find(int(checkpoint) if is_step else None)
        problems = (*problems, *(problem for problem in more if problem not in problems))
    for problem in problems:
        _logger.warning(f"Skipped a checkpoint: {problem}.")
    if manifest is None:
        steps = ", ".join(map(str, store.steps())) or "none"
        of_step = f" of step {checkpoint}" if is_step else ""
        raise CheckpointError(f"{where} has no checkpoint{of_step}; existing ones: {steps}.")
    return manifest
