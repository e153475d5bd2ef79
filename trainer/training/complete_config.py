"""Fills in the settings that a recipe and its user leave open.

The functions are called in this order, because each of them needs more than those before:

| Settings | Function | Needs |
|---|---|---|
| `job_dir` and other paths, `classes` | `resolve` | environment of the job, description of the dataset |
| `steps`, `schedule_images`, `*_every_steps` | `resolve` | number of images of the dataset |
| `dataset`, `dataset_b` of a run that resumes | `with_stored_datasets` | stored run |
| `num_chunks`, `metrics`, `num_metric_samples` | `with_machine_settings` | memory and devices of this machine |
| `init_from` of a run that resumes | `with_stored_source` in `transfer.py` | stored run |
| `init_from` with the step of its checkpoint | `with_initial_weights` in `transfer.py` | the other run |
| `precision`, `jit_compile` | `with_compute_settings` in `trainer.models` | networks, processors of all machines |

A run that resumes takes the settings that depend on the machine or on the processors from its stored config.
`configure` calls `resolve`. `trainer.training.run` then calls `with_stored_run`, which reads the stored config and
calls `with_run_settings`, which is `with_stored_datasets`, `with_machine_settings` and `with_stored_source`; and the
other functions. A dry run calls `complete` instead.
"""

import logging

import tensorflow as tf

from trainer.config import TrainConfig
from trainer.config.choices import JitCompile, MetricSuite, Precision
from trainer.config.source_run import SourceRun, check_source_run
from trainer.config.suites import SUITES
from trainer.data import default_num_chunks, describe, num_examples
from trainer.data.class_selection import with_class_numbers
from trainer.data.datasets import NAMES, is_same_dataset, root_source
from trainer.data.second_dataset import describe_training_data
from trainer.environment import Environment
from trainer.errors import ConfigError
from trainer.metrics import inception_weights
from trainer.models import with_compute_settings
from trainer.models.part_checks import check_parts
from trainer.storage import RunDirectory, parse_path, place_of, resolve_mount
from trainer.training.processors import supports_bfloat16
from trainer.training.stored_run import StoredRun, stored_run
from trainer.training.transfer import with_initial_weights, with_stored_source

_logger = logging.getLogger(__name__)


def resolve(config: TrainConfig, environment: Environment) -> TrainConfig:
    """Checks all of a config that needs neither networks nor devices, and fills in the settings that were left open.

    Raises:
        ConfigError: If a name or an option is unknown, or settings do not fit each other or the data.
    """
    check_parts(config)
    config = config.without_mounts()
    job_dir = environment.job_dir if config.job_dir is None else parse_path(config.job_dir)
    config = config.override(job_dir=job_dir and resolve_mount(job_dir))
    _check_job_dir(config)
    if config.init_from is not None:
        config = config.override(init_from=str(SourceRun.parse(config.init_from)))
    config = with_class_numbers(config)
    num_workers = environment.cluster.num_workers if environment.cluster else 1
    return config.resolve(num_examples(config), config.num_virtual_replicas * num_workers)


def _check_job_dir(config: TrainConfig) -> None:
    """Raises `ConfigError` if the run directory is the folder of a dataset."""
    sources = [root_source(dataset) for dataset in (config.dataset, config.dataset_b) if dataset is not None]
    folders = [place_of(source) for source in sources if source not in NAMES]
    if config.job_dir is not None and place_of(config.job_dir) in folders:
        raise ConfigError(f"job_dir={config.job_dir} is the folder of the dataset; pass another folder for the run.")


def with_run_settings(config: TrainConfig, environment: Environment, stored: TrainConfig | None = None) -> TrainConfig:
    """Returns a config with the settings that depend on the machine and on the stored run, and checks its `init_from`.

    Args:
        config: Resolved config.
        environment: Environment of the job.
        stored: Stored config of the run. None: a new run.

    Raises:
        ConfigError: If two shards do not fit into memory, or `init_from` cannot be used with the other settings.
        DataError, StorageError: If the description of the dataset cannot be read.
    """
    config = with_machine_settings(with_stored_datasets(config, stored), environment, stored)
    config = with_stored_source(config, stored)
    check_source_run(config)
    return config


def with_stored_run(
    config: TrainConfig, environment: Environment, directory: RunDirectory
) -> tuple[TrainConfig, StoredRun | None]:
    """Returns a config with the settings of `with_run_settings`, and the run in a directory that it continues.

    The run is None if there is none, or if it has other settings and no checkpoint.

    Args:
        config: Resolved config.
        environment: Environment of the job.
        directory: Open run directory.

    Raises:
        CheckpointError: If the stored config is damaged, or a setting is unknown or out of range.
        ConfigError, DataError, StorageError: As in `with_run_settings`.
    """
    stored = stored_run(directory)
    if stored is not None:
        resumed_config = with_run_settings(config, environment, stored.config)
        if stored.may_continue_as(resumed_config, directory):
            return resumed_config, stored
    return with_run_settings(config, environment), None


def complete(config: TrainConfig, environment: Environment) -> TrainConfig:
    """Returns the config that a new run on this machine would record. It reads the run that `init_from` names.

    Raises:
        CheckpointError: If that run cannot be used.
        ConfigError: If the networks cannot be built, the two datasets do not fit each other, or two shards do not fit
            into memory.
        DataError, StorageError: If the description of the dataset cannot be read.
    """
    config, _ = with_initial_weights(with_run_settings(config, environment))
    info = describe_training_data(config)
    return with_compute_settings(config, **info.model_arguments, can_use_bfloat16=supports_bfloat16())


def with_stored_datasets(config: TrainConfig, stored: TrainConfig | None) -> TrainConfig:
    """Returns a config with the spelling of the datasets that its run has stored, if it names the same folders.

    Args:
        config: Config with which the run resumes.
        stored: Stored config of the run. None: a new run.
    """
    for name in ("dataset", "dataset_b") if stored is not None else ():
        if is_same_dataset(getattr(config, name), getattr(stored, name)):
            config = config.override(**{name: getattr(stored, name)})
    return config


def with_machine_settings(
    config: TrainConfig, environment: Environment, stored: TrainConfig | None = None
) -> TrainConfig:
    """Returns a config with the settings that were left open because they depend on the machine.

    A resumed run keeps the number of chunks, the metric suite, the number of samples, the precision and the use of XLA
    that it started with. If its chunks do not fit into `data_memory_mib`, there are more chunks, which
    `check_resumable` refuses unless the settings may change. `trainer.models.with_compute_settings` chooses the
    precision and the use of XLA for a new run, from its networks.

    Args:
        config: Resolved config.
        environment: Environment of the job. A suite that machines of a job or a study may choose differently is not
            chosen: the cache of weights does not count there.
        stored: Stored config of the run. None: a new run.

    Raises:
        ConfigError: If two shards do not fit into memory.
        DataError, StorageError: If the description of the dataset cannot be read.
    """
    previous = stored if stored is not None and _has_same_evaluation(config, stored) else None
    if config.num_chunks is None:
        num_chunks = (stored and stored.num_chunks) or 0
        if not num_chunks or config.data_memory_mib is not None:  # the memory may need more chunks than are stored
            num_chunks = max(num_chunks, default_num_chunks(config))
        config = config.override(num_chunks=num_chunks)
    if stored is not None and config.precision == Precision.AUTO:
        config = config.override(precision=stored.precision)
    if stored is not None and config.jit_compile == JitCompile.AUTO:
        config = config.override(jit_compile=stored.jit_compile)
    if config.metrics == MetricSuite.AUTO:
        config = config.override(metrics=previous.suite if previous else _choose_suite(config, environment))
    if config.has_metrics and config.num_metric_samples is None:
        has_gpu = bool(tf.config.list_physical_devices("GPU"))
        default = SUITES[config.metrics].default_num_samples(has_gpu=has_gpu)
        config = config.override(num_metric_samples=(previous and previous.num_metric_samples) or default)
    return config


def _has_same_evaluation(config: TrainConfig, stored: TrainConfig) -> bool:
    """Returns whether a config names the datasets of the stored run, and its metric suite or none in particular."""
    has_same_data = (config.dataset, config.dataset_b) == (stored.dataset, stored.dataset_b)
    return has_same_data and config.metrics in (MetricSuite.AUTO, stored.metrics)


def _choose_suite(config: TrainConfig, environment: Environment) -> str:
    """Returns the metric suite of a new run with `metrics=auto`."""
    suite = config.suite
    is_alone = environment.cluster is None and environment.metric_file is None
    if suite == MetricSuite.PHOTOS and is_alone and inception_weights.is_cached():
        suite = MetricSuite.INCEPTION.value
    num_images = describe(config.dataset, config.padding).with_classes(config.class_numbers).num_examples
    minimum = SUITES[suite].min_images
    if num_images < minimum:
        _logger.info(
            f"metrics=auto evaluates nothing, because {suite} needs at least {minimum} images and "
            f"{config.dataset} has {num_images}."
        )
        return MetricSuite.NONE.value
    return suite
