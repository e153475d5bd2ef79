"""Settings of a run from a recipe and the settings that its user gives."""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer.config import TrainConfig, compatibility, recipes
from trainer.config.choices import MetricSuite, StrategyName
from trainer.data import describe, num_examples
from trainer.data.class_selection import with_class_numbers
from trainer.environment import Environment
from trainer.logging import log_fields
from trainer.models.factory import traits
from trainer.storage import RunDirectory
from trainer.storage.run_directory import CONFIG
from trainer.training.complete_config import resolve
from trainer.training.processors import gpu_memory_gib
from trainer.training.run_summary import describe_choices
from trainer.training.stored_run import stored_config, stored_run

_logger = logging.getLogger(__name__)

_KEPT = (
    *("steps", "steps_per_execution", "num_metric_samples"),
    *("evaluate_every_steps", "sample_every_steps", "checkpoint_every_steps"),
)
"""Settings that a run may change when it resumes, but that depend on the data and the device if a recipe chooses."""


def configure(recipe: str, settings: Mapping[str, Any], environment: Environment) -> TrainConfig:
    """Returns the resolved config of a recipe with the settings of a user.

    A recipe that takes a context chooses its settings for a new run, and the choices are logged. A resumed run keeps
    the settings that it has stored, on any device and for any data, except for those that the user gives.

    Args:
        recipe: Name of a registered recipe, or `MODULE:FUNCTION` of a custom one.
        settings: Settings that the user gives, without `recipe`.
        environment: Environment of the job.

    Raises:
        ConfigError: If a name is unknown, or settings do not fit each other, the recipe or the data.
        CheckpointError: If the config of the run to resume is damaged.
        DataError, StorageError: If the description of the dataset or the stored config cannot be read.
    """
    recipes.check_settings(recipe, settings)
    if not recipes.takes_context(recipe):
        base = recipes.get(recipe)
        config = resolve(base.override(**settings), environment)
        _check_effects(config, settings, base, environment)
        return config
    context = create_context(settings, environment)
    derived = recipes.get(recipe, context).override(**settings)
    config = resolve(derived, environment)
    resumed_config = _with_stored_settings(derived, settings, str(config.job_dir))
    if resumed_config is not None:
        _logger.info(
            f"The run in {config.job_dir} keeps the settings in its {CONFIG}, except for those of the command: "
            f"{', '.join(sorted(settings))}."
        )
        config = resolve(resumed_config, environment)
        _check_effects(config, settings, TrainConfig(), environment)
        return config
    _check_effects(config, settings, TrainConfig(), environment)
    values = {name: getattr(config, name) for name in context.reasons}
    _logger.info(
        f"The recipe {recipe} chose {len(values)} settings. A flag replaces each of them.",
        extra=log_fields({"chosen": values}, describe_choices(values, context.reasons)),
    )
    return config


def create_context(settings: Mapping[str, Any], environment: Environment) -> recipes.RecipeContext:
    """Returns the facts on which the settings of a recipe may depend.

    Args:
        settings: Settings that the user gives, with `dataset`.
        environment: Environment of the job. All of its machines are assumed to have the devices of this one.

    Raises:
        ConfigError: If the dataset or a class is unknown.
        DataError, StorageError: If the description of the dataset cannot be read.
    """
    config = with_class_numbers(TrainConfig().override(**settings).without_mounts())
    info = describe(config.dataset, config.padding)
    num_gpus = len(tf.config.list_physical_devices("GPU"))
    num_devices = 1 if config.strategy == StrategyName.ONE_DEVICE else num_gpus or config.num_virtual_devices
    return recipes.RecipeContext(
        image_shape=info.image_shape,
        num_images=num_examples(config),
        num_classes=info.num_classes,
        has_gpu=num_gpus > 0,
        device_memory_gib=gpu_memory_gib() if num_gpus else None,
        num_devices=num_devices * (environment.cluster.num_workers if environment.cluster else 1),
        size=config.size,
        settings=settings,
    )


def _with_stored_settings(config: TrainConfig, settings: Mapping[str, Any], job_dir: str) -> TrainConfig | None:
    """Returns a config with the stored settings of the run that it continues; None if it begins a new run.

    Args:
        config: Config of a recipe that takes a context, before `resolve`.
        settings: Settings that the user gives.
        job_dir: Run directory.
    """
    with RunDirectory(job_dir).open(only={CONFIG}) as directory:
        stored = stored_run(directory)
        if stored is None or stored.config.recipe != config.recipe:
            return None
        config = config.override(**_stored_settings(stored.config, settings))
        return config if stored.may_continue_as(config, directory) else None


def _read_stored(config: TrainConfig) -> TrainConfig | None:
    with RunDirectory(str(config.job_dir)).open(only={CONFIG}) as directory:
        return stored_config(directory)


def _check_effects(
    config: TrainConfig, settings: Mapping[str, Any], base: TrainConfig, environment: Environment
) -> None:
    """Checks that the settings that a user gives have an effect.

    Settings with the values of the recipe, of `TrainConfig`, or of the run to resume pass. In a trial, settings without
    effect are only logged, because a study may vary what they need.

    Args:
        config: Resolved config.
        settings: Settings that the user gives.
        base: Config of the recipe, or that of no recipe if the recipe's values depend on those of the user.
        environment: Environment of the job.

    Raises:
        ConfigError: If a setting has no effect.
    """
    describe_clauses = functools.partial(
        compatibility.describe_settings_without_effect, translates=traits(config).translates
    )
    if not describe_clauses(config, settings, base, TrainConfig()):
        return
    stored = _read_stored(config)
    if stored is not None and config.metrics == MetricSuite.AUTO:
        config = config.override(metrics=stored.metrics)  # which a resumed run keeps
    for clause in describe_clauses(config, settings, base, TrainConfig(), stored):
        if environment.metric_file is None:
            raise compatibility.no_effect_error(clause)
        _logger.warning(f"{clause}; vary it only in trials that have both.")


def _stored_settings(stored: TrainConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a stored run that a resumed run keeps."""
    in_epochs = [name for name, value in settings.items() if name.endswith("epochs") and value is not None]
    replaced = {*settings, *(name.removesuffix("epochs") + "steps" for name in in_epochs)}
    return {
        spec.name: getattr(stored, spec.name)
        for spec in dataclasses.fields(stored)
        if spec.name not in replaced and (spec.name in _KEPT or not spec.metadata["resumable"])
    }
