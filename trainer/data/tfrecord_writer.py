"""Writes prepared data sets: from arrays at once, or record by record into shards that are copied in the background."""

import concurrent.futures
import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer.data.dataset_spec import SPEC_NAME, DatasetSpec, Shard
from trainer.errors import DataError, StorageError, count_of
from trainer.storage import Location, file_crc32c, file_sha256, local_path, write_atomically

_PREFIX = "images-"
_SHARD = rf"{_PREFIX}[0-9]{{5,}}\.tfrecord"
_LEFTOVER = re.compile(rf"{_SHARD}|\.{_SHARD}\.partial|\.{re.escape(SPEC_NAME)}\.[a-z0-9_]{{8}}")


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
    """Writes a prepared data set from arrays. The same arguments always give the same bytes.

    `dataset.json` is written last, so a directory with this file is complete.

    Args:
        directory: Local directory. It is created if it does not exist.
        images: uint8 [N, H, W, C] in [0, 255], C 1, 3 or 4.
        labels: Integers [N] in [0, len(class_names)).
        class_names: Name of each class, by label.
        name: Name of the data set.
        source: Source of the images.
        license: License of the images.
        attribution: Attribution that the license requires.
        num_shards: Number of files in [1, N]. The images are divided in order.

    Returns:
        The content of `dataset.json`.

    Raises:
        DataError: If an argument has a wrong type, shape or range.
    """
    labels = np.asarray(labels)
    _check_arrays(images, labels, len(class_names), num_shards)
    directory = local_path(directory)
    directory.mkdir(parents=True, exist_ok=True)
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
    """Writes records into shards. While one shard is written, the previous one is copied. Close the writer after use.

    Args:
        scratch: Local folder for shards that are not copied yet.
        out: Destination folder.
        shard_mib: Size in MiB at which a new shard begins.
        verify_lease: Function that is called before a shard is copied. An exception prevents the copy.
    """

    def __init__(self, scratch: Path, out: Location, shard_mib: float, verify_lease: Callable[[], None] = lambda: None):
        self._scratch, self._out, self._verify_lease = scratch, out, verify_lease
        self._max_bytes = shard_mib * 2**20
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="shards")
        self._copies: list[concurrent.futures.Future[Shard]] = []
        self._writer: tf.io.TFRecordWriter | None = None
        self._num_records = self._num_bytes = 0

    def close(self) -> None:
        """Discards an unfinished shard and waits for running copies."""
        if self._writer is not None:
            with contextlib.suppress(tf.errors.OpError):  # an unfinished shard is not used
                self._writer.close()
        self._thread.shutdown(cancel_futures=True)

    def add(self, png: bytes, label: int) -> None:
        """Writes one record.

        Raises:
            StorageError: If the disk is full, or a previous shard could not be copied.
        """
        record = serialize_example(png, label)
        with self._explain_errors():
            if self._writer is None:
                self._writer = tf.io.TFRecordWriter(str(self._path))
            self._writer.write(record)
        self._num_records += 1
        self._num_bytes += len(record)
        if self._num_bytes >= self._max_bytes:
            self._end_shard(self._writer)

    def finish(self) -> tuple[Shard, ...]:
        """Waits until all shards are copied, and returns them.

        Raises:
            StorageError: If the disk is full, or a shard could not be copied.
        """
        if self._writer is not None:
            self._end_shard(self._writer)
        return tuple(copy.result() for copy in self._copies)

    @property
    def _path(self) -> Path:
        return self._scratch / f"{_PREFIX}{len(self._copies):05d}.tfrecord"

    @contextlib.contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            raise StorageError(
                f"{self._path} cannot be written ({error.message.rpartition('; ')[2]}); free space on its disk, or set "
                "TMPDIR to a folder on another disk."
            ) from error

    def _end_shard(self, writer: tf.io.TFRecordWriter) -> None:
        path, self._writer = self._path, None
        with self._explain_errors():
            writer.close()
        if len(self._copies) > 1:
            self._copies[-2].result()  # raises errors early, and limits the number of shards on the local disk
        self._copies.append(self._thread.submit(self._copy, path, self._num_records))
        self._num_records = self._num_bytes = 0

    def _copy(self, path: Path, num_records: int) -> Shard:
        shard = describe_shard(path, num_records)
        self._verify_lease()
        self._out.upload(path.parent, [path.name])
        path.unlink()
        return shard


def find_leftover_shards(out: Location) -> list[str]:
    """Returns the names of the shards and partial files that an interrupted conversion left in a folder.

    Raises:
        StorageError: If the folder cannot be listed.
    """
    return [entry.name for entry in out.entries(recursive=False) if _LEFTOVER.fullmatch(entry.name)]


def serialize_example(png: bytes, label: int) -> bytes:
    """Returns a record: a serialized `tf.train.Example` with one image and its label."""
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[png])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)


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
