"""Refused data sets: names, classes, descriptions, shards, records and arrays.

Every row states the type of the error and the facts that its message mentions. Its wording is free.
"""

import hashlib
import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_config, tiny_gan
from refusals import Refusal, check_refusal

from trainer.cloud.vertex.environment import Environment
from trainer.data import describe
from trainer.data.loading import load
from trainer.data.pipeline.chunk_schedule import ChunkSchedule
from trainer.data.pipeline.loaders import StreamedDataset
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_reader import read_prepared
from trainer.data.tfrecord_writer import write_prepared
from trainer.errors import ConfigError, DataError
from trainer.storage import locate
from trainer.training.run import resolve

LABELS = np.array([1, 0, 1, 2, 1, 1, 0])
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 3), np.uint8)
TWO_DOMAINS = {"model": "cyclegan", "dataset_b": "digits"}
FIRST_SHARD, LAST_SHARD = "toy-00000-of-00002.tfrecord", "toy-00001-of-00002.tfrecord"


def write(folder, images=IMAGES, labels=LABELS, num_shards=2, class_names="abc"):
    """Writes a prepared data set of two shards with three and four images."""
    texts = {"name": "toy", "source": "", "license": "", "attribution": ""}
    return write_prepared(folder, images, labels, list(class_names), num_shards=num_shards, **texts)


def write_gray(folder, labels, num_classes):
    """Writes a prepared data set of gray images of 2×1 pixels, and returns its folder."""
    images = np.arange(2 * len(labels), dtype=np.uint8).reshape(-1, 2, 1, 1)
    write(folder, images, np.asarray(labels), 1, [str(label) for label in range(num_classes)])
    return folder


def only_threes():
    return describe("digits").with_classes((3,))


DATA_SETS = [
    Refusal(
        "class above the last",
        lambda _: describe("digits").with_classes((10,)),
        ConfigError,
        ("classes=10", "digits", "9"),
    ),
    Refusal("negative class", lambda _: describe("digits").with_classes((-1,)), ConfigError, ("classes=-1", "digits")),
    Refusal("class named twice", lambda _: describe("digits").with_classes((0, 3, 3)), ConfigError, ("classes=0,3,3",)),
    Refusal("no class", lambda _: describe("digits").with_classes(()), ConfigError, ("classes",)),
    Refusal("class without images", lambda _: only_threes().with_classes((4,)), ConfigError, ("classes=4", "digits")),
    Refusal(
        "stacked class without images",
        lambda folder: load(f"stacked:{write_gray(folder, [0, 1, 2, 4, 5, 6, 7, 8, 9], 10)}", (333,)),
        ConfigError,
        ("classes=333", "stacked:toy"),
    ),
    Refusal("misspelled name", lambda _: describe("fashon_mnist"), ConfigError, ("fashon_mnist", " fashion_mnist?")),
    Refusal("unknown name", lambda _: describe("qqq"), ConfigError, ("dataset=qqq", "digits", "stacked:mnist")),
    Refusal("misspelled source", lambda _: describe("stacked:mnst"), ConfigError, ("dataset=mnst", " mnist?")),
    Refusal("negative padding", lambda _: describe("digits", padding=-1), ConfigError, ("padding=-1",)),
    Refusal("folder without description", lambda folder: describe(str(folder)), ConfigError, ("dataset.json",)),
    Refusal(
        "stacked colors",
        lambda _: describe("stacked:cifar10"),
        ConfigError,
        ("dataset=stacked:cifar10", "50000", "3"),
    ),
    Refusal(
        "stacked twice",
        lambda _: describe("stacked:stacked:digits"),
        ConfigError,
        ("dataset=stacked:stacked:digits", "1000"),
    ),
    Refusal(
        "stacked set of two classes",
        lambda folder: describe(f"stacked:{write_gray(folder, [0, 1, 1], 2)}"),
        ConfigError,
        ("dataset=stacked:toy", "2"),
    ),
    Refusal(
        "tinted colors",
        lambda _: describe("tinted:stacked:digits"),
        ConfigError,
        ("dataset=tinted:stacked:digits", "3"),
    ),
    Refusal(
        "balanced classes of two domains",
        lambda _: resolve(tiny_config(**TWO_DOMAINS, balance_classes=True), Environment()),
        ConfigError,
        ("balance_classes", "model=cyclegan"),
    ),
    Refusal(
        "balanced classes without labels",
        lambda _: tiny_gan().fit(np.zeros((8, 28, 28, 1), np.uint8), batch_size=4, balance_classes=True),
        DataError,
        ("balance_classes",),
    ),
    Refusal(
        "batch larger than the set", lambda folder: fit_streamed(folder), ConfigError, ("global_batch_size=64", "30")
    ),
]


def fit_streamed(folder):
    write(folder, np.zeros((30, 28, 28, 1), np.uint8), np.arange(30) % 3, 3)
    files = ShardCache(locate(folder))
    tiny_gan("mlp").fit(StreamedDataset(files, ChunkSchedule(files.spec.shards, 3, 0)), batch_size=64)


def changed_spec(name, changes, *mentions):
    """Returns a row with changed fields in dataset.json."""

    def act(folder):
        write(folder)
        path = folder / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        describe(str(folder))

    return Refusal(name, act, DataError, ("dataset.json", *mentions))


def invalid_spec(name, text):
    """Returns a row with this text in dataset.json."""

    def act(folder):
        (folder / "dataset.json").write_text(text, errors="surrogateescape")
        describe(str(folder))

    return Refusal(name, act, DataError, ("dataset.json",))


DESCRIPTIONS = [
    changed_spec("format of another version", {"format_version": 2}, "format_version", "2"),
    changed_spec("count of images that the shards contradict", {"num_examples": 8}, "8", "7"),
    changed_spec("class counts that the shards contradict", {"class_counts": [2, 4, 2]}, "8", "7"),
    changed_spec("fewer class names than counts", {"class_names": ["a"]}, "1", "3"),
    changed_spec("shape without channels", {"image_shape": [4, 6]}),
    changed_spec("shape of two channels", {"image_shape": [4, 6, 2]}, "image_shape", "[4, 6, 2]"),
    changed_spec("shard without its count", {"shards": [{"file": "x"}]}, "num_examples"),
    invalid_spec("description truncated", "{"),
    invalid_spec("description that is a list", "[1]"),
    invalid_spec("description that is not UTF-8", "\udcff"),
]


def damaged(name, damage, *mentions):
    """Returns a row with a data set that is damaged after it was written."""

    def act(folder):
        write(folder)
        damage(folder)
        read_prepared(ShardCache(locate(folder)))

    return Refusal(name, act, DataError, mentions)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def replace_first_shard(folder, content):
    """Replaces the first shard by bytes or a list of records, and updates its size and hash in dataset.json."""
    path = folder / FIRST_SHARD
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for serialized_record in content:
                writer.write(serialized_record)
    spec = json.loads((folder / "dataset.json").read_text())
    changed = {"num_bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    spec["shards"][0] |= changed
    (folder / "dataset.json").write_text(json.dumps(spec))


SHARDS = [
    damaged("no description", lambda folder: (folder / "dataset.json").unlink(), "dataset.json"),
    damaged("missing shard", lambda folder: (folder / LAST_SHARD).unlink(), LAST_SHARD, "dataset.json"),
    damaged("shard of another size", lambda folder: truncate(folder / LAST_SHARD), LAST_SHARD, "dataset.json"),
    damaged("flipped bit", lambda folder: flip_a_bit(folder / FIRST_SHARD), FIRST_SHARD, "SHA-256"),
    damaged(
        "truncated shard whose size and hash are stated",
        lambda folder: replace_first_shard(folder, (folder / FIRST_SHARD).read_bytes()[:-5]),
        FIRST_SHARD,
    ),
]


def record(image=None, label=0):
    """Returns a serialized record. `None` omits a feature."""
    feature = {}
    if image is not None:
        feature["image"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
    if label is not None:
        feature["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=np.atleast_1d(label)))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def png(*shape, dtype=np.uint8):
    return tf.io.encode_png(np.zeros(shape, dtype)).numpy()


GOOD = png(4, 6, 3)


def records(name, content, *mentions):
    """Returns a row whose first shard, which should have three records, has these."""
    return damaged(name, lambda folder: replace_first_shard(folder, content), *mentions)


RECORDS = [
    records("fewer records than stated", [record(GOOD)] * 2, FIRST_SHARD, "2", "3"),
    records("more records than stated", [record(GOOD)] * 4, FIRST_SHARD, "3"),
    records("record without image", [record(GOOD), record(None)], FIRST_SHARD, "record 1", "image"),
    records("record without label", [record(GOOD, None)], FIRST_SHARD, "record 0", "label"),
    records("label above the last", [record(GOOD, 3)], FIRST_SHARD, "record 0", "label", "3"),
    records("negative label", [record(GOOD, -2)], FIRST_SHARD, "record 0", "label", "-2"),
    records("two labels", [record(GOOD, [1, 2])], FIRST_SHARD, "record 0"),
    records("image that is not a PNG", [record(b"JFIF" * 20)], FIRST_SHARD, "record 0", "PNG"),
    records("PNG without header", [record(GOOD[:20])], FIRST_SHARD, "record 0", "PNG"),
    records("PNG truncated", [record(GOOD[:40])], FIRST_SHARD, "record 0"),
    records(
        "PNG with width and height exchanged",
        [record(GOOD)] * 2 + [record(png(6, 4, 3))],
        FIRST_SHARD,
        "record 2",
        "[6, 4, 3]",
    ),
    records("PNG of one channel", [record(png(4, 6, 1))], FIRST_SHARD, "record 0", "[4, 6, 1]"),
    records("PNG of 16 bits", [record(png(4, 6, 3, dtype=np.uint16))], FIRST_SHARD, "record 0", "16"),
    records("record that is not an example", [b"not an example"], FIRST_SHARD, "record 0"),
    records("labels that differ from the class counts", [record(GOOD)] * 3, "toy", "[4, 2, 1]", "[2, 4, 1]"),
]


def arrays(name, changes, *mentions):
    """Returns a row with arrays that `write_prepared` refuses without writing a file."""

    def act(folder):
        try:
            write(folder / "new", **changes)
        finally:
            assert not (folder / "new").exists()

    return Refusal(name, act, DataError, mentions)


ARRAYS = [
    arrays("float images", {"images": np.zeros((7, 4, 6, 3), np.float32)}, "images", "float32", "[7, 4, 6, 3]"),
    arrays("images of three axes", {"images": np.zeros((7, 4, 6), np.uint8)}, "images", "[7, 4, 6]"),
    arrays("images of five channels", {"images": np.zeros((7, 4, 6, 5), np.uint8)}, "images", "[7, 4, 6, 5]"),
    arrays("no images", {"images": np.zeros((0, 4, 6, 3), np.uint8)}, "images", "[0, 4, 6, 3]"),
    arrays("fewer labels than images", {"labels": LABELS[:6]}, "labels", "[6]", "7"),
    arrays("float labels", {"labels": LABELS * 1.0}, "labels", "float64"),
    arrays("array label above the last", {"labels": LABELS + 1}, "labels", "3", "2"),
    arrays("negative array label", {"labels": LABELS - 1}, "labels", "-1", "2"),
    arrays("more shards than images", {"num_shards": 8}, "num_shards=8", "7"),
    arrays("no shards", {"num_shards": 0}, "num_shards=0"),
]


TABLE = [*DATA_SETS, *DESCRIPTIONS, *SHARDS, *RECORDS, *ARRAYS]


@pytest.mark.parametrize("refusal", TABLE, ids=lambda refusal: refusal.name)
def test_refused_data_sets_are_named(tmp_path, refusal):
    check_refusal(lambda: refusal.act(tmp_path), refusal.error, *refusal.mentions)
