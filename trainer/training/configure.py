"""Settings of a run from a recipe and the settings that its user gives."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer.cloud.vertex.environment import Environment
from trainer.config import TrainConfig, compatibility, recipes
from trainer.config.choices import StrategyName
from trainer.config.source_run import SourceRun, check_source_run
from trainer.data import describe, num_examples
from trainer.data.class_selection import with_class_numbers
from trainer.logging import log_fields
from trainer.models import augment, penalties, traits, with_compute_settings
from trainer.storage import RunDirectory, parse_path, resolve_mount, without_mount
from trainer.storage.run_directory import CONFIG
from trainer.training.gpu_memory import gpu_memory_gib
from trainer.training.precision import supports_bfloat16
from trainer.training.run_state import with_initial_weights, with_machine_settings
from trainer.training.run_summary import describe_choices
from trainer.training.stored_run import stored_config

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
        DataError, StorageError: If the description of the data set or the stored config cannot be read.
    """
    recipes.check_settings(recipe, settings)
    if not recipes.takes_context(recipe):
        return resolve(recipes.get(recipe).override(**settings), environment)
    context = create_context(settings, environment)
    derived = recipes.get(recipe, context).override(**settings)
    config = resolve(derived, environment)
    with RunDirectory(str(config.job_dir)).open(only={CONFIG}) as directory:
        stored = stored_config(directory)
    if stored is not None and stored.recipe == recipe:
        stored_settings = _stored_settings(stored, settings)
        _logger.info(
            f"The run in {config.job_dir} keeps the settings in its {CONFIG}, except for those of the command: "
            f"{', '.join(sorted(settings))}."
        )
        return resolve(derived.override(**stored_settings), environment)
    values = {name: getattr(config, name) for name in context.reasons}
    _logger.info(
        f"The recipe {recipe} chose {len(values)} settings. A flag replaces each of them.",
        extra=log_fields({"chosen": values}, describe_choices(values, context.reasons)),
    )
    return config


def resolve(config: TrainConfig, environment: Environment) -> TrainConfig:
    """Checks all of a config that needs neither data nor devices, and fills in the settings that were left open.

    Raises:
        ConfigError: If a name is unknown, or settings do not fit each other or the data.
    """
    for name in config.penalties:
        penalties.check_name(name)
    if config.augment is not None:
        augment.check_name(config.augment)
    compatibility.check(config, traits(config))
    job_dir = environment.job_dir if config.job_dir is None else parse_path(config.job_dir)
    paths = {
        "job_dir": job_dir and resolve_mount(job_dir),
        "dataset": config.dataset,
        "dataset_b": config.dataset_b,
        "inception_weights": config.inception_weights,
    }
    config = config.override(**{name: path and without_mount(path) for name, path in paths.items()})
    if config.init_from is not None:
        config = config.override(init_from=str(SourceRun.parse(config.init_from)))
    config = with_class_numbers(config)
    num_workers = environment.cluster.num_workers if environment.cluster else 1
    return config.resolve(num_examples(config), config.num_virtual_devices * num_workers)


def with_all_settings(config: TrainConfig, environment: Environment) -> TrainConfig:
    """Returns the config that a new run on this machine would record. It reads the run that `init_from` names.

    Raises:
        CheckpointError: If that run cannot be used.
        ConfigError: If the networks cannot be built, or two shards do not fit into memory.
        DataError, StorageError: If the description of the data set cannot be read.
    """
    config = with_machine_settings(config, environment)
    check_source_run(config)
    config, _ = with_initial_weights(config)
    info = describe(config.dataset, config.padding).with_classes(config.class_numbers)
    return with_compute_settings(config, info.image_shape, info.num_classes, can_use_bfloat16=supports_bfloat16())


def create_context(settings: Mapping[str, Any], environment: Environment) -> recipes.RecipeContext:
    """Returns the facts on which the settings of a recipe may depend.

    Args:
        settings: Settings that the user gives, with `dataset`.
        environment: Environment of the job. All of its machines are assumed to have the devices of this one.

    Raises:
        ConfigError: If the data set or a class is unknown.
        DataError, StorageError: If the description of the data set cannot be read.
    """
    config = TrainConfig().override(**settings)
    names = {"dataset": config.dataset, "dataset_b": config.dataset_b}
    config = with_class_numbers(config.override(**{name: path and without_mount(path) for name, path in names.items()}))
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


def _stored_settings(stored: TrainConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a stored run that a resumed run keeps."""
    replaced = {*settings, *(["steps"] if settings.get("epochs") is not None else [])}
    return {
        spec.name: getattr(stored, spec.name)
        for spec in dataclasses.fields(stored)
        if spec.name not in replaced and (spec.name in _KEPT or not spec.metadata["resumable"])
    }
