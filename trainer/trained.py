"""A run's GAN, ready to sample, from its directory."""

import json

from trainer import console, data, metrics, recipes
from trainer.config import TrainConfig
from trainer.engine import strategy as strategies
from trainer.engine.checkpoint import CheckpointStore, load
from trainer.engine.manifest import Manifest
from trainer.errors import CheckpointError, ConfigError
from trainer.gans import GAN, from_config
from trainer.storage import RunDirectory
from trainer.storage.run_directory import CONFIG


def restore(job_dir: str, checkpoint: str = "best") -> tuple[TrainConfig, GAN, Manifest]:
    """Rebuilds the networks of a run and loads a verified checkpoint into them.

    Args:
        job_dir: The run directory.
        checkpoint: `best` by the run's metric (the newest where none was evaluated), `latest`, or a step.

    Raises:
        CheckpointError: The directory holds no run, or not that checkpoint, or it is damaged.
        ConfigError: `checkpoint` is none of the three.
        StorageError: The directory lies in a bucket that cannot be read.
    """
    with RunDirectory(job_dir).opened(only={CONFIG}) as directory:
        return _restore(directory, checkpoint)


def _restore(directory: RunDirectory, checkpoint: str) -> tuple[TrainConfig, GAN, Manifest]:
    if not directory.config.exists():
        raise CheckpointError(
            f"job_dir={directory.name} holds no run (there is no config.json); give the directory of one."
        )
    config = TrainConfig.from_dict(json.loads(directory.config.read_bytes()))
    recipes.import_home(config.recipe)
    best = f"metric/{metrics.monitor(config.metrics)}" if config.metrics != "none" else None
    store = CheckpointStore(directory.checkpoints, best=best, remote=directory.remote_checkpoints)
    manifest = _wanted(store, checkpoint)
    if manifest is None:
        there = ", ".join(map(str, store.steps())) or "none"
        of_step = f" of step {checkpoint}" if checkpoint.isdigit() else ""
        raise CheckpointError(f"job_dir={directory.name} has no checkpoint{of_step}; there are: {there}.")
    strategies.create(config.override(strategy="one_device", num_virtual_devices=1))
    info = data.describe(config.dataset, config.padding)
    gan = from_config(config, info.image_shape, info.num_classes)
    load(store.folder(manifest.step), gan.state)
    gan.step = manifest.step
    return config, gan, manifest


def _wanted(store: CheckpointStore, checkpoint: str) -> Manifest | None:
    """What is asked for, as far as it verifies; says what is passed over."""
    if checkpoint not in ("best", "latest") and not checkpoint.isdigit():
        raise ConfigError(f"checkpoint={checkpoint} is unknown; give best, latest or the number of a step.")
    manifest, problems = store.find_best() if checkpoint == "best" else (None, ())
    if manifest is None:
        manifest, more = store.find(int(checkpoint) if checkpoint.isdigit() else None)
        problems = (*problems, *(problem for problem in more if problem not in problems))
    for problem in problems:
        console.say(f"Passed over a checkpoint: {problem}.", severity="WARNING")
    return manifest
