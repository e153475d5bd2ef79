"""The prepared data set: what is written is read back, and every damage is named with its shard."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import tensorflow as tf

from trainer.data.prepared import read_prepared, write_prepared
from trainer.data.shard_files import ShardFiles
from trainer.errors import DataError
from trainer.storage import file_crc32c, locate

RANDOM = np.random.Generator(np.random.PCG64(0))
LABELS = np.array([1, 0, 1, 2, 1, 1, 0])
TEXTS = {"name": "toy", "source": "made up", "license": "CC0", "attribution": "nobody"}


def images_of(height=4, width=6, channels=3):
    return RANDOM.integers(0, 256, (len(LABELS), height, width, channels), dtype=np.uint8)


def write(directory, images=None, labels=LABELS, num_shards=2):
    images = images_of() if images is None else images
    return write_prepared(directory, images, labels, ["a", "b", "c"], num_shards=num_shards, **TEXTS)


def read(directory):
    files = ShardFiles(locate(directory))
    return *read_prepared(files), files.manifest


def record(image=None, label=0):
    """One serialised record; `None` leaves a feature out."""
    feature = {}
    if image is not None:
        feature["image"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
    if label is not None:
        feature["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=np.atleast_1d(label)))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def png(image):
    return tf.io.encode_png(image).numpy()


def replace_first_shard(directory, content):
    """Puts bytes, or a list of records, in the place of the first shard, and its size and hash into dataset.json."""
    path = directory / "toy-00000-of-00002.tfrecord"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for serialised in content:
                writer.write(serialised)
    description = json.loads((directory / "dataset.json").read_text())
    changed = {"num_bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    description["shards"][0] |= changed
    (directory / "dataset.json").write_text(json.dumps(description))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("num_shards", [1, 3, 7])
def test_what_is_written_is_read_back(tmp_path, channels, num_shards):
    images = images_of(channels=channels)
    written = write(tmp_path / "new", images, num_shards=num_shards)
    read_images, read_labels, manifest = read(tmp_path / "new")
    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(read_labels, LABELS)
    assert (read_images.dtype, read_labels.dtype) == (np.uint8, np.int32)
    assert manifest == written
    assert (manifest.class_counts, manifest.image_shape) == ((2, 4, 1), (4, 6, channels))
    assert len(manifest.shards) == num_shards


def test_writing_twice_gives_the_same_bytes_and_leaves_no_other_file(tmp_path):
    images = images_of()
    for name in ("one", "two"):
        write(tmp_path / name, images)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["dataset.json", "toy-00000-of-00002.tfrecord", "toy-00001-of-00002.tfrecord"]
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


def test_the_description_has_every_field_of_the_format(tmp_path):
    manifest = write(tmp_path)
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert description == json.loads(json.dumps({"format_version": 1, **dataclasses.asdict(manifest)}))
    assert list(description) == [
        *("format_version", "name", "image_shape", "num_examples", "class_names", "class_counts"),
        *("shards", "source", "license", "attribution", "options"),
    ]
    shard = tmp_path / "toy-00001-of-00002.tfrecord"
    assert description["shards"][1] == {
        "file": shard.name,
        "num_examples": 4,
        "num_bytes": shard.stat().st_size,
        "sha256": hashlib.sha256(shard.read_bytes()).hexdigest(),
        "crc32c": file_crc32c(shard),
    }


def test_a_rewrite_that_fails_leaves_no_description_of_the_old_set(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr(tf.io, "encode_png", lambda image: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path)
    assert not (tmp_path / "dataset.json").exists()


def test_no_description_is_an_error(tmp_path):
    with pytest.raises(
        DataError, match=r"dataset\.json does not exist, expected the description of a prepared data set"
    ):
        read(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "toy-00001-of-00002.tfrecord").unlink()
    with pytest.raises(DataError, match=r"shard .*toy-00001-of-00002\.tfrecord is missing"):
        read(tmp_path)


def test_a_shard_of_another_size_is_named(tmp_path):
    write(tmp_path)
    path = tmp_path / "toy-00001-of-00002.tfrecord"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        DataError, match=r"shard .*00001-of-00002\.tfrecord has \d+ bytes, dataset\.json states \d+; copy"
    ):
        read(tmp_path)


def test_one_flipped_bit_is_found_by_the_hash(tmp_path):
    write(tmp_path)
    path = tmp_path / "toy-00000-of-00002.tfrecord"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"shard .*00000-of-00002\.tfrecord has SHA-256 .{12}…, dataset\.json states"):
        read(tmp_path)


def test_a_truncated_file_that_the_description_agrees_with_is_damaged(tmp_path):
    write(tmp_path)
    replace_first_shard(tmp_path, (tmp_path / "toy-00000-of-00002.tfrecord").read_bytes()[:-5])
    with pytest.raises(
        DataError, match=r"shard .*00000-of-00002\.tfrecord is truncated or corrupt after record 0, expected 3 whole"
    ):
        read(tmp_path)


GOOD = png(np.zeros((4, 6, 3), np.uint8))


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([record(GOOD)] * 2, r"shard .*00000-of-00002\.tfrecord has 2 records, dataset\.json states 3"),
        ([record(GOOD)] * 4, r"shard .*00000-of-00002\.tfrecord has more than the 3 records that dataset\.json states"),
        ([record(GOOD), record(None)], r"record 1 of shard .*00000-of.* has no feature `image`"),
        ([record(GOOD, None)], r"record 0 of shard .*00000-of.* has no feature `label`, expected 0 to 2"),
        ([record(GOOD, 3)], r"record 0 of shard .*00000-of.* has label 3, expected 0 to 2"),
        ([record(GOOD, -2)], r"record 0 of shard .*00000-of.* has label -2, expected 0 to 2"),
        (
            [record(GOOD, [1, 2])],
            r"shard .*00000-of.* holds, at or after record 0, what is not a tf\.train\.Example of one PNG",
        ),
        ([record(b"JFIF" * 20)], r"record 0 of shard .*00000-of.* has an `image` that is not a PNG"),
        ([record(GOOD[:20])], r"record 0 of shard .*00000-of.* has an `image` that is not a PNG"),
        ([record(GOOD[:40])], r"shard .*00000-of.* holds, at or after record 0, what is not"),
        (
            [record(GOOD)] * 2 + [record(png(np.zeros((6, 4, 3), np.uint8)))],
            r"record 2 of shard .*00000-of.* is a PNG of shape \[6, 4, 3\] and 8 bits, expected \[4, 6, 3\] and 8 bits",
        ),
        ([record(png(np.zeros((4, 6, 1), np.uint8)))], r"is a PNG of shape \[4, 6, 1\] and 8 bits"),
        ([record(png(np.zeros((4, 6, 3), np.uint16)))], r"is a PNG of shape \[4, 6, 3\] and 16 bits"),
        ([b"not an example"], r"shard .*00000-of.* holds, at or after record 0, what is not"),
        ([record(GOOD)] * 3, r"holds \[4, 2, 1\] images a class, its dataset\.json states \[2, 4, 1\]"),
    ],
)
def test_records_that_do_not_fit_are_named(tmp_path, records, sentence):
    write(tmp_path)
    replace_first_shard(tmp_path, records)
    with pytest.raises(DataError, match=sentence):
        read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"images": np.zeros((7, 4, 6, 3), np.float32)},
            r"^images are float32 \[7, 4, 6, 3\], expected uint8 \[N, H, W, C\]",
        ),
        ({"images": np.zeros((7, 4, 6), np.uint8)}, r"^images are uint8 \[7, 4, 6\], expected uint8"),
        ({"images": np.zeros((7, 4, 6, 5), np.uint8)}, r"expected uint8 \[N, H, W, C\] with 1, 3 or 4 channels"),
        ({"images": np.zeros((0, 4, 6, 3), np.uint8)}, r"^images are uint8 \[0, 4, 6, 3\]"),
        ({"labels": LABELS[:6]}, r"^labels are int64 \[6\], expected one integer for each of 7 images"),
        ({"labels": LABELS * 1.0}, r"^labels are float64 \[7\], expected one integer"),
        ({"labels": LABELS + 1}, r"^labels go from 1 to 3, expected 0 to 2"),
        ({"labels": LABELS - 1}, r"^labels go from -1 to 1, expected 0 to 2"),
        ({"num_shards": 8}, r"^num_shards=8 for 7 images, expected 1 to 7"),
        ({"num_shards": 0}, r"^num_shards=0 for 7 images, expected 1 to 7"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, changes, sentence):
    with pytest.raises(DataError, match=sentence):
        write(tmp_path / "new", **changes)
    assert not (tmp_path / "new").exists()
