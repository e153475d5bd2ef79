"""Refused datasets: names, classes, descriptions, shards, records and arrays.

Every row states the type of the error and the facts that its message mentions. Its wording is free.
"""

import hashlib
import io
import json
import os
import zlib

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_config, tiny_gan
from PIL import Image
from refusals import Refusal, check_refusal

from trainer.data import describe
from trainer.data.loading import load
from trainer.data.pipeline.chunk_schedule import ChunkSchedule
from trainer.data.pipeline.loaders import StreamedDataset
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_reader import read_prepared
from trainer.data.tfrecord_writer import write_prepared
from trainer.environment import Environment
from trainer.errors import ConfigError, DataError
from trainer.storage import locate
from trainer.training.complete_config import resolve

LABELS = np.array([1, 0, 1, 2, 1, 1, 0])
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 3), np.uint8)
TWO_DOMAINS = {"model": "cyclegan", "dataset_b": "digits"}
FIRST_SHARD, LAST_SHARD = "toy-00000-of-00002.tfrecord", "toy-00001-of-00002.tfrecord"


def write(folder, images=IMAGES, labels=LABELS, num_shards=2, class_names="abc"):
    """Writes a prepared dataset of two shards with three and four images."""
    texts = {"name": "toy", "source": "", "license": "", "attribution": ""}
    return write_prepared(folder, images, labels, list(class_names), num_shards=num_shards, **texts)


def write_gray(folder, labels, num_classes):
    """Writes a prepared dataset of gray images of 2×1 pixels, and returns its folder."""
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
        ("dataset=stacked:cifar10", "50,000", "3"),
    ),
    Refusal(
        "stacked twice",
        lambda _: describe("stacked:stacked:digits"),
        ConfigError,
        ("dataset=stacked:stacked:digits", "1,000"),
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
    Refusal("batch larger than the set", lambda folder: fit_streamed(folder), ConfigError, ("batch_size=64", "30")),
]


def fit_streamed(folder):
    write(folder, np.zeros((30, 28, 28, 1), np.uint8), np.arange(30) % 3, 3)
    files = ShardCache(locate(folder))
    tiny_gan("mlp").fit(StreamedDataset(files, ChunkSchedule(files.spec.shards, 3, 0)), batch_size=64)


SHARD = {"file": "x", "num_examples": 1, "num_bytes": 1, "sha256": "0" * 64, "crc32c": ""}


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
    changed_spec("format of another version", {"format_version": 3}, "format_version", "3"),
    changed_spec("new format without encoding", {"format_version": 2}, "format_version", "2", "png"),
    changed_spec("old format with encoding", {"encoding": "jpeg"}, "format_version", "1", "jpeg"),
    changed_spec("unknown encoding", {"format_version": 2, "encoding": "avif"}, "encoding", "avif", "webp"),
    changed_spec(
        "JPEG of four channels",
        {"format_version": 2, "encoding": "jpeg", "image_shape": [4, 6, 4]},
        "jpeg",
        "[4, 6, 4]",
    ),
    changed_spec(
        "JPEG inputs of four channels", {"format_version": 2, "encoding": "jpeg", "input_channels": 4}, "jpeg", "4"
    ),
    changed_spec(
        "WebP of a longer side",
        {"format_version": 2, "encoding": "webp", "image_shape": [1, 16_384, 3]},
        "webp",
        "16384",
    ),
    *[
        changed_spec(
            f"more pixels than shards of {encoding} can hold",
            {"format_version": 2, "encoding": encoding, "image_shape": [2000, 2000, 3]},
            "[2000, 2000, 3]",
            encoding,
        )
        for encoding in ("jpeg", "webp")
    ],
    changed_spec("count of images that the shards contradict", {"num_examples": 8}, "8", "7"),
    changed_spec("class counts that the shards contradict", {"class_counts": [2, 4, 2]}, "8", "7"),
    changed_spec("fewer class names than counts", {"class_names": ["a"]}, "1", "3"),
    changed_spec("shape without channels", {"image_shape": [4, 6]}),
    changed_spec("shape of two channels", {"image_shape": [4, 6, 2]}, "image_shape", "[4, 6, 2]"),
    changed_spec("shard without images", {"shards": [SHARD | {"num_examples": 0}]}, "num_examples", "0"),
    changed_spec("shard without its count", {"shards": [{"file": "x"}]}, "num_examples"),
    *[
        changed_spec(f"shard without {key}", {"shards": [{name: SHARD[name] for name in SHARD if name != key}]}, key)
        for key in SHARD
    ],
    changed_spec("shape of more pixels than allowed", {"image_shape": [20_000, 20_000, 1]}, "[20000, 20000, 1]"),
    changed_spec("more pixels than the shards can hold", {"image_shape": [2000, 2000, 3]}, "[2000, 2000, 3]"),
    changed_spec(
        "more images than the shards can hold",
        {
            "num_examples": 10**12,
            "class_counts": [10**12, 0, 0],
            "shards": [{"file": "x", "num_examples": 10**12, "num_bytes": 300, "sha256": "0" * 64, "crc32c": ""}],
        },
        "1,000,000,000,000",
        "300",
    ),
    invalid_spec("description truncated", "{"),
    invalid_spec("description that is a list", "[1]"),
    invalid_spec("description that is not UTF-8", "\udcff"),
]


def damaged(name, damage, *mentions):
    """Returns a row with a dataset that is damaged after it was written."""

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


def changed_shard(name, content_of, *mentions):
    """Returns a row whose first shard has content made from the old one, with the right size and hash."""

    def damage(folder):
        replace_first_shard(folder, content_of((folder / FIRST_SHARD).read_bytes()))

    return damaged(name, damage, FIRST_SHARD, *mentions)


def masked_crc(data):
    crc = google_crc32c.value(data)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def with_length(length):
    """Returns a function that sets the length of the first record, with its CRC."""
    header = length.to_bytes(8, "little")
    return lambda content: header + masked_crc(header) + content[12:]


def with_sparse_shard(folder):
    """States a shard of a terabyte, which takes no space on the disk, in place of the first shard."""
    with (folder / FIRST_SHARD).open("wb") as file:
        file.truncate(2**40)


def replace_by_pipe(path):
    path.unlink()
    os.mkfifo(path)


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


SHARDS = [
    *(
        changed_shard(f"record of {length:,} bytes", with_length(length), "record 0")
        for length in (0, 1, 2**20, *(2**power for power in range(31, 64)), 2**64 - 1, 2**64 - 12)
    ),
    changed_shard("record with a flipped bit", lambda content: content[:40] + b"?" + content[41:], "record 0"),
    changed_shard("bytes after the last record", lambda content: content + b"\0" * 11, "record 3"),
    changed_shard("records cut within a length", lambda content: content[:5], "record 0"),
    changed_shard("empty shard", lambda content: b"", "dataset.json"),
    damaged("shard of a terabyte", with_sparse_shard, FIRST_SHARD, f"{2**40:,}", "dataset.json"),
    damaged("shard that is a pipe", lambda folder: replace_by_pipe(folder / FIRST_SHARD), FIRST_SHARD),
    damaged("shard that is a folder", lambda folder: replace_by_folder(folder / FIRST_SHARD), FIRST_SHARD),
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


def with_chunk(kind, data, before_pixels=True):
    """Returns a PNG with one more chunk, before or after the pixels."""
    chunk = len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    position = 33 if before_pixels else len(GOOD) - 12
    return GOOD[:position] + chunk + GOOD[position:]


def with_size(width, height):
    """Returns a PNG whose header states another size."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + GOOD[24:29]
    return GOOD[:12] + header + zlib.crc32(header).to_bytes(4, "big") + GOOD[33:]


COMPRESSED_TEXT = b"a\0\0" + zlib.compress(bytes(7_000_000))


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
    records("PNG of 900 megapixels", [record(with_size(30_000, 30_000))], FIRST_SHARD, "record 0", "[30000, 30000, 3]"),
    records("PNG of no pixels", [record(with_size(0, 0))], FIRST_SHARD, "record 0", "[0, 0, 3]"),
    records("PNG of a larger size than its pixels", [record(with_size(6, 5))], FIRST_SHARD, "record 0", "[5, 6, 3]"),
    records("compressed text", [record(with_chunk(b"zTXt", COMPRESSED_TEXT))], FIRST_SHARD, "record 0", "text"),
    records(
        "compressed text after the pixels",
        [record(GOOD), record(with_chunk(b"zTXt", COMPRESSED_TEXT, before_pixels=False))],
        FIRST_SHARD,
        "record 1",
        "text",
    ),
    records(
        "international text",
        [record(with_chunk(b"iTXt", b"a\0\1\0\0\0" + COMPRESSED_TEXT[3:]))],
        FIRST_SHARD,
        "record 0",
        "text",
    ),
    records("PNG of one channel", [record(png(4, 6, 1))], FIRST_SHARD, "record 0", "[4, 6, 1]"),
    records("PNG of 16 bits", [record(png(4, 6, 3, dtype=np.uint16))], FIRST_SHARD, "record 0", "16"),
    records("record that is not an example", [b"not an example"], FIRST_SHARD, "record 0"),
    records("labels that differ from the class counts", [record(GOOD)] * 3, "toy", "[4, 2, 1]", "[2, 4, 1]"),
]


def encoded(encoding, size=(4, 6), channels=3, **options):
    """Returns the bytes of an image."""
    buffer = io.BytesIO()
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    Image.new(mode, size[::-1], (30, 40, 50, 60)[:channels] if channels > 1 else 9).save(buffer, encoding, **options)
    return buffer.getvalue()


JPEG, WEBP, WEBP_ALPHA = encoded("jpeg"), encoded("webp"), encoded("webp", channels=4)
ANIMATION = {"save_all": True, "append_images": [Image.new("RGB", (6, 4), "red")]}
EXIF = Image.Exif()
EXIF[0x010E] = "text"


def with_sizes(image, *changes):
    """Returns an image whose header states other sizes: pairs of a position and two bytes."""
    for position, size in changes:
        image = image[:position] + size + image[position + 2 :]
    return image


def in_encoding(name, encoding, image, *mentions, **changes):
    """Returns a row whose dataset states an encoding, and whose first record has this image."""

    def damage(folder):
        replace_first_shard(folder, [record(image)] * 3)
        path = folder / "dataset.json"
        spec = {"format_version": 2, "encoding": encoding, **changes}
        path.write_text(json.dumps(json.loads(path.read_text()) | spec))

    return damaged(name, damage, FIRST_SHARD, "record 0", *mentions)


ENCODED = [
    in_encoding("PNG in a set of JPEGs", "jpeg", GOOD, "JPEG"),
    in_encoding("WebP in a set of JPEGs", "jpeg", WEBP, "JPEG"),
    in_encoding("JPEG in a set of WebPs", "webp", JPEG, "WebP"),
    in_encoding("missing JPEG", "jpeg", b"", "image"),
    in_encoding("JPEG of another size", "jpeg", encoded("jpeg", (6, 4)), "[6, 4, 3]", "[4, 6, 3]"),
    in_encoding("JPEG of one channel", "jpeg", encoded("jpeg", channels=1), "[4, 6, 1]"),
    in_encoding(
        "JPEG of a gigapixel",
        "jpeg",
        with_sizes(JPEG, (JPEG.index(b"\xff\xc0") + 5, b"\x7f\xff"), (JPEG.index(b"\xff\xc0") + 7, b"\x7f\xff")),
        "[32767, 32767, 3]",
    ),
    in_encoding("progressive JPEG", "jpeg", encoded("jpeg", progressive=True), "baseline"),
    in_encoding("JPEG of many scans", "jpeg", JPEG + JPEG[JPEG.index(b"\xff\xda") :] * 100, "scan"),
    in_encoding("JPEG without scan", "jpeg", JPEG[: JPEG.index(b"\xff\xda")], "JPEG"),
    in_encoding("JPEG without header", "jpeg", b"\xff\xd8\xff\xe0\0\x04\0\0\xff\xda", "JPEG"),
    in_encoding("JPEG truncated", "jpeg", JPEG[:-4], "jpeg"),
    in_encoding("WebP of another size", "webp", encoded("webp", (6, 4)), "[6, 4, 3]", "[4, 6, 3]"),
    in_encoding("WebP with alpha in a set without", "webp", WEBP_ALPHA, "[4, 6, 4]"),
    in_encoding("lossless WebP", "webp", encoded("webp", lossless=True), "lossy"),
    in_encoding("animated WebP", "webp", encoded("webp", **ANIMATION), "animation"),
    in_encoding("WebP with metadata", "webp", encoded("webp", exif=EXIF), "WebP"),
    in_encoding(
        "WebP with alpha and metadata",
        "webp",
        encoded("webp", channels=4, exif=EXIF),
        "WebP",
        image_shape=[4, 6, 4],
    ),
    in_encoding(
        "WebP with the flag of animations",
        "webp",
        with_sizes(WEBP_ALPHA, (20, b"\x12\0")),
        "animation",
        image_shape=[4, 6, 4],
    ),
    in_encoding(
        "WebP of 256 megapixels",
        "webp",
        with_sizes(WEBP, (26, b"\xff\x3f"), (28, b"\xff\x3f")),
        "[16383, 16383, 3]",
    ),
    in_encoding(
        "WebP whose canvas differs from its pixels",
        "webp",
        with_sizes(WEBP_ALPHA, (24, b"\7\0")),
        "WebP",
        image_shape=[4, 8, 4],
    ),
    in_encoding("WebP without header", "webp", WEBP[:25], "WebP"),
    in_encoding("WebP truncated", "webp", WEBP[:-3], "webp"),
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


TABLE = [*DATA_SETS, *DESCRIPTIONS, *SHARDS, *RECORDS, *ENCODED, *ARRAYS]


@pytest.mark.parametrize("refusal", TABLE, ids=lambda refusal: refusal.name)
def test_refused_datasets_are_named(tmp_path, refusal):
    check_refusal(lambda: refusal.act(tmp_path), refusal.error, *refusal.mentions)
