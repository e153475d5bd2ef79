"""Reads prepared data sets: TFRecord shards of PNG images and labels.

A record is a `tf.train.Example` with the features `image` (bytes of a PNG with 8 bits per channel) and `label` (int64).
Shapes: `N` images of the data set, `B` records of a batch, `H W C` height, width and channels.
"""

import io
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from trainer.data.dataset_spec import SPEC_NAME, Shard
from trainer.data.record_files import split_records
from trainer.data.shard_cache import ShardCache
from trainer.errors import DataError, count_of

_MAX_BATCH_SIZE = 1024
_BATCH_BYTES = 2**25
_PNG_HEADER_BYTES = 26
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COMPRESSED_TEXTS = (b"zTXt", b"iTXt")  # the decoder would expand a thousand of them in memory
_CHANNELS_OF_COLOR_TYPE = {0: 1, 2: 3, 6: 4}
_NO_LABEL = tf.int64.min
_FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string, default_value=""),
    "label": tf.io.FixedLenFeature([], tf.int64, default_value=_NO_LABEL),
}


def read_prepared(files: ShardCache) -> tuple[np.ndarray, np.ndarray]:
    """Reads a whole prepared data set into host memory.

    Args:
        files: Local files of the data set.

    Returns:
        images: uint8 [N, H, W, C] in [0, 255], in the order of the shards.
        labels: int32 [N] in [0, number of classes).

    Raises:
        DataError: If a shard is missing, damaged, or differs from `dataset.json`; the message includes its name.
        StorageError: If a bucket cannot be read.
    """
    spec = files.spec
    batches = read_shards(files, spec.shards)
    images = np.empty((spec.num_examples, *spec.image_shape), np.uint8)
    labels = np.empty(spec.num_examples, np.int32)
    start = 0
    for batch_images, batch_labels in batches:
        stop = start + len(batch_labels)
        images[start:stop], labels[start:stop] = batch_images, batch_labels
        start = stop
    counts = tuple(np.bincount(labels, minlength=len(spec.class_counts)).tolist())
    if counts != spec.class_counts:
        raise DataError(
            f"{spec.name} has {list(counts)} images per class, but its {SPEC_NAME} states {list(spec.class_counts)}; "
            "prepare the data set again."
        )
    return images, labels


def read_shards(files: ShardCache, shards: Sequence[Shard]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Returns an iterator over the images uint8 [B, H, W, C] and the labels int32 [B] of some shards, batch by batch.

    The files are fetched and their sizes are checked before the function returns.

    Args:
        files: Local files of the data set.
        shards: Shards to read.

    Raises:
        DataError, StorageError: As `read_prepared`.
    """
    files.fetch(shards)
    return itertools.chain.from_iterable(
        _iterate_shard(files, shard, lambda start, stop: np.arange(stop - start)) for shard in shards
    )


def read_labels(files: ShardCache, shards: Sequence[Shard]) -> np.ndarray:
    """Returns the labels int32 [N] of all records of some shards, without decoding images.

    Args:
        files: Local files of the data set.
        shards: Shards to read.

    Raises:
        DataError, StorageError: As `read_prepared`.
    """
    files.fetch(shards)
    no_images = np.empty(0, np.int64)
    batches = (batch for shard in shards for batch in _iterate_shard(files, shard, lambda start, stop: no_images))
    return np.concatenate([labels for _, labels in batches])


def read_records(files: ShardCache, shards: Sequence[Shard], indices: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the images uint8 [B, H, W, C] of some records, batch by batch.

    Args:
        files: Local files of the data set.
        shards: Shards to read.
        indices: Indices of the records among all records of `shards`, in ascending order.

    Raises:
        DataError, StorageError: As `read_prepared`.
    """
    offset = 0
    files.fetch(shards)
    for shard in shards:

        def select(start: int, stop: int, offset: int = offset) -> np.ndarray:
            low, high = np.searchsorted(indices, [offset + start, offset + stop])
            return indices[low:high] - (offset + start)

        for images, _ in _iterate_shard(files, shard, select):
            yield images
        offset += shard.num_examples


def _iterate_shard(
    files: ShardCache, shard: Shard, select: Callable[[int, int], np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the checked records of a shard in batches: selected images uint8 [N, H, W, C] and all labels int32 [B].

    Args:
        files: Local files of the data set.
        shard: Shard to read.
        select: Function from the range (start, stop) of the records of a batch to the indices in the batch of the
            images to decode.
    """
    name, spec, num_examples = files.display_name(shard), files.spec, shard.num_examples
    start = 0
    try:
        for records in _split_batches(_split_records(files.read(shard), name), _batch_size(spec.image_shape)):
            stop = start + len(records)
            if stop > num_examples:
                raise DataError(
                    f"shard {name} has more than the {count_of(num_examples, 'record')} that {SPEC_NAME} states; "
                    "prepare the data set again."
                )
            parsed = tf.io.parse_example(records, _FEATURES)
            _check_labels(parsed["label"].numpy(), name, start, len(spec.class_names))
            for index, png in enumerate(parsed["image"].numpy()):
                _check_png(png, f"record {start + index} of shard {name}", spec.image_shape)
            pngs = tf.gather(parsed["image"], select(start, stop))
            no_images = np.empty((0, *spec.image_shape), np.uint8)
            images = _decode(pngs, spec.image_shape[2]).numpy() if len(pngs) else no_images
            yield images, parsed["label"].numpy().astype(np.int32)
            start = stop
    except tf.errors.InvalidArgumentError as error:
        raise DataError(
            f"shard {name} has an invalid record at or after record {start}, expected a tf.train.Example with a PNG "
            "`image` and an int64 `label`; prepare the data set again."
        ) from error
    if start != num_examples:
        raise DataError(
            f"shard {name} has {count_of(start, 'record')}, but {SPEC_NAME} states {num_examples}; prepare the data "
            "set again."
        )


def _batch_size(image_shape: tuple[int, int, int]) -> int:
    """Returns the number of records of a batch, whose decoded images take at most `_BATCH_BYTES` or are one image."""
    return max(1, min(_MAX_BATCH_SIZE, _BATCH_BYTES // math.prod(image_shape)))


def _split_batches(records: Iterator[bytes], batch_size: int) -> Iterator[list[bytes]]:
    return iter(lambda: list(itertools.islice(records, batch_size)), [])


def _split_records(content: bytes, name: str) -> Iterator[bytes]:
    """Yields the records of a shard.

    Args:
        content: Content of the file.
        name: Name of the shard for messages.

    Raises:
        DataError: If a record is damaged.
    """
    try:
        yield from split_records(io.BytesIO(content), len(content))
    except DataError as error:
        raise DataError(f"shard {name} {error}; prepare the data set again.") from error


def _check_labels(labels: np.ndarray, name: str, start: int, num_classes: int) -> None:
    """Checks the labels int64 [B] of a batch whose first record has the index `start`."""
    invalid = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if invalid.size:
        label = labels[invalid[0]]
        received = "no feature `label`" if label == _NO_LABEL else f"label {label}"
        raise DataError(
            f"record {start + invalid[0]} of shard {name} has {received}, expected 0 to {num_classes - 1}; "
            "prepare the data set again."
        )


def _check_png(png: bytes, record: str, image_shape: tuple[int, int, int]) -> None:
    """Checks the header of a PNG, which contains the shape, without decoding the image."""
    if not png:
        raise DataError(f"{record} has no feature `image`, expected the bytes of a PNG; prepare the data set again.")
    header = png[:_PNG_HEADER_BYTES]
    if len(header) < _PNG_HEADER_BYTES or not header.startswith(_PNG_SIGNATURE):
        raise DataError(f"{record} has an `image` that is not a PNG; prepare the data set again.")
    width, height = int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
    shape = (height, width, _CHANNELS_OF_COLOR_TYPE.get(header[25], 0))
    if shape != image_shape or header[24] != 8:
        raise DataError(
            f"{record} is a PNG of shape {list(shape)} with {header[24]} bits, expected {list(image_shape)} with "
            "8 bits; prepare the data set again."
        )
    position = len(_PNG_SIGNATURE)
    while position < len(png):
        length, kind = int.from_bytes(png[position : position + 4], "big"), png[position + 4 : position + 8]
        if kind in _COMPRESSED_TEXTS:
            raise DataError(
                f"{record} is a PNG with a compressed text, expected pixels only; prepare the data set again."
            )
        position += length + 12


@tf.function(reduce_retracing=True, autograph=False)
def _decode(pngs: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes PNGs, string [B], to images uint8 [B, H, W, C], several at a time."""
    return tf.map_fn(
        lambda png: tf.io.decode_png(png, channels=channels), pngs, fn_output_signature=tf.uint8, parallel_iterations=32
    )
