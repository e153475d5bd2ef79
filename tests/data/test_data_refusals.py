"""Refused inputs of the data layer: names, classes, descriptions, shards, arrays, sources and pictures.

Every row states the error's type and the facts that its message mentions. The prose around them is free.
"""

import gzip
import hashlib
import io
import json
import struct
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_config, tiny_gan
from PIL import Image
from refusals import Refusal, check_command_refusal, check_refusal

from trainer import __main__ as commands
from trainer.data import describe
from trainer.data.loading import load
from trainer.data.pipeline.chunk_schedule import ChunkSchedule
from trainer.data.pipeline.loaders import StreamedDataset
from trainer.data.prepare import decoding
from trainer.data.prepare.decoding import MAX_PIXELS, Target
from trainer.data.prepare.sources import opened
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_reader import read_prepared, write_prepared
from trainer.errors import ConfigError, DataError, StorageError
from trainer.storage import locate
from trainer.training.run import resolve

LABELS = np.array([1, 0, 1, 2, 1, 1, 0])
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 3), np.uint8)
FIRST_SHARD, LAST_SHARD = "toy-00000-of-00002.tfrecord", "toy-00001-of-00002.tfrecord"


def write(folder, images=IMAGES, labels=LABELS, num_shards=2, class_names="abc"):
    """A prepared set of two shards with three and four images."""
    texts = {"name": "toy", "source": "", "license": "", "attribution": ""}
    return write_prepared(folder, images, labels, list(class_names), num_shards=num_shards, **texts)


def gray_set(folder, labels, num_classes):
    """A prepared set of gray images of 2×1 pixels."""
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
        lambda folder: load(f"stacked:{gray_set(folder, [0, 1, 2, 4, 5, 6, 7, 8, 9], 10)}", (333,)),
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
        lambda folder: describe(f"stacked:{gray_set(folder, [0, 1, 1], 2)}"),
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
        lambda _: resolve(tiny_config(model="cyclegan", dataset_b="digits", balance_classes=True)),
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
    tiny_gan("mlp").fit(StreamedDataset(files, ChunkSchedule(files.manifest.shards, 3, 0)), batch_size=64)


def described(name, changes, *mentions):
    """A row of a dataset.json with other fields than it was written with."""

    def act(folder):
        write(folder)
        path = folder / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        describe(str(folder))

    return Refusal(name, act, DataError, ("dataset.json", *mentions))


def not_described(name, text):
    """A row of a dataset.json with this text."""

    def act(folder):
        (folder / "dataset.json").write_text(text, errors="surrogateescape")
        describe(str(folder))

    return Refusal(name, act, DataError, ("dataset.json",))


DESCRIPTIONS = [
    described("format of another version", {"format_version": 2}, "format_version", "2"),
    described("count of images that the shards contradict", {"num_examples": 8}, "8", "7"),
    described("class counts that the shards contradict", {"class_counts": [2, 4, 2]}, "8", "7"),
    described("fewer class names than counts", {"class_names": ["a"]}, "1", "3"),
    described("shape without channels", {"image_shape": [4, 6]}),
    described("shape of two channels", {"image_shape": [4, 6, 2]}, "image_shape", "[4, 6, 2]"),
    described("shard without its count", {"shards": [{"file": "x"}]}, "num_examples"),
    not_described("description cut short", "{"),
    not_described("description that is a list", "[1]"),
    not_described("description that is not text", "\udcff"),
]


def damaged(name, damage, *mentions):
    """A row of a set that something happened to after it was written."""

    def act(folder):
        write(folder)
        damage(folder)
        read_prepared(ShardCache(locate(folder)))

    return Refusal(name, act, DataError, mentions)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def replace_first_shard(folder, content):
    """Puts bytes, or a list of records, in the place of the first shard, and its size and hash into dataset.json."""
    path = folder / FIRST_SHARD
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for serialized in content:
                writer.write(serialized)
    description = json.loads((folder / "dataset.json").read_text())
    changed = {"num_bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    description["shards"][0] |= changed
    (folder / "dataset.json").write_text(json.dumps(description))


SHARDS = [
    damaged("no description", lambda folder: (folder / "dataset.json").unlink(), "dataset.json"),
    damaged("missing shard", lambda folder: (folder / LAST_SHARD).unlink(), LAST_SHARD, "dataset.json"),
    damaged("shard of another size", lambda folder: cut_short(folder / LAST_SHARD), LAST_SHARD, "dataset.json"),
    damaged("flipped bit", lambda folder: flip_a_bit(folder / FIRST_SHARD), FIRST_SHARD, "SHA-256"),
    damaged(
        "truncated shard whose size and hash are stated",
        lambda folder: replace_first_shard(folder, (folder / FIRST_SHARD).read_bytes()[:-5]),
        FIRST_SHARD,
    ),
]


def record(image=None, label=0):
    """One serialized record; `None` leaves a feature out."""
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
    """A row of a first shard, stated to hold three records, that holds these."""
    return damaged(name, lambda folder: replace_first_shard(folder, content), *mentions)


RECORDS = [
    records("fewer records than stated", [record(GOOD)] * 2, FIRST_SHARD, "2", "3"),
    records("more records than stated", [record(GOOD)] * 4, FIRST_SHARD, "3"),
    records("record without image", [record(GOOD), record(None)], FIRST_SHARD, "record 1", "image"),
    records("record without label", [record(GOOD, None)], FIRST_SHARD, "record 0", "label"),
    records("label above the last", [record(GOOD, 3)], FIRST_SHARD, "record 0", "label", "3"),
    records("negative label", [record(GOOD, -2)], FIRST_SHARD, "record 0", "label", "-2"),
    records("two labels", [record(GOOD, [1, 2])], FIRST_SHARD, "record 0"),
    records("image that is no PNG", [record(b"JFIF" * 20)], FIRST_SHARD, "record 0", "PNG"),
    records("PNG without header", [record(GOOD[:20])], FIRST_SHARD, "record 0", "PNG"),
    records("PNG cut short", [record(GOOD[:40])], FIRST_SHARD, "record 0"),
    records("PNG on its side", [record(GOOD)] * 2 + [record(png(6, 4, 3))], FIRST_SHARD, "record 2", "[6, 4, 3]"),
    records("PNG of one channel", [record(png(4, 6, 1))], FIRST_SHARD, "record 0", "[4, 6, 1]"),
    records("PNG of 16 bits", [record(png(4, 6, 3, dtype=np.uint16))], FIRST_SHARD, "record 0", "16"),
    records("record that is no example", [b"not an example"], FIRST_SHARD, "record 0"),
    records("labels that are not those counted", [record(GOOD)] * 3, "toy", "[4, 2, 1]", "[2, 4, 1]"),
]


def written(name, changes, *mentions):
    """A row of arrays that no set can be made of. Nothing may be written then."""

    def act(folder):
        try:
            write(folder / "new", **changes)
        finally:
            assert not (folder / "new").exists()

    return Refusal(name, act, DataError, mentions)


ARRAYS = [
    written("float images", {"images": np.zeros((7, 4, 6, 3), np.float32)}, "images", "float32", "[7, 4, 6, 3]"),
    written("images of three axes", {"images": np.zeros((7, 4, 6), np.uint8)}, "images", "[7, 4, 6]"),
    written("images of five channels", {"images": np.zeros((7, 4, 6, 5), np.uint8)}, "images", "[7, 4, 6, 5]"),
    written("no images", {"images": np.zeros((0, 4, 6, 3), np.uint8)}, "images", "[0, 4, 6, 3]"),
    written("fewer labels than images", {"labels": LABELS[:6]}, "labels", "[6]", "7"),
    written("float labels", {"labels": LABELS * 1.0}, "labels", "float64"),
    written("array label above the last", {"labels": LABELS + 1}, "labels", "3", "2"),
    written("negative array label", {"labels": LABELS - 1}, "labels", "-1", "2"),
    written("more shards than images", {"num_shards": 8}, "num_shards=8", "7"),
    written("no shards", {"num_shards": 0}, "num_shards=0"),
]


def picture(size=(4, 4)):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (*size, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def source(name, file, content, *mentions, error=DataError):
    """A row of a source that is this file, of bytes or made by a function of its path."""

    def act(folder):
        path = folder / file
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)
        with opened(str(path)):
            pass

    return Refusal(name, act, error, mentions)


def folder_of(*names):
    def make(path):
        for name in names:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(picture())

    return make


def zip_of(name, content=b"", external_attr=0):
    def make(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = external_attr
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content or picture())

    return make


def tar_of(name, kind=tarfile.REGTYPE, mode="w"):
    def make(path):
        with tarfile.open(path, mode) as archive:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            member.size = len(picture()) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(picture()))

    return make


def tar_bomb(path):
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("a/bomb.png")
        member.size = 2**40
        archive.fileobj.write(member.tobuf())


def cut_after(num_bytes, make):
    def make_cut(path):
        make(path)
        path.write_bytes(path.read_bytes()[:num_bytes])

    return make_cut


OUTSIDE = ("../evil.png", "/etc/evil.png", "a/../../evil.png")

ARCHIVES = [
    *[source(f"zip with {name}", "bad.zip", zip_of(name), name, "bad.zip") for name in OUTSIDE],
    *[source(f"tar.gz with {name}", "bad.tar.gz", tar_of(name, mode="w:gz"), name, "bad.tar.gz") for name in OUTSIDE],
    source("zip with link", "bad.zip", zip_of("a/link.png", b"/etc", 0o120777 << 16), "a/link.png", "bad.zip"),
    source("tar with symbolic link", "bad.tar", tar_of("a/link.png", tarfile.SYMTYPE), "a/link.png", "bad.tar"),
    source("tar with hard link", "bad.tar", tar_of("a/link.png", tarfile.LNKTYPE), "a/link.png", "bad.tar"),
    source("zip bomb", "bad.zip", zip_of("a/bomb.png", bytes(300 * 2**20)), "a/bomb.png", "314,572,800"),
    source("tar bomb", "bad.tar", tar_bomb, "a/bomb.png", "1,099,511,627,776"),
    source("zip cut short", "cut.zip", cut_after(60, zip_of("a/1.png")), "cut.zip"),
    source("tar cut short", "cut.tar", cut_after(60, tar_of("a/1.png")), "cut.tar"),
    source("tar.gz cut short", "cut.tar.gz", cut_after(60, tar_of("a/1.png", mode="w:gz")), "cut.tar.gz"),
]

FOLDERS = [
    source("pictures beside sub-folders", "letters", folder_of("a/1.png", "b/1.png", "loose.png"), "loose.png"),
    source("folder without pictures", "empty", folder_of("readme.txt"), "empty", ".png", ".jpg"),
    source("missing archive", "letters.zip", lambda path: None, "letters.zip"),
]

GRAY, CLASSES = IMAGES[:5, ..., 0], LABELS[:5]


def npz(name, arrays, *mentions):
    """A row of a .npz file with these arrays."""
    return source(name, "set.npz", lambda path: np.savez(path, **arrays), "set.npz", *mentions)


NPZ = [
    npz("npz without images", {"z": GRAY}, "z", "x", "x_train", "images", "arr_0"),
    npz("npz with one image", {"x": GRAY[0]}, "[4, 6]"),
    npz("npz of int64", {"x": GRAY.astype(np.int64)}, "int64"),
    npz("npz with fewer labels", {"x": GRAY, "y": CLASSES[:3]}, "[3]", "5"),
    npz("npz with a negative label", {"x": GRAY, "y": CLASSES - 1}, "-1"),
    npz("npz with float labels", {"x": GRAY, "y": CLASSES / 2}, "float64"),
    npz("npz of floats up to 255", {"x": GRAY * 1.0}, f"{GRAY.max():g}", "[-1, 1]"),
    npz("npz of objects", {"x": np.array([object()] * 3)}),
]


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


IDX = [
    source("IDX of another kind", "x-idx3-ubyte", b"\x89PNG", "x-idx3-ubyte", "89 50 4e 47", "00 00 08"),
    source("IDX that is not gzip", "x-idx3-ubyte.gz", idx(GRAY), "x-idx3-ubyte.gz"),
    source("IDX in a cut gzip", "x-idx3-ubyte.gz", gzip.compress(idx(GRAY))[:-40], "x-idx3-ubyte.gz"),
    source("IDX cut short", "x-idx3-ubyte.gz", gzip.compress(idx(GRAY)[:-5]), "x-idx3-ubyte.gz", "5", "120"),
    source(
        "IDX of more than the disk",
        "x-idx3-ubyte.gz",
        gzip.compress(idx(GRAY)[:4] + b"\xff" * 12),
        "x-idx3-ubyte.gz",
        f"{(2**32 - 1) ** 3:,}",
        error=StorageError,
    ),
]

TABLES = [
    source("table without paths", "table.csv", b"name,label\nx,y\n", "table.csv", "name", "label", "path", "filename"),
    source("table row without label", "table.csv", b"path,label\na.png,\n", "table.csv", "line 2", "label"),
    source("table row without path", "table.csv", b"path,label\n,3\n", "table.csv", "line 2", "path"),
    source("table without rows", "table.csv", b"path,label\n", "table.csv"),
    source("table that is not UTF-8", "table.csv", b"path\n\xff\xfe\n", "table.csv", "UTF-8"),
]


def decode(name, content, *mentions, size=(None, None)):
    """A row of a picture that cannot be used."""
    return Refusal(name, lambda _: decoding.decode(content, Target(*size, 3, "none")), DataError, mentions)


def file_of(array, kind="PNG"):
    buffer = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(buffer, kind)
    return buffer.getvalue()


def png_of(width, height):
    """A PNG whose header states a size that its content does not have."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def damaged_palette(kind):
    """A row of a picture whose shape depends on a palette, and whose pixels are cut short."""
    rng = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    content = file_of(Image.fromarray(rng).convert("P"), kind)
    return Refusal(f"{kind} with a palette cut short", lambda _: decoding.shape_of(content[:-300]), DataError, ())


NOISE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
PICTURES = [
    decode("empty file", b""),
    decode("file that is no picture", b"not a picture at all"),
    decode("JPEG cut short", file_of(NOISE, "JPEG")[:-300]),
    decode("BMP cut short", file_of(NOISE, "BMP")[:-300]),
    decode("decompression bomb", png_of(30_000, 30_000), f"{MAX_PIXELS:,}"),
    decode("too many pixels", png_of(10_000, 10_000), "10000", f"{MAX_PIXELS:,}"),
    decode("one color", file_of(Image.new("RGB", (9, 9), (200, 30, 40)))),
    decode("one pixel", file_of(Image.new("RGB", (1, 1), (200, 30, 40)))),
    decode("floating-point pixels", file_of(np.arange(6, dtype=np.float32).reshape(2, 3), "TIFF")),
    decode("pixels of more than 16 bits", file_of(np.array([[0, 70_000]], np.int32), "TIFF"), "70000"),
    decode(
        "picture of another size",
        file_of(NOISE[:6, :8]),
        *("6×8", "8×9", "--image_size", "--resize"),
        size=(8, 9),
    ),
    *map(damaged_palette, ("GIF", "BMP", "PNG", "TIFF")),
]

TABLE = [
    *DATA_SETS,
    *DESCRIPTIONS,
    *SHARDS,
    *RECORDS,
    *ARRAYS,
    *ARCHIVES,
    *FOLDERS,
    *NPZ,
    *IDX,
    *TABLES,
    *PICTURES,
]


@pytest.mark.parametrize("refusal", TABLE, ids=lambda refusal: refusal.name)
def test_refused_inputs_are_named(tmp_path, refusal):
    check_refusal(lambda: refusal.act(tmp_path), refusal.error, *refusal.mentions)


def test_a_missing_tfds_package_is_answered_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    check_refusal(lambda: opened("tfds:mnist").__enter__(), DataError, "tfds:mnist", "pip install tensorflow-datasets")


PREPARE = [
    (["--image_size=0,4"], 2, ("image_size=0,4")),
    (["--image_size=4,4,3"], 2, ("image_size=4,4,3",)),
    (["--classes=a,z"], 2, ("classes=z", "a", "b")),
    (["--source=nowhere"], 1, ("nowhere", ".png")),
    (["--out=set"], 2, ("out=set",)),
]
TRAIN = [
    (["--num_chunks=7"], 2, ("num_chunks=7", "2")),
    (["--data_memory_mib=0.01"], 2, ("data_memory_mib=0.01", "toy")),
    (["--num_chunks=2", "--dataset=inverted:digits"], 2, ("num_chunks=2", "dataset=inverted:digits")),
]
INSPECT = [
    (["--sheet=/nowhere/sheet.png"], 2, ("sheet=/nowhere/sheet.png",)),
    (["--sheet=pictures", "--dataset=nowhere"], 2, ("sheet=pictures",)),
]
COMMANDS = [
    *[("prepare", ["--source=pictures", "--out=new", *flags], *rest) for flags, *rest in PREPARE],
    *[
        ("train", ["--dataset=set", "--job_dir=run", "--steps=1", "--global_batch_size=4", *flags], *rest)
        for flags, *rest in TRAIN
    ],
    *[("inspect", ["--dataset=set", *flags], *rest) for flags, *rest in INSPECT],
]


@pytest.mark.parametrize(
    ("command", "flags", "code", "mentions"), COMMANDS, ids=[f"{row[0]} {row[1][-1]}" for row in COMMANDS]
)
def test_refused_flags_of_data_are_named(tmp_path, monkeypatch, capsys, command, flags, code, mentions):
    monkeypatch.chdir(tmp_path)
    folder_of("a/1.png", "b/1.png")(tmp_path / "pictures")
    write(tmp_path / "set", np.zeros((30, 28, 28, 1), np.uint8), np.arange(30) % 3)
    check_command_refusal(commands.main, ["trainer", command, *flags], capsys, code, *mentions)
