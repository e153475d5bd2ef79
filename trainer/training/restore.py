"""A run's GAN, ready to sample, from its directory."""

import json
import logging
import os

from trainer import data, metrics
from trainer.config import TrainConfig, recipes
from trainer.errors import CheckpointError, ConfigError, quote
from trainer.models import GAN, from_config
from trainer.storage import RunDirectory, is_remote, without_mount
from trainer.storage.run_directory import CONFIG
from trainer.training.checkpoint.manifest import CheckpointManifest
from trainer.training.checkpoint.store import CheckpointStore, load
from trainer.training.distributed import strategy as strategies

_logger = logging.getLogger(__name__)


def restore(
    job_dir: str, checkpoint: str = "best", recipe: str | None = None
) -> tuple[TrainConfig, GAN, CheckpointManifest]:
    """Rebuilds the networks of a run and loads a verified checkpoint into them.

    Args:
        job_dir: The run directory.
        checkpoint: `best` by the run's metric (the newest where none was evaluated), `latest`, or a step.
        recipe: The run's recipe as the user names it. A run in a bucket needs it where the recipe is the user's own,
            since its module is imported. None: not named.

    Raises:
        CheckpointError: The directory holds no run, or not that checkpoint, or it is damaged; or its recipe is of a
            module that is not to be imported.
        ConfigError: `checkpoint` is none of the three, or `recipe` is not the run's.
        StorageError: The directory lies in a bucket that cannot be read.
    """
    with RunDirectory(job_dir).opened(only={CONFIG}) as directory:
        return _restore(directory, checkpoint, recipe)


def stored_config(directory: RunDirectory) -> TrainConfig | None:
    """The config of an opened directory's run; None where there is none.

    Raises:
        CheckpointError: It cannot be read.
        ConfigError: A setting is unknown or out of range.
    """
    if not directory.config.exists():
        return None
    try:
        config = TrainConfig.from_dict(json.loads(directory.config.read_bytes()))
        is_config = isinstance(config.recipe, str)
    except (TypeError, AttributeError, RecursionError, OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _unreadable(directory) from error
    if not is_config:
        raise _unreadable(directory)
    return config


def _unreadable(directory: RunDirectory) -> CheckpointError:
    return CheckpointError(
        f"job_dir={directory.name} has a {CONFIG} that is not the config of a run; copy it again, or give another "
        "directory."
    )


def _import_recipe(directory: RunDirectory, wanted: str, named: str | None) -> None:
    """Imports the module of a run's recipe, as far as the user trusts it."""
    if named not in (None, wanted):
        raise ConfigError(
            f"recipe={quote(named)} is not that of the run in {directory.name}, which is {quote(wanted)}; leave it "
            "out, or give the same one."
        )
    in_bucket = is_remote(directory.name) or is_remote(without_mount(os.path.realpath(directory.name)))
    if recipes.is_own(wanted):
        recipes.check_form(wanted)
    if in_bucket and recipes.is_own(wanted) and named is None:
        module = wanted.partition(":")[0]
        raise CheckpointError(
            f"the run in {directory.name} wants the module {quote(module)} imported, and what a bucket names is not "
            f"run unasked; if you trust that module, pass --recipe={wanted}."
        )
    recipes.import_home(wanted, never_from=None if is_remote(directory.name) else directory.root)


def _restore(
    directory: RunDirectory, checkpoint: str, recipe: str | None
) -> tuple[TrainConfig, GAN, CheckpointManifest]:
    config = stored_config(directory)
    if config is None:
        raise CheckpointError(
            f"job_dir={directory.name} holds no run (there is no config.json); give the directory of one."
        )
    _import_recipe(directory, config.recipe, recipe)
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


def _wanted(store: CheckpointStore, checkpoint: str) -> CheckpointManifest | None:
    """What is asked for, as far as it verifies; says what is passed over."""
    if checkpoint not in ("best", "latest") and not checkpoint.isdigit():
        raise ConfigError(f"checkpoint={checkpoint} is unknown; give best, latest or the number of a step.")
    manifest, problems = store.find_best() if checkpoint == "best" else (None, ())
    if manifest is None:
        manifest, more = store.find(int(checkpoint) if checkpoint.isdigit() else None)
        problems = (*problems, *(problem for problem in more if problem not in problems))
    for problem in problems:
        _logger.warning(f"Passed over a checkpoint: {problem}.")
    return manifest
