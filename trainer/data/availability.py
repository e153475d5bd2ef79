"""Checks before a job is sent whether its machines can read its data and train on it."""

import os

from trainer.config import TrainConfig, check_batch, recipes
from trainer.config.compatibility import check_labels, check_pairs
from trainer.data.class_selection import with_class_numbers
from trainer.data.dataset_spec import SPEC_NAME, DatasetSpec, read_dataset_spec
from trainer.data.datasets import KERAS_DATASETS, NAMES, DatasetInfo, describe, prepared_folder, root_source
from trainer.errors import ConfigError, DataError, count_of, quote
from trainer.registry import did_you_mean
from trainer.storage import is_remote


def check_data(config: TrainConfig, *, needs_labels: bool, takes_pairs: bool = False, in_buckets: bool) -> None:
    """Rejects data that the machines of a job cannot read, or that the config cannot be trained on.

    Folders of a container image are not checked, because they do not exist on this machine.

    Args:
        config: Config of the job.
        needs_labels: Whether the model needs labels.
        takes_pairs: Whether the model learns from pairs.
        in_buckets: Whether to read buckets, which needs credentials.

    Raises:
        ConfigError: If a dataset does not exist, or the batch, the classes, the model or the recipe do not fit it.
        DataError: If the description of a dataset cannot be read, or a bucket does not have the shards that it lists.
        StorageError: If a bucket cannot be read.
    """
    names = [name for name in (config.dataset, config.dataset_b) if name is not None]
    sources = [root_source(name) for name in names]
    for source in sources:
        if not _is_built_in(source) and not is_remote(source) and not os.path.isabs(source):
            advice = did_you_mean(source, NAMES, "give gs://BUCKET/NAME, or an absolute path in the container image.")
            raise ConfigError(
                f"dataset={source} is not a known dataset, and local folders are not copied to a job; {advice}"
            )
    if not all(_is_built_in(source) or (in_buckets and is_remote(source)) for source in sources):
        return
    specs = [_read_complete_spec(source) if is_remote(source) else None for source in sources]
    infos = [describe(name, config.padding, spec) for name, spec in zip(names, specs, strict=True)]
    infos[0] = infos[0].with_classes(with_class_numbers(config).class_numbers)
    trained = infos[:1] if takes_pairs else infos
    check_batch(config.global_batch_size, min(info.num_examples for info in trained), num_replicas=1)
    if not recipes.is_custom(config.recipe):  # whose model is not known here
        check_pairs(config, takes_pairs=takes_pairs, input_channels=infos[0].input_channels)
    if needs_labels:
        check_labels(config, infos[0].num_classes)
    _check_recipe(config, infos[0])


def _check_recipe(config: TrainConfig, info: DatasetInfo) -> None:
    """Checks that a recipe that takes a context has settings for images. Those that it chooses are not needed here."""
    if recipes.takes_context(config.recipe):
        context = recipes.RecipeContext(
            image_shape=info.image_shape,
            num_images=info.num_examples,
            num_classes=info.num_classes,
            size=config.size,
            settings={"architecture": config.architecture},
        )
        recipes.get(config.recipe, context)


def _is_built_in(name: str) -> bool:
    """Returns whether a dataset is part of the package, or is downloaded by Keras and described in the package."""
    return name == "digits" or name in KERAS_DATASETS


def _read_complete_spec(name: str) -> DatasetSpec:
    """Returns the description of a dataset in a bucket after a comparison with the list of the bucket's objects."""
    folder = prepared_folder(name)
    spec = read_dataset_spec(folder)
    entries = {entry.name: entry for entry in folder.entries()}
    for shard in spec.shards:
        entry = entries.get(shard.file)
        if entry is None or (entry.num_bytes, entry.crc32c) != (shard.num_bytes, shard.crc32c):
            received = f"has {count_of(entry.num_bytes, 'byte')} and CRC32C {entry.crc32c}" if entry else "is missing"
            raise DataError(
                f"shard {folder / shard.file} {received}, but {SPEC_NAME} states {count_of(shard.num_bytes, 'byte')} "
                "and CRC32C "
                f"{quote(shard.crc32c)}; copy the whole dataset to the bucket again."
            )
    return spec
