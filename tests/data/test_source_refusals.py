"""Refused sources of images, and refused flags of the commands that read data.

Every row states the type of the error and the facts that its message mentions. Its wording is free.
"""

import gzip
import io
import json
import struct
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from pictures import idx, image
from PIL import Image
from refusals import Refusal, check_command_refusal, check_refusal

from trainer import __main__ as commands
from trainer.data.prepare import decoding
from trainer.data.prepare.pixels import Target
from trainer.data.prepare.sources import open_source
from trainer.data.tfrecord_writer import write_prepared
from trainer.errors import ConfigError, DataError, StorageError
from trainer.image_io import MAX_PIXELS

GRAY = np.random.default_rng(0).integers(0, 256, (5, 4, 6), np.uint8)
CLASSES = np.array([1, 0, 1, 2, 1])


def source(name, file, content, *mentions, error=DataError):
    """Returns a row with a source of bytes, or a source that a function of its path writes."""

    def act(folder):
        path = folder / file
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)
        with open_source(str(path)):
            pass

    return Refusal(name, act, error, mentions)


def write_folder(*names):
    def make(path):
        for name in names:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(image(1))

    return make


def write_zip(name, content=b"", external_attr=0):
    def make(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = external_attr
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content or image(1))

    return make


def write_tar(name, kind=tarfile.REGTYPE, mode="w"):
    def make(path):
        with tarfile.open(path, mode) as archive:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            member.size = len(image(1)) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(image(1)))

    return make


def write_tar_bomb(path):
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("a/bomb.png")
        member.size = 2**40
        archive.fileobj.write(member.tobuf())


def truncated(num_bytes, make):
    def make_cut(path):
        make(path)
        path.write_bytes(path.read_bytes()[:num_bytes])

    return make_cut


OUTSIDE = ("../evil.png", "/etc/evil.png", "a/../../evil.png")

ARCHIVES = [
    *[source(f"zip with {name}", "bad.zip", write_zip(name), name, "bad.zip") for name in OUTSIDE],
    *[
        source(f"tar.gz with {name}", "bad.tar.gz", write_tar(name, mode="w:gz"), name, "bad.tar.gz")
        for name in OUTSIDE
    ],
    source("zip with link", "bad.zip", write_zip("a/link.png", b"/etc", 0o120777 << 16), "a/link.png", "bad.zip"),
    source("tar with symbolic link", "bad.tar", write_tar("a/link.png", tarfile.SYMTYPE), "a/link.png", "bad.tar"),
    source("tar with hard link", "bad.tar", write_tar("a/link.png", tarfile.LNKTYPE), "a/link.png", "bad.tar"),
    source("zip bomb", "bad.zip", write_zip("a/bomb.png", bytes(300 * 2**20)), "a/bomb.png", "314,572,800"),
    source("tar bomb", "bad.tar", write_tar_bomb, "a/bomb.png", "1,099,511,627,776"),
    source("zip truncated", "cut.zip", truncated(60, write_zip("a/1.png")), "cut.zip"),
    source("tar truncated", "cut.tar", truncated(60, write_tar("a/1.png")), "cut.tar"),
    source("tar.gz truncated", "cut.tar.gz", truncated(60, write_tar("a/1.png", mode="w:gz")), "cut.tar.gz"),
]

FOLDERS = [
    source("pictures beside sub-folders", "letters", write_folder("a/1.png", "b/1.png", "loose.png"), "loose.png"),
    source("folder without pictures", "empty", write_folder("readme.txt"), "empty", ".png", ".jpg"),
    source("missing archive", "letters.zip", lambda path: None, "letters.zip"),
    source("folder in another encoding", "letters", write_folder("a/1.png", "b\udcff/1.png"), "letters", "\\udcff"),
    source("compressed array", "x.npy.gz", gzip.compress(b"x"), "x.npy.gz", "gunzip"),
    source("spreadsheet", "x.xlsx", write_zip("xl/workbook.xml", b"x"), "x.xlsx", "table"),
    source("empty IDX file", "images-idx3-ubyte", b"", "images-idx3-ubyte", "empty"),
    source("compressed file", "x.gz", gzip.compress(b"x"), "x.gz", "gunzip"),
]
NO_CHARACTERS = np.full(5, 0x7FFFFFFF, "<u4").view("<U1")
HALF_CHARACTERS = np.full(5, 0xD800, "<u4").view("<U1")


def npz(name, arrays, *mentions):
    """Returns a row with a .npz file of these arrays."""
    return source(name, "set.npz", lambda path: np.savez(path, **arrays), "set.npz", *mentions)


NPZ = [
    npz("npz without images", {"z": CLASSES}, "z", "[5]"),
    npz("npz of no images", {"x": GRAY[:0]}, "array"),
    npz("npz with one image", {"x": GRAY[0]}, "[4, 6]"),
    npz("npz of int64", {"x": GRAY.astype(np.int64) * 2}, "int64"),
    npz("npz with fewer labels", {"x": GRAY, "y": CLASSES[:3]}, "[3]", "5"),
    npz("npz with a negative label", {"x": GRAY, "y": CLASSES - 1}, "-1"),
    npz("npz with float labels", {"x": GRAY, "y": CLASSES / 2}, "float64"),
    npz("npz of floats up to 510", {"x": GRAY * 2.0}, f"{GRAY.max() * 2.0:g}", "-1..1"),
    npz("npz of objects", {"x": np.array([object()] * 3)}),
    npz("npz with labels in Latin-1", {"x": GRAY, "y": np.array([b"\xe9"] * 5)}),
    npz("npz with labels that are no characters", {"x": GRAY, "y": NO_CHARACTERS}),
    npz("npz with halves of characters as labels", {"x": GRAY, "y": HALF_CHARACTERS}),
    npz("npz with class names in Latin-1", {"x": GRAY, "y": CLASSES, "classes": np.array([b"\xe9"] * 5)}),
    npz("npz with class names that are no characters", {"x": GRAY, "y": CLASSES, "classes": NO_CHARACTERS}),
    npz("npz with halves of characters as class names", {"x": GRAY, "y": CLASSES, "classes": HALF_CHARACTERS}),
]


IDX = [
    source("IDX of another kind", "x-idx3-ubyte", b"\x89PNG", "x-idx3-ubyte", "89 50 4e 47", "00 00 08"),
    source("IDX that is not gzip", "x-idx3-ubyte.gz", idx(GRAY), "x-idx3-ubyte.gz"),
    source("IDX in a truncated gzip file", "x-idx3-ubyte.gz", gzip.compress(idx(GRAY))[:-40], "x-idx3-ubyte.gz"),
    source("IDX truncated", "x-idx3-ubyte.gz", gzip.compress(idx(GRAY)[:-5]), "x-idx3-ubyte.gz", "5", "120"),
    source(
        "IDX of more than the disk",
        "x-idx3-ubyte.gz",
        gzip.compress(idx(GRAY)[:4] + struct.pack(">3I", 2 * 10**7, 8_000, 8_000)),
        "x-idx3-ubyte.gz",
        f"{128 * 10**13:,}",
        error=StorageError,
    ),
]

TABLES = [
    source("table without paths", "table.csv", b"name,label\nx,y\n", "table.csv", "name", "label", "path", "filename"),
    *(
        source(
            f"table with {columns}", "table.csv", f"path,{columns}\na.png,x,y\n".encode(), "label", error=ConfigError
        )
        for columns in ("label,class", "label,label")
    ),
    source("table row without label", "table.csv", b"path,label\na.png,\n", "table.csv", "line 2", "label"),
    source("table row without path", "table.csv", b"path,label\n,3\n", "table.csv", "line 2", "path"),
    source("table without rows", "table.csv", b"path,label\n", "table.csv"),
    source("table that is not UTF-8", "table.csv", b"path\n\xff\xfe\n", "table.csv", "UTF-8"),
]


def decode(name, content, *mentions, size=(None, None)):
    """Returns a row with an unusable image."""
    return Refusal(name, lambda _: decoding.decode(content, Target(*size, 3, "none")), DataError, mentions)


def encode(array, kind="PNG"):
    buffer = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(buffer, kind)
    return buffer.getvalue()


def empty_png(width, height):
    """Returns a PNG whose header states another size than its content has."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def damaged_palette(kind):
    """Returns a row with a truncated image whose shape depends on its palette."""
    rng = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    content = encode(Image.fromarray(rng).convert("P"), kind)
    return Refusal(f"{kind} with a palette truncated", lambda _: decoding.read_shape(content[:-300]), DataError, ())


NOISE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
PICTURES = [
    decode("empty file", b""),
    decode("file that is not an image", b"not a picture at all"),
    decode("JPEG truncated", encode(NOISE, "JPEG")[:-300]),
    decode("BMP truncated", encode(NOISE, "BMP")[:-300]),
    decode("decompression bomb", empty_png(30_000, 30_000), f"{MAX_PIXELS:,}"),
    decode("too many pixels", empty_png(10_000, 10_000), "10000", f"{MAX_PIXELS:,}"),
    decode("one color", encode(Image.new("RGB", (9, 9), (200, 30, 40)))),
    decode("one pixel", encode(Image.new("RGB", (1, 1), (200, 30, 40)))),
    decode("floating-point pixels", encode(np.arange(6, dtype=np.float32).reshape(2, 3), "TIFF")),
    decode("pixels of more than 16 bits", encode(np.array([[0, 70_000]], np.int32), "TIFF"), "70000"),
    decode(
        "picture of another size",
        encode(NOISE[:6, :8]),
        *("6×8", "8×9", "--image_size", "--resize"),
        size=(8, 9),
    ),
    *map(damaged_palette, ("GIF", "BMP", "PNG", "TIFF")),
]

TABLE = [*ARCHIVES, *FOLDERS, *NPZ, *IDX, *TABLES, *PICTURES]


@pytest.mark.parametrize("refusal", TABLE, ids=lambda refusal: refusal.name)
def test_refused_sources_are_named(tmp_path, refusal):
    check_refusal(lambda: refusal.act(tmp_path), refusal.error, *refusal.mentions)


def test_without_tensorflow_datasets_the_command_to_install_it_is_shown(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    check_refusal(
        lambda: open_source("tfds:mnist").__enter__(), DataError, "tfds:mnist", "pip install tensorflow-datasets"
    )


PREPARE = [
    (["--image_size=0,4"], 2, ("image_size=(0, 4)",)),
    (["--image_size=4,4,3"], 2, ("image_size='4,4,3'",)),
    (["--image_size=-1,4"], 2, ("image_size='-1,4'",)),
    (["--image_size=20000"], 2, ("image_size=(20000, 20000)", f"{MAX_PIXELS:,}")),
    (["--image_size=8001,8000"], 2, ("image_size=(8001, 8000)", f"{MAX_PIXELS:,}")),
    (["--image_size=1,99999", "--source=nowhere"], 2, ("image_size=(1, 99999)", "65,536")),
    ([f"--image_size={'9' * 5000}"], 2, ("image_size='999",)),
    ([f"--image_size={'4,' * 5000}4"], 2, ("image_size='4,4,",)),
    (["--shard_mib=nan"], 2, ("shard_mib=nan", "finite")),
    (["--shard_mib=inf"], 2, ("shard_mib=inf", "finite")),
    (["--shard_mib=1e6"], 2, ("shard_mib=1000000.0", "65,536")),
    (["--num_workers=100000"], 2, ("--num_workers=100000", "256")),
    (["--channels=2"], 2, ("--channels=2", "1, 3")),
    (["--encoding=avif"], 2, ("--encoding=avif", "jpeg", "webp")),
    (["--encoding=jpeg", "--quality=0"], 2, ("--quality=0", "1")),
    (["--encoding=webp", "--quality=101"], 2, ("--quality=101", "100")),
    (["--quality=90"], 2, ("quality=90", "encoding=png", "webp")),
    (["--encoding=jpeg", "--channels=4", "--source=nowhere"], 2, ("encoding=jpeg", "4", "webp", "png")),
    (
        ["--encoding=jpeg", "--paired", "--input_channels=4", "--source=nowhere"],
        2,
        ("encoding=jpeg", "4", "webp", "png"),
    ),
    (["--encoding=webp", "--image_size=16384,8", "--source=nowhere"], 2, ("encoding=webp", "16,384", "jpeg")),
    (["--encoding=jpeg", "--image_size=8,65501", "--source=nowhere"], 2, ("encoding=jpeg", "65,501", "png")),
    (["--resize=Crop"], 2, ("--resize=Crop", "crop", "stretch")),
    (["--resize=fit"], 2, ("--resize=fit", "--image_size")),
    (["--num_metric_samples=20"], 2, ("num_metric_samples=20", "--statistics")),
    (["--inception_weights=weights.npz"], 2, ("inception_weights='weights.npz'", "--statistics")),
    (["--image_range=0..2"], 2, ("--image_range=0..2", "-1..1", "0..255")),
    (["--classes=a,z"], 2, ("classes='z'", "a", "b")),
    (["--source=nowhere"], 1, ("nowhere",)),
    (["--beam_options=--x", "--replica=0", "--num_replicas=2"], 2, ("beam_options='--x'", "num_replicas=2")),
    (["--out=set"], 2, ("out=set",)),
]
TRAIN = [
    (["--num_chunks=7"], 2, ("num_chunks=7", "2")),
    (["--data_memory_mib=0.01"], 2, ("data_memory_mib=0.01", "toy")),
    (["--num_chunks=2", "--dataset=inverted:digits"], 2, ("num_chunks=2", "dataset=inverted:digits")),
]
INSPECT = [
    (["--contact_sheet=/nowhere/sheet.png"], 2, ("contact_sheet=/nowhere/sheet.png",)),
    (["--contact_sheet=pictures", "--dataset=nowhere"], 2, ("contact_sheet=pictures",)),
]
MERGE = [
    (["--sources=set"], 2, ("sources=", "set", "two")),
    (["--sources="], 2, ("sources=",)),
    (["--sources=set,nowhere"], 2, ("nowhere",)),
    (["--sources=set,pictures"], 2, ("pictures", "dataset.json")),
    (["--sources=set,mnist"], 2, ("sources", "mnist")),
    (["--sources=set,inverted:digits"], 2, ("sources", "inverted:digits")),
    (["--sources=set,./set/"], 2, ("sources", "set", "./set/")),
    (["--sources=set,link"], 2, ("sources", "set", "link")),
    (["--sources=set,copy"], 2, ("copy", "set", "shards")),
    (["--sources=digits,set", "--out=set/new"], 2, ("out=set/new", "set")),
    (["--sources=digits,set", "--out=link/a/new"], 2, ("out=link/a/new", "set")),
    (["--sources=digits,set", "--out=set"], 2, ("out=set",)),
    (["--sources=digits,empty"], 2, ("empty", "no images")),
    (["--sources=digits,shape"], 2, ("shape", "digits", "image_shape", "(28, 27, 1)", "(28, 28, 1)")),
    (["--sources=digits,encoding"], 2, ("encoding", "digits", "jpeg", "png")),
    (["--sources=digits,inputs"], 2, ("inputs", "digits", "input_channels", "3")),
    (["--sources=digits,conditions"], 2, ("conditions", "digits", "condition_names", "age")),
    (["--sources=digits,set", "--out=s3://x/y"], 2, ("s3://x/y",)),
]
VARIANTS = {
    "copy": {"name": "copy"},
    "empty": {"num_examples": 0, "class_counts": [0, 0, 0], "shards": []},
    "shape": {"image_shape": [28, 27, 1]},
    "encoding": {"encoding": "jpeg", "format_version": 2},
    "inputs": {"input_channels": 3},
    "conditions": {"class_names": ["1", "2", "3"], "condition_names": ["age"]},
}
"""Descriptions that differ from the one of the folder `set`, by the folder."""
COMMANDS = [
    *[("prepare", ["--source=pictures", "--out=new", *flags], *rest) for flags, *rest in PREPARE],
    *[
        ("train", ["--dataset=set", "--job_dir=run", "--steps=1", "--global_batch_size=4", *flags], *rest)
        for flags, *rest in TRAIN
    ],
    *[("inspect", ["--dataset=set", *flags], *rest) for flags, *rest in INSPECT],
    *[("merge", ["--out=new", *flags], *rest) for flags, *rest in MERGE],
]


@pytest.mark.parametrize(
    ("command", "flags", "code", "mentions"), COMMANDS, ids=[f"{row[0]} {row[1][-1][:30]}" for row in COMMANDS]
)
def test_refused_flags_of_data_are_named(tmp_path, monkeypatch, capsys, command, flags, code, mentions):
    monkeypatch.chdir(tmp_path)
    write_folder("a/1.png", "b/1.png")(tmp_path / "pictures")
    images, texts = np.zeros((30, 28, 28, 1), np.uint8), {"name": "toy", "source": "", "license": "", "attribution": ""}
    write_prepared(tmp_path / "set", images, np.arange(30) % 3, list("abc"), num_shards=2, **texts)
    if command == "merge":
        (tmp_path / "link").symlink_to(tmp_path / "set")
        description = json.loads((tmp_path / "set/dataset.json").read_text())
        for name, changes in VARIANTS.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "dataset.json").write_text(json.dumps(description | changes))
    check_command_refusal(commands.main, ["trainer", command, *flags], capsys, code, *mentions)
    assert not (tmp_path / "new").exists()
