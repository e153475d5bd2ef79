"""Reads a data set's images and labels into host memory.

Shapes: `N` images, `H W C` height, width and channels.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator

import keras
import numpy as np

from trainer.config import TrainConfig
from trainer.data import stacked, transforms
from trainer.data.datasets import (
    DOWNLOADED,
    DatasetInfo,
    derived_source,
    describe,
    is_prepared,
    prepared_folder,
    stacked_source,
)
from trainer.data.pipeline.chunk_schedule import ChunkSchedule
from trainer.data.pipeline.loaders import StreamedDataset
from trainer.data.shard_cache import DEFAULT_CACHE_MIB, ShardCache
from trainer.data.tfrecord_reader import read_prepared, read_shards
from trainer.errors import ConfigError, DataError

_KERAS_CACHE = {
    "mnist": "~/.keras/datasets/mnist.npz",
    "fashion_mnist": "~/.keras/datasets/fashion-mnist/ (four *-ubyte.gz files)",
    "cifar10": "~/.keras/datasets/cifar-10-batches-py-target_archive (the file cifar-10-python.tar.gz)",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """A data set in host memory."""

    images: np.ndarray
    """uint8 [N, H, W, C] in [0, 255]."""
    labels: np.ndarray
    """int32 [N] in [0, info.num_classes)."""
    info: DatasetInfo

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the images, their labels and their shape: 64 hex digits, equal for equal data in equal order."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


def load(
    name: str,
    classes: tuple[int, ...] | None = None,
    padding: int = 0,
    cache_mib: float = DEFAULT_CACHE_MIB,
) -> Arrays:
    """Loads a data set: the embedded one, a directory's, the training split of one that keras.datasets downloads, or
    one that is stacked or derived from any of these.

    Args:
        name: a name or directory that `trainer.data.describe` knows.
        classes: labels to keep; `None` keeps all. Labels keep their numbers.
        padding: pixels on every side of every image, at least 0: 2 makes 28x28 into 32x32. They have the value 0 in the
            set that others are derived from, and so 255 in an `inverted:` one.
        cache_mib: of the cache for shards of a set in a bucket.

    Returns:
        The images in the data set's own order.

    Raises:
        ConfigError: if the name or a class is unknown, or the padding is negative.
        DataError: if a file is damaged, a download fails, or the data are not what the description states.
    """
    info = describe(name, padding).with_classes(classes)
    if name.startswith(stacked.PREFIX):
        source = load(stacked_source(name), None, padding, cache_mib)
        return Arrays(*stacked.stack(source.images, source.labels, classes), info)
    derivation, source_name = derived_source(name)
    if derivation:
        whole = load(source_name, classes, padding, cache_mib)
        return Arrays(transforms.DERIVATIONS[derivation](whole.images), whole.labels, info)
    if name in DOWNLOADED:
        images, labels = _load_downloaded(DOWNLOADED[name])
    else:
        images, labels = read_prepared(ShardCache(prepared_folder(name), cache_mib=cache_mib))
    if classes is not None:
        kept = np.isin(labels, classes)
        images, labels = images[kept], labels[kept]
    if padding:
        images = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    return Arrays(images, labels, info)


def blocks(name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Loads a data set part by part: a prepared one shard by shard, another one whole.

    Returns:
        images uint8 [N, H, W, C] and labels int32 [N] of each part, in order.

    Raises:
        ConfigError, DataError, StorageError: as `load`.
    """
    if not is_prepared(name):
        whole = load(name)
        yield whole.images, whole.labels
        return
    files = ShardCache(prepared_folder(name))
    for shard in files.manifest.shards:
        yield from read_shards(files, [shard])


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What a run trains on.

    Attributes:
        x: What `GAN.fit` takes as its first argument: images, or a stream.
        y: As its second: labels, images of the other domain, or None with a stream, which has its own.
        info: Of the data set.
        largest_batch: That it can fill.
        fingerprints: Of the data, by name.
    """

    x: np.ndarray | StreamedDataset
    y: np.ndarray | None
    info: DatasetInfo
    largest_batch: int
    fingerprints: dict[str, str]

    @property
    def real_images(self) -> tuple[np.ndarray, ...]:
        """Images that metrics compare with, of each domain: uint8 [N, H, W, C]; of a stream, those of a window."""
        if isinstance(self.x, StreamedDataset):
            images, _, size = self.x.load(0)
            return (images[:size],)
        return (self.x,) if self.y is None or self.y.ndim == 1 else (self.x, self.y)


def load_training_data(config: TrainConfig) -> TrainingData:
    """Loads what a config trains on; of a set in several windows, nothing yet.

    Raises:
        ConfigError, DataError, StorageError: as `load` and `stream_for`.
    """
    if (config.num_chunks or 1) > 1:
        stream = stream_for(config)
        info = describe(config.dataset, config.padding).with_classes(config.classes)
        return TrainingData(stream, None, info, stream.num_examples, {"data": stream.fingerprint})
    arrays = load(config.dataset, config.classes, config.padding, config.cache_mib)
    if config.dataset_b is None:
        fingerprints = {"data": arrays.fingerprint}
        return TrainingData(arrays.images, arrays.labels, arrays.info, len(arrays.images), fingerprints)
    others = load(config.dataset_b, None, config.padding, config.cache_mib)
    fingerprints = {"data": arrays.fingerprint, "data_b": others.fingerprint}
    smaller = min(len(arrays.images), len(others.images))
    return TrainingData(arrays.images, others.images, arrays.info, smaller, fingerprints)


def stream_for(config: TrainConfig) -> StreamedDataset:
    """The prepared set of a config, cut into `num_chunks` windows.

    Raises:
        ConfigError: The set does not consist of shards, has fewer of them than windows, or is not the only domain.
        DataError, StorageError: as `describe`.
    """
    count = int(config.num_chunks or 1)
    if not is_prepared(config.dataset) or config.dataset_b is not None:
        raise ConfigError(f"num_chunks={count} needs one prepared data set; give 1 for dataset={config.dataset}.")
    describe(config.dataset).with_classes(config.classes)
    files = ShardCache(prepared_folder(config.dataset), cache_mib=config.cache_mib)
    if count > len(files.manifest.shards):
        raise ConfigError(
            f"num_chunks={count} exceeds the {len(files.manifest.shards)} shards of {config.dataset}; give fewer."
        )
    return StreamedDataset(
        files, ChunkSchedule(files.manifest.shards, count, config.seed), config.classes, config.padding
    )


def _load_downloaded(info: DatasetInfo) -> tuple[np.ndarray, np.ndarray]:
    dataset = getattr(keras.datasets, info.name)
    try:
        (images, labels), _ = dataset.load_data()
    except Exception as error:  # keras.utils.get_file raises bare Exception when a download fails
        raise DataError(
            f"{info.name} could not be downloaded or read by keras.datasets ({error}); put it by hand at "
            f"{_KERAS_CACHE[info.name]}, or use --dataset=digits, which needs no download."
        ) from error
    images = images.reshape(-1, *info.image_shape)
    labels = labels.reshape(-1).astype(np.int32)
    counts = tuple(np.bincount(labels, minlength=info.num_classes).tolist())
    if counts != info.class_counts:
        raise DataError(
            f"{info.name} holds {list(counts)} images a class, expected {list(info.class_counts)}; "
            f"delete {_KERAS_CACHE[info.name]} and download it again."
        )
    return images, labels
