"""The prepared data set: TFRecord shards of PNG images and labels, and the `dataset.json` that describes them.

A record is a `tf.train.Example` with the features `image` (bytes, one PNG of 8 bits a channel) and `label` (int64).
Shapes: `N` images of the set, `B` of one batch, `H W C` height, width and channels.
"""

import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from trainer.data.dataset_spec import SPEC_NAME, DatasetSpec, Shard
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_writer import described, serialized
from trainer.errors import DataError

_PARSE_BATCH = 1024
_PNG_HEADER_BYTES = 26
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS_OF_COLOR_TYPE = {0: 1, 2: 3, 6: 4}
_NO_LABEL = tf.int64.min
_FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string, default_value=""),
    "label": tf.io.FixedLenFeature([], tf.int64, default_value=_NO_LABEL),
}


def read_prepared(files: ShardCache) -> tuple[np.ndarray, np.ndarray]:
    """Reads a whole prepared data set into host memory.

    Args:
        files: of the set.

    Returns:
        images: uint8 [N, H, W, C] in [0, 255], in the order of the shards.
        labels: int32 [N] in [0, number of classes).

    Raises:
        DataError: if a file is missing, damaged, or does not hold what `dataset.json` states; it names the shard.
        StorageError: if a bucket cannot be read.
    """
    manifest = files.manifest
    images = np.empty((manifest.num_examples, *manifest.image_shape), np.uint8)
    labels = np.empty(manifest.num_examples, np.int32)
    start = 0
    files.paths(manifest.shards)
    for shard in manifest.shards:
        stop = start + shard.num_examples
        _read_shard(files, shard, images[start:stop], labels[start:stop])
        start = stop
    counts = tuple(np.bincount(labels, minlength=len(manifest.class_counts)).tolist())
    if counts != manifest.class_counts:
        raise DataError(
            f"{manifest.name} holds {list(counts)} images a class, its {SPEC_NAME} states "
            f"{list(manifest.class_counts)}; prepare the set again."
        )
    return images, labels


def read_shards(files: ShardCache, shards: Sequence[Shard]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images uint8 [N, H, W, C] and labels int32 [N] of each of these shards of a set, in turn.

    Raises:
        DataError, StorageError: as `read_prepared`.
    """
    files.paths(shards)
    for shard in shards:
        images = np.empty((shard.num_examples, *files.manifest.image_shape), np.uint8)
        labels = np.empty(shard.num_examples, np.int32)
        _read_shard(files, shard, images, labels)
        yield images, labels


def read_labels(files: ShardCache, shards: Sequence[Shard]) -> np.ndarray:
    """Labels int32 [N] of all records of these shards; no image is decoded.

    Raises:
        DataError, StorageError: as `read_prepared`.
    """
    files.paths(shards)
    nothing = np.empty(0, np.int64)
    batches = (batch for shard in shards for batch in _records(files, shard, lambda start, stop: nothing))
    return np.concatenate([labels for _, labels in batches])


def read_some(files: ShardCache, shards: Sequence[Shard], numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Images uint8 [N, H, W, C] of some records of these shards, part by part.

    Args:
        files: Of the set.
        shards: Which of them.
        numbers: Of the records, counted through all of these shards, ascending.

    Raises:
        DataError, StorageError: as `read_prepared`.
    """
    first = 0
    files.paths(shards)
    for shard in shards:

        def chosen(start: int, stop: int, first: int = first) -> np.ndarray:
            low, high = np.searchsorted(numbers, [first + start, first + stop])
            return numbers[low:high] - (first + start)

        for images, _ in _records(files, shard, chosen):
            yield images
        first += shard.num_examples


def _read_shard(files: ShardCache, shard: Shard, images: np.ndarray, labels: np.ndarray) -> None:
    """Fills `images` uint8 [N, H, W, C] and `labels` int32 [N] with the shard's records."""
    start = 0
    for found, of in _records(files, shard, lambda start, stop: np.arange(stop - start)):
        stop = start + len(of)
        images[start:stop], labels[start:stop] = found, of
        start = stop


def _records(
    files: ShardCache, shard: Shard, choose: Callable[[int, int], np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The records of a shard, checked, in batches: images uint8 [N, H, W, C] and labels int32 [B].

    Args:
        files: Of the set.
        shard: Of it.
        choose: (start, stop) of a batch -> which N of its B images to decode, as integers from 0 on.
    """
    path, manifest, num_examples = files.path(shard), files.manifest, shard.num_examples
    start = 0
    try:
        for records in files.using(shard, _batches):
            stop = start + len(records)
            if stop > num_examples:
                raise DataError(
                    f"shard {path} has more than the {num_examples} records that {SPEC_NAME} states; "
                    "prepare the set again."
                )
            parsed = tf.io.parse_example(records, _FEATURES)
            _check_labels(parsed["label"].numpy(), path, start, len(manifest.class_names))
            for offset, png in enumerate(parsed["image"].numpy()):
                _check_png(png, f"record {start + offset} of shard {path}", manifest.image_shape)
            pngs = tf.gather(parsed["image"], choose(start, stop))
            images = _decode(pngs, manifest.image_shape[2]).numpy() if len(pngs) else _none_of(manifest)
            yield images, parsed["label"].numpy().astype(np.int32)
            start = stop
    except tf.errors.DataLossError as error:
        raise DataError(
            f"shard {path} is truncated or corrupt after record {start}, expected {num_examples} whole TFRecords; "
            "prepare the set again."
        ) from error
    except tf.errors.InvalidArgumentError as error:
        raise DataError(
            f"shard {path} holds, at or after record {start}, what is not a tf.train.Example of one PNG `image` and "
            "one int64 `label`; prepare the set again."
        ) from error
    if start != num_examples:
        raise DataError(f"shard {path} has {start} records, {SPEC_NAME} states {num_examples}; prepare the set again.")


def _batches(path: pathlib.Path) -> Iterator[tf.Tensor]:
    """The records of a file, string [B] each. It is open when this returns: it may be deleted then."""
    batches = iter(tf.data.TFRecordDataset(str(path)).batch(_PARSE_BATCH))
    try:
        first = list(itertools.islice(batches, 1))
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(str(path)) from error
    return itertools.chain(first, batches)


def _none_of(manifest: DatasetSpec) -> np.ndarray:
    return np.empty((0, *manifest.image_shape), np.uint8)


def _check_labels(labels: np.ndarray, path: pathlib.Path, start: int, num_classes: int) -> None:
    """Checks the labels int64 [B] of the records from number `start` on."""
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if outside.size:
        label = labels[outside[0]]
        found = "no feature `label`" if label == _NO_LABEL else f"label {label}"
        raise DataError(
            f"record {start + outside[0]} of shard {path} has {found}, expected 0 to {num_classes - 1}; "
            "prepare the set again."
        )


def _check_png(png: bytes, where: str, image_shape: tuple[int, int, int]) -> None:
    """Checks the header of one PNG, which states the shape, without decoding it."""
    if not png:
        raise DataError(f"{where} has no feature `image`, expected the bytes of a PNG; prepare the set again.")
    header = png[:_PNG_HEADER_BYTES]
    if len(header) < _PNG_HEADER_BYTES or not header.startswith(_PNG_SIGNATURE):
        raise DataError(f"{where} has an `image` that is not a PNG; prepare the set again.")
    width, height = int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
    shape = (height, width, _CHANNELS_OF_COLOR_TYPE.get(header[25], 0))
    if shape != image_shape or header[24] != 8:
        raise DataError(
            f"{where} is a PNG of shape {list(shape)} and {header[24]} bits, expected {list(image_shape)} and 8 bits; "
            "prepare the set again."
        )


@tf.function(reduce_retracing=True)
def _decode(pngs: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes string [B] to uint8 [B, H, W, C], several at a time."""
    return tf.map_fn(
        lambda png: tf.io.decode_png(png, channels=channels), pngs, fn_output_signature=tf.uint8, parallel_iterations=32
    )


def write_prepared(
    directory: str | pathlib.Path,
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
    """Writes a prepared data set; the same arguments always give the same bytes.

    `dataset.json` is written last, so a directory that holds one is complete.

    Args:
        directory: local directory, made when missing.
        images: uint8 [N, H, W, C] in [0, 255], C 1, 3 or 4.
        labels: integers [N] in [0, len(class_names)).
        class_names: the name of each label.
        name: the data set's name.
        source: where the images come from.
        license: the license of the images.
        attribution: whom the license asks to name.
        num_shards: number of files, in [1, N]; the images are divided in order.

    Returns:
        What was written to `dataset.json`.

    Raises:
        DataError: if an argument has another dtype, shape or range.
    """
    labels = np.asarray(labels)
    _check_arrays(images, labels, len(class_names), num_shards)
    directory = pathlib.Path(directory)
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
    manifest = DatasetSpec(
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
    unfinished = directory / f"{SPEC_NAME}.unfinished"
    unfinished.write_text(manifest.to_json(), encoding="utf-8")
    os.replace(unfinished, directory / SPEC_NAME)
    return manifest


def _check_arrays(images: np.ndarray, labels: np.ndarray, num_classes: int, num_shards: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or not images.size:
        raise DataError(
            f"images are {images.dtype} {list(images.shape)}, expected uint8 [N, H, W, C] with 1, 3 or 4 channels; "
            "convert them first."
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"labels are {labels.dtype} {list(labels.shape)}, expected one integer for each of {len(images)} images; "
            "give as many."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataError(
            f"labels go from {labels.min()} to {labels.max()}, expected 0 to {num_classes - 1}; name every class."
        )
    if not 1 <= num_shards <= len(images):
        raise DataError(f"num_shards={num_shards} for {len(images)} images, expected 1 to {len(images)}; choose fewer.")


def _write_shard(path: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> Shard:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image, label in zip(images, labels, strict=True):
            writer.write(serialized(tf.io.encode_png(image).numpy(), int(label)))
    return described(path, len(labels))
