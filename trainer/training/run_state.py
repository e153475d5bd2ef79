"""The state of a run directory: whether a config may resume its run, and whether the run is complete."""

from trainer.cloud.vertex.environment import Environment
from trainer.config import TrainConfig
from trainer.config.choices import Resume
from trainer.errors import CheckpointError
from trainer.serving import saved_model
from trainer.storage import RunDirectory, locate
from trainer.training.checkpoint.store import CheckpointStore
from trainer.training.restore import stored_config


def check_resumable(config: TrainConfig, directory: RunDirectory) -> None:
    """Checks that a config may continue the run in a directory. A directory without a run passes.

    Raises:
        CheckpointError: If the run has other settings, or there is one although `config.resume` is `never`.
    """
    stored = stored_config(directory)
    if stored is None:
        return
    _check_identity(config, stored, directory)
    step = newest_step(directory)
    if step is not None and config.resume == Resume.NEVER:
        raise CheckpointError(
            f"job_dir={directory.name} contains a run at step {step} and resume=never; give another job_dir, or "
            "--resume=auto to resume it."
        )


def newest_step(directory: RunDirectory) -> int | None:
    """Returns the step of the newest valid checkpoint; None if there is no checkpoint."""
    manifest, _ = CheckpointStore(directory.checkpoints, remote=directory.remote_checkpoints).find()
    return None if manifest is None else manifest.step


def is_complete(config: TrainConfig, directory: RunDirectory, environment: Environment) -> bool:
    """Returns whether the run has taken all its steps and has exported its model, if it should."""
    step = newest_step(directory) if stored_config(directory) is not None else None
    if step is None or step < (config.steps or 0):
        return False
    return not config.export_model or has_model(step, directory, environment)


def has_model(step: int, directory: RunDirectory, environment: Environment) -> bool:
    """Returns whether a complete model exported at `step` exists at every destination."""
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
