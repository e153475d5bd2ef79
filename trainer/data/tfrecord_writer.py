"""Writes prepared datasets: from arrays at once, or a shard record by record."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer.data.dataset_spec import SPEC_NAME, DatasetSpec, Shard
from trainer.errors import DataError, StorageError, count_of
from trainer.storage import check_new_file, file_crc32c, file_sha256, local_path, locate, write_atomically

_FRAME_BYTES = 16
"""Length and checksums of a record in a TFRecord file."""


def write_prepared(
    directory: str | Path,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    name: str,
    source: str,
    license: str,
    attribution: str,
    num_shards: int = 1,
) -> DatasetSpec:
    """Writes a prepared dataset of PNGs from arrays. The same arguments always give the same bytes.

    `dataset.json` is written last, so a directory with this file is complete.

    Args:
        directory: Local directory. It is created if it does not exist.
        images: uint8 [N, H, W, C] in [0, 255], C 1, 3 or 4.
        labels: Integers [N] in [0, len(class_names)).
        class_names: Name of each class, by label.
        name: Name of the dataset.
        source: Source of the images.
        license: License of the images.
        attribution: Attribution that the license requires.
        num_shards: Number of files in [1, N]. The images are divided in order.

    Returns:
        The content of `dataset.json`.

    Raises:
        DataError: If an argument has a wrong type, shape or range.
        StorageError: If something else than a file has the name of the file of a dataset.
    """
    labels = np.asarray(labels)
    _check_arrays(images, labels, len(class_names), num_shards)
    directory = local_path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    check_new_file(locate(directory / SPEC_NAME))
    (directory / SPEC_NAME).unlink(missing_ok=True)
    bounds = [len(images) * index // num_shards for index in range(num_shards + 1)]
    shards = tuple(
        _write_shard(
            directory / f"{name}-{index:05d}-of-{num_shards:05d}.tfrecord", images[start:stop], labels[start:stop]
        )
        for index, (start, stop) in enumerate(itertools.pairwise(bounds))
    )
    height, width, channels = images.shape[1:]
    spec = DatasetSpec(
        name=name,
        image_shape=(height, width, channels),
        num_examples=len(images),
        class_names=tuple(class_names),
        class_counts=tuple(np.bincount(labels, minlength=len(class_names)).tolist()),
        shards=shards,
        source=source,
        license=license,
        attribution=attribution,
    )
    write_atomically(directory / SPEC_NAME, spec.to_json().encode())
    return spec


class ShardWriter:
    """Writes records into the local file of one shard. Close the writer after use.

    Args:
        path: Path of the file.

    Raises:
        StorageError: If the disk is full; as all methods.
    """

    def __init__(self, path: Path):
        self._path = path
        self._num_records = 0
        with self._explain_errors():
            self._writer = tf.io.TFRecordWriter(str(path))

    def add(self, image: bytes, input_image: bytes | None = None, *, label: int) -> None:
        """Writes one record with an encoded image and, in a pair, its encoded input."""
        self.add_record(serialize_example(image, label, input_image))

    def add_record(self, record: bytes) -> None:
        """Writes one serialized record."""
        with self._explain_errors():
            self._writer.write(record)
        self._num_records += 1

    def finish(self) -> Shard:
        """Completes the file and returns its description."""
        with self._explain_errors():
            self._writer.close()
        return describe_shard(self._path, self._num_records)

    def close(self) -> None:
        """Closes the file. An incomplete shard is not used."""
        with contextlib.suppress(tf.errors.OpError):
            self._writer.close()

    @contextlib.contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            raise StorageError(
                f"{self._path} cannot be written ({error.message.rpartition('; ')[2]}); free space on its disk, or set "
                "TMPDIR to a folder on another disk."
            ) from error


def serialize_example(image: bytes, label: int, input_image: bytes | None = None) -> bytes:
    """Returns a record: a serialized `tf.train.Example` with an encoded image, its label and, in a pair, its input."""
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    if input_image is not None:
        feature["input"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[input_image]))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)


def replace_label(record: bytes, label: int) -> bytes:
    """Returns a serialized record with another label."""
    example = tf.train.Example.FromString(record)
    example.features.feature["label"].int64_list.value[:] = [label]
    return example.SerializeToString(deterministic=True)


def record_bytes(image: bytes, input_image: bytes | None = None, *, label: int) -> int:
    """Returns the number of bytes that `ShardWriter.add` appends to a file."""
    return _FRAME_BYTES + len(serialize_example(image, label, input_image))


def describe_shard(path: Path, num_examples: int) -> Shard:
    """Returns the description of a shard for `dataset.json`."""
    return Shard(
        file=path.name,
        num_examples=num_examples,
        num_bytes=path.stat().st_size,
        sha256=file_sha256(path),
        crc32c=file_crc32c(path),
    )


def _check_arrays(images: np.ndarray, labels: np.ndarray, num_classes: int, num_shards: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or not images.size:
        raise DataError(
            f"images are {images.dtype} {list(images.shape)}, expected uint8 [N, H, W, C] with 1, 3 or 4 channels; "
            "convert them first."
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"labels are {labels.dtype} {list(labels.shape)}, expected integers [{len(images)}]; give one label per "
            "image."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataError(
            f"labels range from {labels.min()} to {labels.max()}, expected 0 to {num_classes - 1}; give a name for "
            "every class."
        )
    if not 1 <= num_shards <= len(images):
        raise DataError(
            f"num_shards={num_shards} does not fit {count_of(len(images), 'image')}; choose a number from 1 to "
            f"{len(images)}."
        )


def _write_shard(path: Path, images: np.ndarray, labels: np.ndarray) -> Shard:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image, label in zip(images, labels, strict=True):
            writer.write(serialize_example(tf.io.encode_png(image).numpy(), int(label)))
    return describe_shard(path, len(labels))
