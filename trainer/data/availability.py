"""Whether the machines of a job will find its data, and can train on it, as far as that is seen without them."""

import os

from trainer.config import TrainConfig, check_batch
from trainer.data.datasets import DOWNLOADED, NAMES, describe, source_of
from trainer.errors import ConfigError
from trainer.registry import did_you_mean
from trainer.storage import is_remote

_OF_LABELS = ("acgan", "conditional")
"""The models that need labels."""


def check_data(config: TrainConfig, *, in_buckets: bool) -> None:
    """Refuses data that a machine elsewhere has not got, or that the config cannot be trained on.

    Args:
        config: Of a job.
        in_buckets: Whether to look into buckets, which takes credentials. What lies in an image is not known.

    Raises:
        ConfigError: A data set is not there, or the batch, the classes or the model do not fit it.
        DataError: A description of a data set cannot be read.
        StorageError: A bucket cannot be read.
    """
    names = [name for name in (config.dataset, config.dataset_b) if name is not None]
    sources = [source_of(name) for name in names]
    for source in sources:
        if not _is_at_hand(source) and not is_remote(source) and not os.path.isabs(source):
            advice = did_you_mean(source, NAMES, "give gs://BUCKET/NAME, or a folder of the image from / on.")
            raise ConfigError(
                f"dataset={source} is not a known data set, and no folder of this machine goes with a job; {advice}"
            )
    if not all(_is_at_hand(source) or (in_buckets and is_remote(source)) for source in sources):
        return
    infos = [describe(name) for name in names]
    infos[0] = infos[0].with_classes(config.classes)
    check_batch(config.global_batch_size, min(info.num_examples for info in infos), num_replicas=1)
    if config.model in _OF_LABELS and infos[0].num_classes < 2:
        raise ConfigError(
            f"model={config.model} needs labels of at least 2 classes, and {config.dataset} has one class; give "
            "another recipe or --model=gan, or prepare the set with a sub-folder for each class."
        )


def _is_at_hand(name: str) -> bool:
    """Whether a data set is the package's own, or one that is downloaded and described here."""
    return name == "digits" or name in DOWNLOADED
