"""Loads the images and labels of a dataset into host memory.

Shapes: `N` images, `H W C` height, width and channels.
"""

import dataclasses
import functools
import hashlib
import itertools
import math
import os
from collections.abc import Iterable, Iterator

import keras
import numpy as np

from trainer.config import TrainConfig
from trainer.config.dataset_names import DatasetPrefix, split_prefix
from trainer.config.fields import check_number
from trainer.data import stacked
from trainer.data.dataset_spec import DatasetSpec, Shard, fingerprint_of
from trainer.data.datasets import (
    KERAS_DATASETS,
    DatasetInfo,
    KerasDataset,
    dataset_name,
    describe,
    is_prepared,
    machine_memory_mib,
    prepared_folder,
    root_source,
    selected_classes,
)
from trainer.data.pipeline.chunk_schedule import ChunkSchedule
from trainer.data.pipeline.loaders import StreamedDataset
from trainer.data.second_dataset import check_second_dataset
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_reader import read_prepared, read_shards
from trainer.data.transforms import TRANSFORMS
from trainer.errors import ConfigError, DataError, count_of


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """A dataset in host memory."""

    images: np.ndarray
    """uint8 [N, H, W, C] in [0, 255]; in pairs, C are the channels of the input followed by those of the image."""
    labels: np.ndarray
    """int32 [N] in [0, info.num_classes)."""
    info: DatasetInfo
    shards: tuple[Shard, ...] = ()
    """Shards of the prepared dataset that the images come from; empty for a dataset of Keras."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the images, their shape and the labels, in their order: 64 hexadecimal digits."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


def load(
    name: str | os.PathLike[str],
    classes: Iterable[int] | None = None,
    padding: int = 0,
    cache_mib: float = TrainConfig.cache_mib,
) -> Arrays:
    """Loads a dataset: the embedded digits, a prepared dataset, the training split of a dataset of Keras, or a
    stacked or transformed dataset made from one of these.

    Args:
        name: Name or folder that `trainer.data.describe` accepts.
        classes: Labels to keep; labels are not renumbered. None: all labels.
        padding: Pixels added to every side of every image, at least 0: 2 turns 28x28 into 32x32. Padding has the value
            0 in the source of a transformed dataset, and therefore 255 in an `inverted:` one.
        cache_mib: Maximum size in MiB of the cache for shards in a bucket.

    Returns:
        The images in the order of the dataset.

    Raises:
        ConfigError: If the name or a class is unknown, the padding is negative, or the data exceeds the memory.
        DataError: If a file is damaged, a download fails, or the data differs from its description.
        StorageError: If a bucket cannot be read.
    """
    name, classes = dataset_name(name), selected_classes(classes)
    check_number("cache_mib", cache_mib)
    files = _open_files(name, cache_mib)
    info = describe(name, padding, files.spec if files else None).with_classes(classes)
    _check_memory(info, files.spec if files else None)
    return Arrays(*_load_arrays(name, classes, padding, files), info, files.spec.shards if files else ())


def open_batches(
    name: str | os.PathLike[str], max_shards: int | None = None
) -> tuple[DatasetInfo, Iterator[tuple[np.ndarray, np.ndarray]]]:
    """Opens a dataset to read it batch by batch.

    Args:
        name: Name or folder that `trainer.data.describe` accepts.
        max_shards: Number of shards to read of a prepared dataset. None: all shards.

    Returns:
        info: Description of the dataset.
        batches: Iterator over images uint8 [B, H, W, C] in [0, 255], with the inputs of pairs before them in C, and
            labels int32 [B], in order. A dataset that is not prepared is one batch.

    Raises:
        ConfigError, DataError, StorageError: As `load`.
    """
    name = dataset_name(name)
    files = _open_files(name, TrainConfig.cache_mib)
    info = describe(name, spec=files.spec if files else None)
    if files is None or not is_prepared(name):
        return info, iter([_load_arrays(name, None, 0, files)])
    shards = files.spec.shards[:max_shards]
    return info, itertools.chain.from_iterable(read_shards(files, [shard]) for shard in shards)


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Training data of a run.

    Attributes:
        x: First argument of `GAN.fit`: images, pairs, or a streamed dataset.
        y: Second argument of `GAN.fit`: labels or images of the second domain; None for a streamed dataset, which
            includes its labels.
        info: Description of the dataset.
        max_batch_size: Largest global batch size that the data can fill.
        fingerprints: Fingerprints of the datasets, by name.
        source_fingerprint: Fingerprint of what the images are made of and how, which is the same for arrays and streams
            of the same images.
        held_out: Pairs that are not in `x`, uint8 [N, H, W, C]. None: there are none.
    """

    x: np.ndarray | StreamedDataset
    y: np.ndarray | None
    info: DatasetInfo
    max_batch_size: int
    fingerprints: dict[str, str]
    source_fingerprint: str
    held_out: np.ndarray | None = None

    def real_images(self, num_images: int | None = None) -> tuple[np.ndarray, ...]:
        """Returns the first images of each domain, in the order of the datasets.

        The two domains of pairs are inputs and images. They are of the held-out pairs if there are any.

        Args:
            num_images: Largest number of images of a domain. None: all images.

        Returns:
            uint8 [N, H, W, C] per domain.

        Raises:
            DataError, StorageError: If a shard of a streamed dataset cannot be read.
        """
        if self.info.input_channels:
            pairs = self.held_out if self.held_out is not None else np.concatenate(list(self._blocks(num_images, 1024)))
            return tuple(np.split(pairs[:num_images], [self.info.input_channels], axis=-1))
        if isinstance(self.x, StreamedDataset):
            return (np.concatenate(list(self.image_blocks(num_images, 1024))),)
        domains = (self.x,) if self.y is None or self.y.ndim == 1 else (self.x, self.y)
        return tuple(images[:num_images] for images in domains)

    def image_blocks(self, num_images: int | None, block_size: int) -> Iterator[np.ndarray]:
        """Yields the first images of the first domain in blocks: uint8 [block_size, H, W, C], and the rest.

        The blocks of a stream are read one by one, and do not depend on its shards and chunks. The inputs of pairs are
        left out.

        Args:
            num_images: Largest number of images. None: all images.
            block_size: Number of images of a block.

        Raises:
            DataError, StorageError: If a shard of a streamed dataset cannot be read.
        """
        for block in self._blocks(num_images, block_size):
            yield block[..., self.info.input_channels :]

    def _blocks(self, num_images: int | None, block_size: int) -> Iterator[np.ndarray]:
        """Yields the blocks of `image_blocks` with the inputs of pairs."""
        batches = self.x.images() if isinstance(self.x, StreamedDataset) else iter([self.x])
        images = itertools.islice(itertools.chain.from_iterable(batches), num_images)
        while block := list(itertools.islice(images, block_size)):
            yield np.stack(block)


def load_training_data(config: TrainConfig) -> TrainingData:
    """Loads the training data of a config. A dataset in several chunks is loaded later, chunk by chunk.

    Raises:
        ConfigError, DataError, StorageError: As `load` and `open_stream`.
    """
    if (config.num_chunks or 1) > 1:
        stream = open_stream(config)
        info = describe(config.dataset, config.padding, stream.files.spec).with_classes(config.class_numbers)
        source = _source_fingerprint(config, stream.fingerprint)
        data = TrainingData(stream, None, info, stream.num_examples, {"data": stream.fingerprint}, source)
        return _with_held_out_pairs(_with_condition_fingerprint(data), config)
    arrays = load(config.dataset, config.class_numbers, config.padding, config.cache_mib)
    source = _source_fingerprint(config, fingerprint_of(arrays.shards) if arrays.shards else arrays.fingerprint)
    if config.dataset_b is None or arrays.info.input_channels:
        fingerprints = {"data": arrays.fingerprint}
        data = TrainingData(arrays.images, arrays.labels, arrays.info, len(arrays.images), fingerprints, source)
        return _with_held_out_pairs(_with_condition_fingerprint(data), config)
    arrays_b = load(config.dataset_b, None, config.padding, config.cache_mib)
    check_second_dataset(config, arrays.info, arrays_b.info)
    fingerprints = {"data": arrays.fingerprint, "data_b": arrays_b.fingerprint}
    smaller_size = min(len(arrays.images), len(arrays_b.images))
    return TrainingData(arrays.images, arrays_b.images, arrays.info, smaller_size, fingerprints, source)


def _with_condition_fingerprint(data: TrainingData) -> TrainingData:
    """Adds the fingerprint of conditions, if there are any. The shards have only the numbers of their vectors."""
    if not data.info.condition_names:
        return data
    names = repr((data.info.condition_names, data.info.class_names))
    fingerprints = data.fingerprints | {"conditions": hashlib.sha256(names.encode()).hexdigest()}
    return dataclasses.replace(data, fingerprints=fingerprints)


def _with_held_out_pairs(data: TrainingData, config: TrainConfig) -> TrainingData:
    """Adds the pairs of the second dataset, if there is one.

    Raises:
        ConfigError: If it has no pairs, or its shapes are not those of the training pairs.
    """
    if config.dataset_b is None:
        return data
    held_out = load(config.dataset_b, None, config.padding, config.cache_mib)
    check_second_dataset(config, data.info, held_out.info)
    fingerprints = data.fingerprints | {"data_b": held_out.fingerprint}
    return dataclasses.replace(data, fingerprints=fingerprints, held_out=held_out.images)


def _source_fingerprint(config: TrainConfig, files: str) -> str:
    """Returns `TrainingData.source_fingerprint` from the fingerprint of the shards, or of the pixels without shards."""
    prefixes = config.dataset.removesuffix(root_source(config.dataset))
    classes = config.class_numbers and sorted(config.class_numbers)
    return hashlib.sha256(repr((files, prefixes, classes, config.padding)).encode()).hexdigest()


def open_stream(config: TrainConfig) -> StreamedDataset:
    """Opens the prepared dataset of a config, divided into `num_chunks` chunks.

    Raises:
        ConfigError: If the dataset has no shards or fewer shards than chunks, or there is a second domain.
        DataError, StorageError: As `describe`.
    """
    num_chunks = int(config.num_chunks or 1)
    is_shards = is_prepared(config.dataset)
    files = ShardCache(prepared_folder(config.dataset), cache_mib=config.cache_mib) if is_shards else None
    if files is None or (config.dataset_b is not None and not files.spec.input_channels):
        raise ConfigError(
            f"num_chunks={num_chunks} needs a single prepared dataset; set it to 1 for dataset={config.dataset}."
        )
    describe(config.dataset, spec=files.spec).with_classes(config.class_numbers)
    shards = files.spec.shards
    if num_chunks > len(shards):
        raise ConfigError(
            f"num_chunks={num_chunks} exceeds the {count_of(len(shards), 'shard')} of {config.dataset}; choose a "
            "smaller number."
        )
    schedule = ChunkSchedule(shards, num_chunks, config.seed)
    return StreamedDataset(files, schedule, config.class_numbers, config.padding)


def _open_files(name: str, cache_mib: float) -> ShardCache | None:
    """Opens the files that a dataset is made from. None: a dataset of Keras."""
    source = root_source(name)
    return None if source in KERAS_DATASETS else ShardCache(prepared_folder(source), cache_mib=cache_mib)


def _check_memory(info: DatasetInfo, spec: DatasetSpec | None) -> None:
    """Rejects a dataset that is larger than the memory, as its files have it or as it is after its transforms.

    Args:
        info: Description of the dataset after selection, padding and transforms.
        spec: Description of its files; None for a dataset of Keras.
    """
    sources = (info,) if spec is None else (info, spec)
    needed_mib = max(source.num_examples * math.prod(source.array_shape) for source in sources) / 2**20
    memory_mib = machine_memory_mib()
    if needed_mib > memory_mib:
        raise ConfigError(
            f"the decoded images of {info.name} take {needed_mib:,.0f} MiB, more than the {memory_mib:,.0f} MiB of "
            "this machine; train with a larger num_chunks, or use fewer or smaller images, or less padding."
        )


def _load_arrays(
    name: str, classes: tuple[int, ...] | None, padding: int, files: ShardCache | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images and labels that `load` returns, from opened files."""
    prefix, source = split_prefix(name)
    if prefix == DatasetPrefix.STACKED:
        images, labels = _load_arrays(source, None, padding, files)
        return stacked.stack(images, labels, classes)
    if prefix is not None:
        images, labels = _load_arrays(source, classes, padding, files)
        return TRANSFORMS[prefix].function(images), labels
    images, labels = _load_from_keras(KERAS_DATASETS[name]) if files is None else read_prepared(files)
    if classes is not None:
        is_selected = np.isin(labels, classes)
        images, labels = images[is_selected], labels[is_selected]
    if padding:
        images = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    return images, labels


def _load_from_keras(dataset: KerasDataset) -> tuple[np.ndarray, np.ndarray]:
    info = dataset.info
    try:
        (images, labels), _ = getattr(keras.datasets, info.name).load_data()
    except Exception as error:  # keras.utils.get_file raises bare Exception when a download fails
        raise DataError(
            f"{info.name} could not be downloaded or read by keras.datasets ({error}); copy it to "
            f"{dataset.cache}, or use --dataset=digits, which needs no download."
        ) from error
    images = images.reshape(-1, *info.image_shape)
    labels = labels.reshape(-1).astype(np.int32)
    counts = tuple(np.bincount(labels, minlength=info.num_classes).tolist())
    if counts != info.class_counts:
        raise DataError(
            f"{info.name} has {list(counts)} images per class, expected {list(info.class_counts)}; "
            f"delete {dataset.cache} and download it again."
        )
    return images, labels
