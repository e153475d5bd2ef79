"""Reads prepared datasets: TFRecord shards of encoded images and labels.

A record is a `tf.train.Example` with the features `image` (bytes of an image with 8 bits per channel, in the encoding
that `dataset.json` states) and `label` (int64). In a set of pairs it also has `input`, an image of the same size and
encoding. An array of pairs has the channels of the input first, then those of the image, so that everything that
changes or moves an example treats both alike.
Shapes: `N` images of the dataset, `B` records of a batch, `H W C` height, width and channels, of pairs all channels.
"""

import functools
import io
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from trainer.data.dataset_spec import SPEC_NAME, Shard
from trainer.data.image_encodings import PNG, check_image
from trainer.data.record_files import split_records
from trainer.data.shard_cache import ShardCache
from trainer.errors import DataError, count_of

_MAX_BATCH_SIZE = 1024
_BATCH_BYTES = 2**25
_NO_LABEL = tf.int64.min
_FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string, default_value=""),
    "label": tf.io.FixedLenFeature([], tf.int64, default_value=_NO_LABEL),
}
_INPUT = {"input": tf.io.FixedLenFeature([], tf.string, default_value="")}


def read_prepared(files: ShardCache) -> tuple[np.ndarray, np.ndarray]:
    """Reads a whole prepared dataset into host memory.

    Args:
        files: Local files of the dataset.

    Returns:
        images: uint8 [N, H, W, C] in [0, 255], in the order of the shards.
        labels: int32 [N] in [0, number of classes).

    Raises:
        DataError: If a shard is missing, damaged, or differs from `dataset.json`; the message includes its name.
        StorageError: If a bucket cannot be read.
    """
    spec = files.spec
    batches = read_shards(files, spec.shards)
    images = np.empty((spec.num_examples, *spec.array_shape), np.uint8)
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
            "prepare the dataset again."
        )
    return images, labels


def read_shards(files: ShardCache, shards: Sequence[Shard]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Returns an iterator over the images uint8 [B, H, W, C] and the labels int32 [B] of some shards, batch by batch.

    The first files are fetched, and their sizes are checked, before the function returns.

    Args:
        files: Local files of the dataset.
        shards: Shards to read.

    Raises:
        DataError, StorageError: As `read_prepared`.
    """
    fetched = files.fetch_ahead(shards)
    return itertools.chain.from_iterable(
        _iterate_shard(files, shard, lambda start, stop: np.arange(stop - start)) for shard in fetched
    )


def read_labels(files: ShardCache, shards: Sequence[Shard]) -> np.ndarray:
    """Returns the labels int32 [N] of all records of some shards, without decoding images.

    Args:
        files: Local files of the dataset.
        shards: Shards to read.

    Raises:
        DataError, StorageError: As `read_prepared`.
    """
    fetched, no_images = files.fetch_ahead(shards), np.empty(0, np.int64)
    batches = (batch for shard in fetched for batch in _iterate_shard(files, shard, lambda start, stop: no_images))
    return np.concatenate([labels for _, labels in batches])


def read_records(files: ShardCache, shards: Sequence[Shard], indices: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the images uint8 [B, H, W, C] of some records, batch by batch.

    Args:
        files: Local files of the dataset.
        shards: Shards to read.
        indices: Indices of the records among all records of `shards`, in ascending order.

    Raises:
        DataError, StorageError: As `read_prepared`.
    """
    offset = 0
    for shard in files.fetch_ahead(shards):

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
        files: Local files of the dataset.
        shard: Shard to read.
        select: Function from the range (start, stop) of the records of a batch to the indices in the batch of the
            images to decode.
    """
    name, spec, num_examples = files.display_name(shard), files.spec, shard.num_examples
    start = 0
    try:
        for records in _split_batches(_split_records(files.read(shard), name), _batch_size(spec.array_shape)):
            stop = start + len(records)
            if stop > num_examples:
                raise DataError(
                    f"shard {name} has more than the {count_of(num_examples, 'record')} that {SPEC_NAME} states; "
                    "prepare the dataset again."
                )
            parsed = tf.io.parse_example(records, _FEATURES | (_INPUT if spec.input_channels else {}))
            _check_labels(parsed["label"].numpy(), name, start, len(spec.class_names))
            indices = select(start, stop)
            parts = []
            for feature, channels in (("input", spec.input_channels), ("image", spec.image_shape[2])):
                if channels:
                    shape = (*spec.image_shape[:2], channels)
                    parts.append(_decode_feature(parsed[feature], indices, feature, spec.encoding, shape, start, name))
            images = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
            yield images, parsed["label"].numpy().astype(np.int32)
            start = stop
    except tf.errors.InvalidArgumentError as error:
        raise DataError(
            f"shard {name} has an invalid record at or after record {start}, expected a tf.train.Example with an "
            f"`image` in {spec.encoding} and an int64 `label`; prepare the dataset again."
        ) from error
    if start != num_examples:
        raise DataError(
            f"shard {name} has {count_of(start, 'record')}, but {SPEC_NAME} states {num_examples}; prepare the dataset "
            "again."
        )


def _decode_feature(
    encoded_images: tf.Tensor,
    indices: np.ndarray,
    feature: str,
    encoding: str,
    shape: tuple[int, int, int],
    start: int,
    shard: str,
) -> np.ndarray:
    """Checks the encoded images of a feature, string [B], and decodes some of them.

    Args:
        encoded_images: Encoded images of the records of a batch.
        indices: Indices in the batch of the images to decode, int64 [N].
        feature: Name of the feature, for messages.
        encoding: Encoding of the images.
        shape: Expected shape, (H, W, C).
        start: Index of the first record of the batch in the shard, for messages.
        shard: Name of the shard, for messages.

    Returns:
        Images uint8 [N, H, W, C].
    """
    for index, image in enumerate(encoded_images.numpy()):
        record = f"record {start + index} of shard {shard}"
        if not image:
            raise DataError(f"{record} has no feature `{feature}`, expected an image; prepare the dataset again.")
        try:
            check_image(image, encoding, shape)
        except DataError as error:
            raise DataError(f"{record} has an `{feature}` that {error}; prepare the dataset again.") from error
    selected = tf.gather(encoded_images, indices)
    return batch_decoder(encoding, shape[2])(selected).numpy() if len(selected) else np.empty((0, *shape), np.uint8)


def _batch_size(array_shape: tuple[int, int, int]) -> int:
    """Returns the number of records of a batch, whose decoded images take at most `_BATCH_BYTES` or are one image."""
    return max(1, min(_MAX_BATCH_SIZE, _BATCH_BYTES // math.prod(array_shape)))


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
        raise DataError(f"shard {name} {error}; prepare the dataset again.") from error


def _check_labels(labels: np.ndarray, name: str, start: int, num_classes: int) -> None:
    """Checks the labels int64 [B] of a batch whose first record has the index `start`."""
    invalid = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if invalid.size:
        label = labels[invalid[0]]
        received = "no feature `label`" if label == _NO_LABEL else f"label {label}"
        raise DataError(
            f"record {start + invalid[0]} of shard {name} has {received}, expected 0 to {num_classes - 1}; "
            "prepare the dataset again."
        )


@functools.cache
def batch_decoder(encoding: str, channels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that decodes images, string [B], to uint8 [B, H, W, C], several at a time.

    Args:
        encoding: Key of `image_encodings.ENCODINGS`.
        channels: Number of channels, one of those of the encoding.
    """

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def decode(images: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            lambda image: _DECODERS[encoding](image, channels),
            images,
            fn_output_signature=tf.uint8,
            parallel_iterations=32,
        )

    return decode


def _decode_webp(image: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes a WebP to uint8 [H, W, C]. The public functions of TensorFlow decode WebP only to an unknown rank."""
    pixels = tf.raw_ops.DecodeWebP(contents=image)[0]
    if channels == 4:
        pixels = tf.pad(pixels, [[0, 0], [0, 0], [0, 4 - tf.shape(pixels)[2]]], constant_values=255)
    return pixels[..., :channels]


_DECODERS: dict[str, Callable[[tf.Tensor, int], tf.Tensor]] = {
    PNG: lambda image, channels: tf.io.decode_png(image, channels),
    # This method computes with integers, which give the same pixels on every machine.
    "jpeg": lambda image, channels: tf.io.decode_jpeg(image, channels, dct_method="INTEGER_ACCURATE"),
    "webp": _decode_webp,
}
