"""The state of a run directory: whether a config may resume its run, and whether the run is complete."""

from trainer.cloud.vertex.environment import Environment
from trainer.config import TrainConfig
from trainer.config.choices import Resume
from trainer.errors import CheckpointError
from trainer.serving import saved_model
from trainer.storage import RunDirectory, locate
from trainer.training.checkpoint.store import CheckpointStore
from trainer.training.restore import stored_config


def check_resumable(config: TrainConfig, directory: RunDirectory) -> int | None:
    """Checks that a config may continue the run in a directory. A directory without a run passes.

    Returns:
        The step of the newest valid checkpoint; None if there is no checkpoint.

    Raises:
        CheckpointError: If the run has other settings, or there is one although `config.resume` is `never`.
    """
    stored = stored_config(directory)
    if stored is None:
        return None
    _check_identity(config, stored, directory)
    manifest, _ = CheckpointStore(directory.checkpoints, remote=directory.remote_checkpoints).find()
    step = None if manifest is None else manifest.step
    if step is not None and config.resume == Resume.NEVER:
        raise CheckpointError(
            f"job_dir={directory.name} contains a run at step {step} and resume=never; give another job_dir, or "
            "--resume=auto to resume it."
        )
    return step


def is_complete(step: int, config: TrainConfig, directory: RunDirectory, environment: Environment) -> bool:
    """Returns whether a run whose newest checkpoint is of `step` has taken all steps, and exported its model.

    The model must be complete at every destination. It is not required if `config.export_model` is False.
    """
    if step < (config.steps or 0):
        return False
    if not config.export_model:
        return True
    destinations = [locate(directory.model), *directory.model_destinations(environment.model_dir)]
    return all(saved_model.about(place).get(saved_model.EXPORTED_AT) == step for place in destinations)


def _check_identity(config: TrainConfig, stored: TrainConfig, directory: RunDirectory) -> None:
    requested, existing = config.identity, stored.identity
    changed = [
        f"{name}={existing[name]}, not {name}={value}" for name, value in requested.items() if existing[name] != value
    ]
    if not changed or config.allow_config_change:
        return
    schedule_images = existing["schedule_images"]
    is_changed = schedule_images not in (None, requested["schedule_images"])
    advice = f" (--schedule_images={schedule_images} keeps its schedules)" if is_changed else ""
    raise CheckpointError(
        f"job_dir={directory.name} contains a run with {'; '.join(changed)}. Use the settings of that run{advice}, "
        "another job_dir, or --allow_config_change to resume it anyway."
    )
