"""Restores the GAN of a run from its directory."""

from trainer import data
from trainer.config import TrainConfig, recipes
from trainer.config.choices import Precision, StrategyName
from trainer.errors import CheckpointError, ConfigError, quote
from trainer.models import GAN, from_config
from trainer.storage import RunDirectory, is_remote, resolve_mount
from trainer.storage.run_directory import CONFIG, missing_run
from trainer.training.checkpoint.manifest import CheckpointManifest
from trainer.training.checkpoint.state_file import load
from trainer.training.distributed import strategy as strategies
from trainer.training.stored_run import StoredRun, select, stored_run


def restore(
    job_dir: str, checkpoint: str = "best", recipe: str | None = None, precision: Precision | None = None
) -> tuple[TrainConfig, GAN, CheckpointManifest]:
    """Rebuilds the networks of a run and loads a verified checkpoint into them.

    Args:
        job_dir: Run directory.
        checkpoint: `best` by the metric of the run (the newest one if the run was not evaluated), `latest`, or a step.
        recipe: Recipe of the run, if the user names it. A run in a bucket with a custom recipe needs it, because the
            module of the recipe is imported.
        precision: Precision of the networks; None for that of the run.

    Returns:
        The config, the compiled GAN, and the manifest of the checkpoint.

    Raises:
        CheckpointError: If the directory has no run or no such checkpoint, if the checkpoint is damaged, or if the
            module of the recipe may not be imported.
        ConfigError: If `checkpoint` is unknown, or `recipe` is not that of the run.
        StorageError: If the directory is in a bucket that cannot be read.
    """
    with RunDirectory(job_dir).open(only={CONFIG}) as directory:
        return _restore(directory, checkpoint, recipe, precision)


def config_of(job_dir: str, recipe: str | None = None) -> TrainConfig:
    """Returns the stored config of the run in a directory, without its checkpoints.

    It imports the module of the run's recipe, which may register the metric suite.

    Args:
        job_dir: Run directory.
        recipe: As `restore` takes it.

    Raises:
        CheckpointError: If the directory has no run, its config is damaged, or the module may not be imported.
        ConfigError: If `recipe` is not that of the run.
        StorageError: If the directory cannot be read.
    """
    with RunDirectory(job_dir).open(only={CONFIG}) as directory:
        config = _require_run(directory).config
        _import_recipe(directory, config.recipe, recipe)
        return config


def _require_run(directory: RunDirectory) -> StoredRun:
    stored = stored_run(directory)
    if stored is None:
        raise missing_run(directory.name)
    return stored


def _import_recipe(directory: RunDirectory, stored: str, named: str | None) -> None:
    """Imports the module of a run's recipe if that is safe."""
    if named not in (None, stored):
        raise ConfigError(
            f"recipe={quote(named)} is not the recipe of the run in {directory.name}, which is {quote(stored)}; omit "
            "the flag, or pass that recipe."
        )
    in_bucket = is_remote(resolve_mount(directory.name))
    if recipes.is_custom(stored):
        recipes.check_custom_name(stored)
    if in_bucket and recipes.is_custom(stored) and named is None:
        module = stored.partition(":")[0]
        raise CheckpointError(
            f"the run in {directory.name} needs the module {quote(module)}, and code that a bucket names is not run "
            f"automatically; if you trust the module, pass --recipe={stored}."
        )
    local_root = None if is_remote(directory.name) else directory.root
    recipes.import_module(stored, local_root, is_named=named is not None)


def _restore(
    directory: RunDirectory, checkpoint: str, recipe: str | None, precision: Precision | None
) -> tuple[TrainConfig, GAN, CheckpointManifest]:
    stored = _require_run(directory)
    config = stored.config if precision is None else stored.config.override(precision=precision)
    _import_recipe(directory, config.recipe, recipe)
    store = stored.checkpoints(directory)
    manifest = select(store, checkpoint, f"job_dir={directory.name}")
    strategies.create(config.override(strategy=StrategyName.ONE_DEVICE, num_virtual_devices=1))
    info = data.describe(config.dataset, config.padding)
    gan = from_config(config, **info.model_arguments)
    load(store.folder(manifest.step), gan.state)
    gan.step = manifest.step
    return config, gan, manifest
