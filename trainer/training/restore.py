"""Restores the GAN of a run from its directory."""

import json
import logging
import re

from trainer import data, metrics
from trainer.config import TrainConfig, recipes
from trainer.config.choices import StrategyName
from trainer.errors import CheckpointError, ConfigError, quote
from trainer.models import GAN, from_config
from trainer.storage import RunDirectory, documents, is_remote, locate, read_json, resolve_mount
from trainer.storage.run_directory import CONFIG
from trainer.training.checkpoint.manifest import CheckpointManifest
from trainer.training.checkpoint.run_history import RunHistory
from trainer.training.checkpoint.state_file import load
from trainer.training.checkpoint.store import CheckpointStore
from trainer.training.distributed import strategy as strategies

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


def restore(
    job_dir: str, checkpoint: str = "best", recipe: str | None = None
) -> tuple[TrainConfig, GAN, CheckpointManifest]:
    """Rebuilds the networks of a run and loads a verified checkpoint into them.

    Args:
        job_dir: Run directory.
        checkpoint: `best` by the metric of the run (the newest one if the run was not evaluated), `latest`, or a step.
        recipe: Recipe of the run, if the user names it. A run in a bucket with a custom recipe needs it, because the
            module of the recipe is imported.

    Returns:
        The config, the compiled GAN, and the manifest of the checkpoint.

    Raises:
        CheckpointError: If the directory has no run or no such checkpoint, if the checkpoint is damaged, or if the
            module of the recipe may not be imported.
        ConfigError: If `checkpoint` is unknown, or `recipe` is not that of the run.
        StorageError: If the directory is in a bucket that cannot be read.
    """
    with RunDirectory(job_dir).open(only={CONFIG}) as directory:
        return _restore(directory, checkpoint, recipe)


def config_of(job_dir: str) -> TrainConfig:
    """Returns the stored config of the run in a directory, without its checkpoints.

    Raises:
        CheckpointError: If the directory has no run or its config is damaged.
        StorageError: If the directory cannot be read.
    """
    with RunDirectory(job_dir).open(only={CONFIG}) as directory:
        return _require_run(directory)[0]


def stored_config(directory: RunDirectory) -> TrainConfig | None:
    """Returns the stored config of a run; None if the directory has no run.

    Raises:
        CheckpointError: If the file is damaged, or a setting is unknown or out of range.
        StorageError: If the file cannot be read.
    """
    stored = stored_run(directory)
    return None if stored is None else stored[0]


def stored_run(directory: RunDirectory) -> tuple[TrainConfig, RunHistory] | None:
    """Returns the stored config of a run, and the fingerprints that its checkpoints must match.

    Runs of version 0.1.0 have stored no fingerprints; then they are those of the config.

    Raises:
        CheckpointError: If the file is damaged, or a setting is unknown or out of range.
        StorageError: If the file cannot be read.
    """
    if not directory.config.exists():
        return None
    path, remedy = directory.display_path(directory.config), "copy the run again, or use another directory"
    values = read_json(locate(directory.config), _SCHEMA, remedy=remedy, error=CheckpointError, origin=path)
    revisions = values.pop(_FINGERPRINTS, None)
    try:
        config = TrainConfig.from_dict(values)
        if revisions is None:
            return config, RunHistory.start({"config": config.fingerprint_of(values)})
        return config, RunHistory.from_json(revisions)
    except ValueError as error:
        raise CheckpointError(f"{path} is not the config of a run of this version: {error}") from error


def monitor_of(config: TrainConfig) -> str | None:
    """Returns the name in the logs of the metric that selects the best checkpoint of a run; None without metrics."""
    return f"metric/{metrics.monitor(config.suite, config.num_metric_samples)}" if config.has_metrics else None


def config_document(config: TrainConfig, history: RunHistory) -> bytes:
    """Returns the content of the file that `stored_run` reads."""
    return json.dumps(config.to_dict() | {_FINGERPRINTS: history.to_json()}, indent=2).encode()


def _require_run(directory: RunDirectory) -> tuple[TrainConfig, RunHistory]:
    stored = stored_run(directory)
    if stored is None:
        raise CheckpointError(f"job_dir={directory.name} has no run (it has no {CONFIG}); pass the directory of a run.")
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
    directory: RunDirectory, checkpoint: str, recipe: str | None
) -> tuple[TrainConfig, GAN, CheckpointManifest]:
    config, history = _require_run(directory)
    _import_recipe(directory, config.recipe, recipe)
    store = CheckpointStore(
        directory.checkpoints, best=monitor_of(config), fingerprints=history, remote=directory.remote_checkpoints
    )
    manifest = _select(store, checkpoint)
    if manifest is None:
        steps = ", ".join(map(str, store.steps())) or "none"
        of_step = f" of step {checkpoint}" if _STEP.fullmatch(checkpoint) else ""
        raise CheckpointError(f"job_dir={directory.name} has no checkpoint{of_step}; existing ones: {steps}.")
    strategies.create(config.override(strategy=StrategyName.ONE_DEVICE, num_virtual_devices=1))
    info = data.describe(config.dataset, config.padding)
    gan = from_config(config, info.image_shape, info.num_classes)
    load(store.folder(manifest.step), gan.state)
    gan.step = manifest.step
    return config, gan, manifest


def _select(store: CheckpointStore, checkpoint: str) -> CheckpointManifest | None:
    """Returns the manifest of the requested checkpoint, and logs which ones were skipped."""
    is_step = _STEP.fullmatch(checkpoint) is not None
    if checkpoint not in ("best", "latest") and not is_step:
        raise ConfigError(f"checkpoint={quote(checkpoint)} is unknown; choose best, latest or the number of a step.")
    manifest, problems = store.find_best() if checkpoint == "best" else (None, ())
    if manifest is None:
        manifest, more = store.find(int(checkpoint) if is_step else None)
        problems = (*problems, *(problem for problem in more if problem not in problems))
    for problem in problems:
        _logger.warning(f"Skipped a checkpoint: {problem}.")
    return manifest
