"""The metric suite of a run, made from its config and data, and the images of a dataset in place of a model."""

import logging
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from trainer import metrics
from trainer.config import TrainConfig
from trainer.config.suites import SUITES
from trainer.data import datasets
from trainer.data.loading import TrainingData
from trainer.errors import ConfigError
from trainer.metrics.extraction import BLOCK_SIZE, ReplicatedFunction
from trainer.metrics.extractor import Extractor
from trainer.metrics.real_statistics import RealImages
from trainer.metrics.suite import Suite
from trainer.storage import Location, cache_folder
from trainer.storage.local import LocalLocation

_logger = logging.getLogger(__name__)

STATISTICS = "statistics"
"""Folder with the statistics of real images, in the folder of a prepared dataset or in the cache."""


def create_suite(
    config: TrainConfig,
    data: TrainingData,
    extractor: Extractor | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Suite:
    """Returns the suite that `config.metrics` names, with the first images of the data as the real ones.

    Args:
        config: Config with a suite, not `auto` or `none`.
        data: Training data of the config.
        extractor: Network that `metrics.get_extractor` returned for the suite.
        strategy: Strategy whose replicas extract the features. None: the current device.

    Raises:
        DataError: If there are too few images, or images of another kind than the suite measures.
        StorageError: If images are in a bucket that cannot be read.
    """
    suite_class, entry = metrics.get(config.metrics), SUITES[config.metrics]
    num_samples = config.num_metric_samples or entry.num_samples
    if extractor is None or num_samples is None:
        real_images = data.real_images(entry.num_real_images or num_samples)
        return suite_class(*real_images, *([num_samples] if num_samples else []))
    num_images = min(num_samples, data.info.num_examples)
    return suite_class(
        extractor,
        RealImages(data.source_fingerprint, num_images, lambda: data.image_blocks(num_images, BLOCK_SIZE)),
        num_samples,
        folders=statistics_folders(config.dataset),
        strategy=strategy,
        inception_score=config.inception_score,
    )


def statistics_folders(dataset: str) -> list[Location]:
    """Returns the folders for statistics of a dataset's images: that of a prepared dataset, and the cache.

    A user without a home directory may have no cache.
    """
    source = datasets.root_source(dataset)
    folders = [] if source in datasets.NAMES else [datasets.prepared_folder(source) / STATISTICS]
    try:
        folders.append(LocalLocation(cache_folder(STATISTICS)))
    except ConfigError as error:
        if not folders:
            _logger.warning(f"The statistics of real images are not stored: {error}")
    return folders


class StoredImages:
    """The first images of a dataset, with the methods of a model that metric suites use.

    Args:
        data: Dataset with the images.
    """

    def __init__(self, data: TrainingData):
        self._data = data

    def sample(self, num_images: int) -> tuple[np.ndarray, None]:
        """Returns the first images, uint8 [num_images, H, W, C], and no labels."""
        return self._data.real_images(num_images)[-1], None  # of pairs, the images without their inputs

    def sample_features(
        self, num_images: int, function: Callable[[tf.Tensor], Iterable[tf.Tensor]]
    ) -> tuple[tuple[np.ndarray, ...], None]:
        """Returns the outputs [num_images, ...] of a function of images uint8 [B, H, W, C], and no labels."""
        blocks = self._data.image_blocks(num_images, BLOCK_SIZE)
        return ReplicatedFunction(function)((block,) for block in blocks), None
