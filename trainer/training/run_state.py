"""The state of a run directory: whether a config may resume its run, and whether the run is complete."""

import hashlib
import json
import logging
from collections.abc import Mapping

from trainer.config import TrainConfig
from trainer.config.choices import ModelFormat, Resume
from trainer.environment import Environment
from trainer.errors import CheckpointError, ConfigError, StorageError
from trainer.models import GAN
from trainer.report.model_card import MODEL_CARD, card_files
from trainer.serving import saved_model
from trainer.storage import RunDirectory
from trainer.storage.local import LocalLocation
from trainer.training.checkpoint import state_file
from trainer.training.checkpoint.manifest import CheckpointManifest
from trainer.training.checkpoint.run_history import RunHistory
from trainer.training.checkpoint.store import CheckpointStore
from trainer.training.run_end import CHANGE_ADVICE, describe_changes, describe_end, is_finished
from trainer.training.stored_run import StoredRun, monitor_of

_logger = logging.getLogger(__name__)

_EVALUATION_SETTINGS = (
    *("metrics", "num_metric_samples", "inception_score"),
    *("evaluate_every_steps", "stop_on_collapse"),
)


def shared_fingerprint(config: TrainConfig) -> str:
    """Returns the SHA-256 of the settings that all machines of a job must share, in hexadecimal.

    Besides those of the training steps, these are the settings of evaluations, which all machines compute together.
    """
    evaluation = {name: getattr(config, name) for name in _EVALUATION_SETTINGS}
    return hashlib.sha256(json.dumps([config.fingerprint, evaluation]).encode()).hexdigest()


def check_machine(environment: Environment, waits_for_lease: bool) -> None:
    """Checks that a machine trains, and that it waits for another process only if it trains alone.

    Raises:
        ConfigError: If it does not.
    """
    if environment.cluster is not None and environment.cluster.is_evaluator:
        raise ConfigError(
            "this machine is an evaluator, but the machines that train evaluate; leave the evaluator's pool empty."
        )
    if waits_for_lease and environment.cluster is not None:
        raise ConfigError(
            "wait_for_lease=True is for a machine that trains alone, because the other machines of this job do not "
            "wait; leave it out."
        )


def check_resumable(
    config: TrainConfig, directory: RunDirectory, stored: StoredRun | None
) -> CheckpointManifest | None:
    """Checks that a config may continue the run in a directory. A directory without a run passes.

    Args:
        config: Resolved config.
        directory: Open run directory.
        stored: Stored config and history of the run; None without a run.

    Returns:
        The manifest of the newest valid checkpoint; None if there is no checkpoint.

    Raises:
        CheckpointError: If the run has other settings, or there is one although `config.resume` is `never`.
    """
    if stored is None and config.resume != Resume.NEVER:
        return None  # checkpoints without a config are resumed if their fingerprints match
    history = RunHistory() if stored is None else stored.known_history(config)
    checkpoints = StoredRun(config, history).checkpoints(directory)
    step = max(checkpoints.steps(), default=None)
    if stored is not None and step is not None:
        if config.init_from != stored.config.init_from:
            raise CheckpointError(
                f"init_from={config.init_from} has no effect on the run in job_dir={directory.name}, which has a "
                f"checkpoint of step {step} and began with init_from={stored.config.init_from}; omit it, or use "
                "another job_dir."
            )
        _check_identity(config, stored.config, directory)
    if step is not None and config.resume == Resume.NEVER:
        raise CheckpointError(
            f"job_dir={directory.name} contains a checkpoint of step {step} and resume=never; give another job_dir, or "
            "--resume=auto to resume its run."
        )
    # `restore` hashes the files again right before it reads them, because loading the data in between may take minutes.
    return checkpoints.find()[0]


def resumed_history(
    config: TrainConfig,
    stored: StoredRun | None,
    manifest: CheckpointManifest | None,
    data_fingerprints: Mapping[str, str],
) -> RunHistory:
    """Returns the history of a run that continues from a checkpoint with a config and data.

    Args:
        config: Resolved config that `check_resumable` has accepted.
        stored: Stored config and history of the run; None without a run.
        manifest: Manifest that `check_resumable` returned.
        data_fingerprints: Fingerprints of the data, by name.

    Raises:
        CheckpointError: If settings or data differ from those of the run at this step, and `config.allow_config_change`
            is False.
    """
    fingerprints = {"config": config.fingerprint, **data_fingerprints}
    if manifest is None or stored is None:
        return RunHistory.start(fingerprints)
    history, step = stored.known_history(config), manifest.step
    previous = {**manifest.fingerprints, **history.after(step)}
    changed = [name for name, value in fingerprints.items() if previous.get(name, value) != value]
    # If only the fingerprint of equal settings has changed, this version has more settings than the one that stored it.
    is_newest = bool(history.revisions) and history.after(step) == history.revisions[-1].fingerprints
    is_upgrade = changed == ["config"] and is_newest and config.identity == stored.config.identity
    if changed and not config.allow_config_change and not is_upgrade:
        raise CheckpointError(
            f"job_dir={config.job_dir} contains a run that was trained from step {step} on with another "
            f"{' and '.join(changed)}; use the same {' and '.join(changed)}, another job_dir, or --allow_config_change "
            "to resume it anyway."
        )
    return history.resumed(step, fingerprints)


def is_complete(
    config: TrainConfig, directory: RunDirectory, environment: Environment, manifest: CheckpointManifest
) -> bool:
    """Returns whether a run takes no more steps and has its model, and logs it, or that the model is missing.

    Args:
        config: Resolved config.
        directory: Open run directory.
        environment: Environment of the job.
        manifest: Manifest that `check_resumable` returned.
    """
    if not is_finished(manifest, config):
        return False
    if has_model(manifest.step, config, directory, environment):
        _logger.info(f"The run in {directory.name} {describe_end(manifest, config)}.")
        return True
    _logger.info(
        f"The run in {directory.name} is at step {manifest.step}, but its model is missing or damaged; exporting it."
    )
    return False


def delete_leftovers(directory: RunDirectory, stored: StoredRun, step: int) -> None:
    """Deletes the older checkpoints of a finished run that a process had not deleted when it was killed.

    Args:
        directory: Open run directory. Without its lease, nothing is deleted.
        stored: Stored config and history, which state the checkpoints that the process would have kept.
        step: Step of the newest checkpoint, which `check_resumable` has found.

    Raises:
        LeaseError: If another process writes the run directory.
        StorageError: If files in a bucket cannot be deleted.
    """
    if directory.lease is None:
        return
    config = stored.config
    store = CheckpointStore(
        directory.checkpoints,
        every_steps=config.checkpoint_every_steps,
        max_to_keep=config.max_to_keep,
        best=monitor_of(config),
        history=stored.history,
        remote=directory.remote_checkpoints,
        verify_lease=directory.lease.verify,
    )
    last_applied_step = state_file.last_applied_step(store.folder(step), step)
    if store.has_leftovers(step, last_applied_step):
        store.clean(step, last_applied_step)
        _logger.info(f"Deleted files of older checkpoints in {directory.name} that a killed process has left.")


def has_model(step: int, config: TrainConfig, directory: RunDirectory, environment: Environment) -> bool:
    """Returns whether a finished run, whose newest checkpoint is of `step`, has exported its model.

    The model must be complete at every destination. It is not required if `config.export_model` is False.
    """
    if not config.export_model:
        return True
    destinations = [LocalLocation(directory.model), *directory.model_destinations(environment.model_dir)]
    return all(saved_model.was_exported_at(step, place) for place in destinations)


def model_card(gan: GAN, directory: RunDirectory, step: int) -> dict[str, bytes]:
    """Returns the files of the SavedModel's card by name; none, with a warning, if files of the run cannot be read.

    Args:
        gan: Compiled GAN with the weights of the model.
        directory: Open run directory.
        step: Step of the weights.
    """
    try:
        return card_files(directory, gan, ModelFormat.SAVED_MODEL, step, saved_model.inputs_of(gan))
    except (CheckpointError, StorageError) as error:
        _logger.warning(f"The model gets no {MODEL_CARD}: {error}")
        return {}


def _check_identity(config: TrainConfig, stored: TrainConfig, directory: RunDirectory) -> None:
    requested, existing = config.identity, stored.identity
    changed = describe_changes(requested, existing)
    if not changed or config.allow_config_change:
        return
    schedule_images = existing["schedule_images"]
    is_changed = schedule_images not in (None, requested["schedule_images"])
    advice = f" (--schedule_images={schedule_images} keeps its schedules)" if is_changed else ""
    if config.data_memory_mib is not None and requested["num_chunks"] != existing["num_chunks"]:
        advice += f" (num_chunks follows from data_memory_mib={config.data_memory_mib:g} if it is not given)"
    raise CheckpointError(
        f"job_dir={directory.name} contains a run with {changed}. Use the settings of that run{advice}, "
        f"another job_dir, or {CHANGE_ADVICE}."
    )
