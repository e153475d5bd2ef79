"""Files of records with encoded images (Parquet, TFRecord), and files that are no sources of images."""

import gzip
import io
import json
import pickle
import struct
import sys
import zipfile

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from pictures import image
from refusals import check_refusal

from trainer.data.prepare.sources import SourceOptions, open_source
from trainer.data.tfrecord_writer import write_prepared
from trainer.errors import ConfigError, DataError
from trainer.storage import locate

IMAGES = [image(seed, kind) for seed, kind in enumerate(("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"))]
LABELS = [1, 0, 1, 2, 1, 0]
NAMES = ["cat", "dog", "emu", "fox"]


def structs(images):
    return [{"bytes": content, "path": f"{index}.png"} for index, content in enumerate(images)]


def write_parquet(path, columns, features=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features is not None:
        text = features if isinstance(features, str) else json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": text})
    pq.write_table(table, path, **options)
    return path


def feature(value):
    if isinstance(value, list):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=value))
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def example(**features):
    features = {name.replace("__", "/"): feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_tfrecord(path, records, compression=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in records:
            writer.write(record)
    return path


def read(path, **options):
    """Returns the images, the class name of each image, the class names, and the notes of a source."""
    with open_source(str(path), options=SourceOptions(**options)) as source:
        notes = " ".join([*source.notes, *source.class_notes])
        images = [source.read(index) for index in range(len(source.items))]
        labels = [source.class_names[item.label] for item in source.items]
        return images, labels, source.class_names, notes


@pytest.mark.parametrize("names", [["crane", "cat", "crane", "fox"], ["a", "a", "a"], ["1", "2", 1]], ids=str)
def test_two_classes_of_one_name_are_refused(names, tmp_path):
    columns = {"image": structs(IMAGES), "label": LABELS}
    write_parquet(tmp_path / "x.parquet", columns, {"label": {"names": names}})
    check_refusal(lambda: read(tmp_path / "x.parquet"), DataError, "x.parquet", f"'{names[0]}'", "--label_field")
    assert set(read(tmp_path / "x.parquet", label_field="none")[1]) == {"x.parquet"}


STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})
CLASS_LABEL = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}
TABLES = {
    "Hugging Face": ({"image": structs(IMAGES), "label": LABELS}, CLASS_LABEL, {}, [NAMES[n] for n in LABELS]),
    "bytes and numbers": ({"img": IMAGES, "label": LABELS}, None, {}, ["1", "0", "1", "2", "1", "0"]),
    "texts": ({"img": IMAGES, "Label": list("banana"), "id": list(range(6))}, None, {}, list("banana")),
    "another class column": (
        {"image": structs(IMAGES), "breed": LABELS, "width": [4] * 6},
        {"breed": {"names": NAMES}, "width": {"dtype": "int32"}},
        {},
        [NAMES[n] for n in LABELS],
    ),
    "no labels": ({"image": IMAGES, "text": list("abcdef")}, None, {}, ["set.parquet"] * 6),
    "no labels by choice": ({"image": IMAGES, "label": LABELS}, None, {"label_field": "none"}, ["set.parquet"] * 6),
    "fields by name": (
        {"image": IMAGES[::-1], "small": IMAGES, "fine": LABELS, "coarse": [0] * 6},
        {"fine": {"names": NAMES}, "coarse": {"names": NAMES}},
        {"image_field": "small", "label_field": "fine"},
        [NAMES[n] for n in LABELS],
    ),
    "a dictionary of texts": (
        {"image": IMAGES, "label": pa.array(list("banana")).dictionary_encode()},
        None,
        {},
        list("banana"),
    ),
}


@pytest.mark.parametrize("key", TABLES)
def test_parquet_files_are_read_with_their_class_names(tmp_path, key):
    columns, features, options, labels = TABLES[key]
    path = write_parquet(tmp_path / "set.parquet", columns, features, row_group_size=4)
    received = read(path, **options)
    assert received[:2] == (IMAGES, labels)
    assert features is None or received[2] == tuple(NAMES)


def test_folders_of_parquet_files_are_read_by_split(tmp_path, bucket):
    columns = {"image": structs(IMAGES[:2]), "label": LABELS[:2]}
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        write_parquet(tmp_path / "set" / "data" / f"{name}.parquet", columns, CLASS_LABEL)
    (tmp_path / "set" / "README.md").write_text("hello")
    (locate(bucket) / "set").upload(
        tmp_path / "set", [f"data/{path.name}" for path in (tmp_path / "set/data").iterdir()]
    )
    for source in (tmp_path / "set", f"{bucket}/set"):
        images, labels, _, notes = read(source)
        assert images == IMAGES[:2] * 2 and labels == ["dog", "cat"] * 2 and "test (1 file)" in notes
        assert read(source, split=("test",))[0] == IMAGES[:2] and not read(source, split=("test", "train"))[3]
    check_refusal(lambda: read(tmp_path / "set", split=("val",)), ConfigError, "split='val'", "train", "test")


REFUSED_TABLES = {
    "several images": ({"a": IMAGES, "b": IMAGES}, None, ConfigError, ("'a'", "'b'", "--image_field")),
    "several classes": (
        {"image": IMAGES, "fine": LABELS, "coarse": LABELS},
        {"fine": {"names": NAMES}, "coarse": {"names": NAMES}},
        ConfigError,
        ("'fine'", "'coarse'", "--label_field"),
    ),
    "no images": ({"text": list("abc"), "label": [1, 2, 3]}, None, DataError, ("'text'", "'label'")),
    "paths only": ({"image": pa.array([{"bytes": None, "path": "x"}], STRUCT)}, None, DataError, ("row 0",)),
    "a missing image": ({"image": [*IMAGES, None]}, None, DataError, ("row 6",)),
    "a missing label": ({"image": IMAGES[:2], "label": [1, None]}, None, DataError, ("row 1", "None")),
    "a float label": ({"image": IMAGES[:2], "label": [1.0, 1.5]}, None, DataError, ("row 0", "1.0")),
    "a list of labels": ({"image": IMAGES[:1], "label": [[1, 2]]}, None, DataError, ("row 0", "[1, 2]")),
    "a label without a name": ({"image": IMAGES[:2], "label": [0, 4]}, CLASS_LABEL, DataError, ("4", "0 to 3")),
    "an unlabeled split": ({"image": IMAGES[:2], "label": [-1, -1]}, CLASS_LABEL, DataError, ("-1",)),
    "a damaged description": ({"image": IMAGES}, "{", DataError, ("description",)),
    "a description of another form": ({"image": IMAGES}, "[1]", DataError, ("description",)),
    "many equal rows": ({"image": [b"x" * 9] * 20_000}, None, DataError, ("20,000",)),
    "a large row": ({"image": [bytes(2**27)]}, None, DataError, ("67,108,864",)),
    "no rows": ({"image": pa.array([], pa.binary())}, None, DataError, ("set.parquet",)),
}


@pytest.mark.parametrize("key", REFUSED_TABLES)
def test_parquet_files_with_several_readings_are_refused(tmp_path, key):
    columns, features, error, facts = REFUSED_TABLES[key]
    path = write_parquet(tmp_path / "set.parquet", columns, features)
    check_refusal(lambda: read(path), error, *facts)


def test_a_large_group_of_rows_is_read_in_batches_of_several_rows(tmp_path, monkeypatch):
    images = [image(seed) for seed in range(60)]
    path = write_parquet(tmp_path / "set.parquet", {"image": images})
    num_bytes, sizes = pq.ParquetFile(path).metadata.row_group(0).total_byte_size, []
    read_batches = pq.ParquetFile.iter_batches

    def iter_batches(file, batch_size, **options):
        sizes.append(batch_size)
        return read_batches(file, batch_size, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    monkeypatch.setattr("trainer.data.prepare.sources.parquet._MAX_BATCH_BYTES", num_bytes // 8)
    assert read(path)[0] == images and sizes == [7]


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"hello", lambda content: b""])
def test_damaged_parquet_files_are_refused(tmp_path, damage):
    path = write_parquet(tmp_path / "set.parquet", {"image": IMAGES})
    path.write_bytes(damage(path.read_bytes()))
    check_refusal(lambda: read(path), DataError, "set.parquet")


def test_parquet_files_of_different_columns_are_refused(tmp_path):
    write_parquet(tmp_path / "set" / "0.parquet", {"image": IMAGES})
    write_parquet(tmp_path / "set" / "1.parquet", {"picture": IMAGES})
    check_refusal(lambda: read(tmp_path / "set"), DataError, "1.parquet", "'image'")


def test_without_pyarrow_the_command_to_install_it_is_shown(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "set.parquet", {"image": IMAGES})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    check_refusal(lambda: read(path), DataError, "set.parquet", "pip install")


def slim(index, text=None):
    more = {} if text is None else {"image__class__text": text[index].encode()}
    return example(image__encoded=IMAGES[index], image__format=b"png", image__class__label=LABELS[index] + 1, **more)


EXAMPLES = {
    "TF-Slim": ([slim(n) for n in range(6)], {}, [str(n + 1) for n in LABELS]),
    "TF-Slim with texts": ([slim(n, [NAMES[n] for n in LABELS]) for n in range(6)], {}, [NAMES[n] for n in LABELS]),
    "texts of several classes": ([slim(n, ["crane"] * 6) for n in range(6)], {}, [str(n + 1) for n in LABELS]),
    "image and label": ([example(image=IMAGES[n], label=LABELS[n]) for n in range(6)], {}, [str(n) for n in LABELS]),
    "labels as texts": ([example(jpg=IMAGES[n], label=b"banana"[n : n + 1]) for n in range(6)], {}, list("banana")),
    "no labels": ([example(data=content) for content in IMAGES], {}, ["set.tfrecord"] * 6),
    "fields by name": (
        [example(a=IMAGES[-n], b=IMAGES[n], label=0, kind=LABELS[n]) for n in range(6)],
        {"image_field": "b", "label_field": "kind"},
        [str(n) for n in LABELS],
    ),
}


@pytest.mark.parametrize("compression", ["", "GZIP"])
@pytest.mark.parametrize("key", EXAMPLES)
def test_tfrecord_files_are_read_with_their_labels(tmp_path, key, compression):
    records, options, labels = EXAMPLES[key]
    received = read(write_tfrecord(tmp_path / "set.tfrecord", records, compression), **options)
    assert received[:2] == (IMAGES, labels)


def test_folders_of_tfrecord_files_are_read_by_split(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"):
        write_tfrecord(tmp_path / "set" / name, [slim(0)])
    for index in range(2):
        write_tfrecord(tmp_path / "tfds" / f"pets-train.tfrecord-0000{index}-of-00002", [slim(0)])
    images, _, _, notes = read(tmp_path / "set")
    assert images == IMAGES[:1] * 2 and "validation (1 file)" in notes
    assert read(tmp_path / "tfds")[0] == IMAGES[:1] * 2


def record(content, length=None):
    """Returns the bytes of a record, whose header may state another length with a valid checksum."""

    def checksum(part):
        value = google_crc32c.value(part)
        return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    header = struct.pack("<Q", len(content) if length is None else length)
    return header + checksum(header) + content + checksum(content)


GOOD = record(slim(0))
REFUSED_RECORDS = {
    "several images": (record(example(a=IMAGES[0], b=IMAGES[1])), ConfigError, ("'a'", "'b'", "--image_field")),
    "raw pixels": (record(example(image_raw=bytes(48), height=4)), DataError, ("'image_raw'", "'height'")),
    "several labels in one": (record(example(image=IMAGES[0], label=[1, 2])) + GOOD, DataError, ("record 1",)),
    "a later record without an image": (GOOD + record(example(label=1)), DataError, ("record 1", "image/encoded")),
    "another message": (record(b"\xff\xff\xff"), DataError, ("record 0",)),
    "no records": (b"", DataError, ("set.tfrecord",)),
    "cut": (GOOD + GOOD[:-5], DataError, ("record 1",)),
    "cut in a header": (GOOD + GOOD[:5], DataError, ("record 1",)),
    "a wrong checksum": (GOOD[:-9] + b"\0" + GOOD[-8:], DataError, ("record 0",)),
    "text": (b"hello " * 99, DataError, ("record 0",)),
    "gzip cut": (gzip.compress(GOOD)[:-9], DataError, ("gzip",)),
    **{
        f"a length of {length}": (record(b"x" * 9, length), DataError, ("record 0",))
        for length in (2**30, 2**36, 2**62)
    },
    "a label in Latin-1": (
        record(example(image=IMAGES[0], label=b"caf")) + record(example(image=IMAGES[1], label=b"caf\xe9")),
        DataError,
        ("record 1", "'label'"),
    ),
    "a class text in Latin-1": (
        record(example(image__encoded=IMAGES[0], image__class__label=1, image__class__text=b"caf\xe8")),
        DataError,
        ("record 0", "image/class/text"),
    ),
    "a long length in gzip": (gzip.compress(record(b"x" * 9, 2**40)), DataError, ("record 0",)),
}


@pytest.mark.parametrize("key", REFUSED_RECORDS)
def test_damaged_tfrecord_files_are_refused(tmp_path, key):
    content, error, facts = REFUSED_RECORDS[key]
    (tmp_path / "set.tfrecord").write_bytes(content)
    check_refusal(lambda: read(tmp_path / "set.tfrecord"), error, *facts)


def zipped(name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"x")
    return buffer.getvalue()


PICKLE = pickle.dumps({b"data": [1]}, 2)
OTHER_FILES = {
    "a single image": ("1.png", IMAGES[0], ("1.png", "folder")),
    "CIFAR's file": ("data_batch_1", PICKLE, ("data_batch_1", "numpy.savez", "tfds:cifar10")),
    "CIFAR-100's file": ("train", PICKLE, ("train", "numpy.savez", "tfds:cifar100")),
    "a pickle": ("x.pkl", PICKLE, ("x.pkl", "numpy.savez")),
    "a pickle with another name": ("x.dat", PICKLE, ("x.dat", "numpy.savez")),
    "weights of PyTorch": ("x.pt", zipped("archive/data.pkl"), ("x.pt", "numpy.savez")),
    "a zip with another name": ("x.bin", zipped("a/1.png"), ("x.bin", ".zip")),
    "an array with another name": ("x.bin", b"\x93NUMPY\1\0", ("x.bin", ".npy")),
    "a text": ("x.txt", b"hello", ("x.txt", ".zip", ".parquet")),
    "a table with tabs": ("x.tsv", b"path\tlabel\n", ("x.tsv", "end in .csv")),
    "a pickle that is packed": ("mnist.pkl.gz", gzip.compress(PICKLE), ("mnist.pkl.gz", "numpy.savez")),
    "a HEIC image": ("x.heic", b"hello", ("x.heic",)),
    "an empty file": ("x", b"", ("x",)),
    "a folder of pickles": ("py/data_batch_1", PICKLE, ("py", "numpy.savez")),
    "a folder of pickles without suffix": ("py/train", PICKLE, ("py", "numpy.savez")),
}


@pytest.mark.parametrize("key", OTHER_FILES)
def test_files_that_are_no_sources_are_explained(tmp_path, key):
    name, content, facts = OTHER_FILES[key]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    check_refusal(lambda: read(tmp_path / name.partition("/")[0]), DataError, *facts)


def test_missing_and_empty_sources_are_explained(tmp_path, bucket):
    (tmp_path / "empty").mkdir()
    for name in (tmp_path / "nowhere", tmp_path / "nowhere.zip", tmp_path / "nowhere.csv", f"{bucket}/nowhere"):
        check_refusal(lambda name=name: read(name), DataError, str(name), "exist")
    check_refusal(lambda: read(tmp_path / "empty"), DataError, "empty folder")
    check_refusal(lambda: read("/dev/null"), DataError, "/dev/null")


def test_a_prepared_set_is_not_prepared_again(tmp_path):
    texts = {"name": "set", "source": "", "license": "", "attribution": ""}
    write_prepared(tmp_path / "set", np.zeros((2, 4, 4, 1), np.uint8), np.arange(2), ["a", "b"], **texts)
    check_refusal(lambda: read(tmp_path / "set"), DataError, f"--dataset={tmp_path}/set")


def write_pictures(folder, count=4):
    (folder / "pictures").mkdir()
    for seed in range(count):
        (folder / "pictures" / f"{seed}.png").write_bytes(image(seed))
    return [f"pictures/{seed}.png" for seed in range(count)]


@pytest.mark.parametrize(
    ("labels", "features", "classes"),
    [
        (["b", "a", "b", "b"], None, ["b", "a", "b", "b"]),
        ([1, 0, 1, 10], None, ["1", "0", "1", "10"]),
        ([1, 0, 1, 3], {"label": {"names": NAMES}}, ["dog", "cat", "dog", "fox"]),
        (None, None, ["%"] * 4),
    ],
)
def test_parquet_may_list_paths(labels, features, classes, tmp_path):
    paths = write_pictures(tmp_path)
    paths[1] = f"./{paths[1]}"
    paths[2] = f"{tmp_path}/{paths[2]}"
    columns = {"path": paths} | ({} if labels is None else {"label": labels})
    table = write_parquet(tmp_path / "list.parquet", columns, features)
    with open_source(str(table)) as source:
        assert [source.class_names[item.label].replace(tmp_path.name, "%") for item in source.items] == classes
        assert [source.read(index) for index in range(4)] == [image(seed) for seed in range(4)]


def test_several_parquet_files_list_paths_in_another_folder(tmp_path):
    paths = [path.removeprefix("pictures/") for path in write_pictures(tmp_path)]
    for index in range(2):
        columns = {"photo": paths[2 * index : 2 * index + 2], "y": ["a", "b"], "more": [0.5, 1.5]}
        write_parquet(tmp_path / f"lists/train-{index}.parquet", columns)
    write_parquet(tmp_path / "lists/test-0.parquet", {"photo": ["missing.png"], "y": ["c"]})
    options = SourceOptions(image_field="photo", image_root=str(tmp_path / "pictures"))
    with open_source(str(tmp_path / "lists"), options) as source:
        assert [source.read(index) for index in range(4)] == [image(seed) for seed in range(4)]
        assert source.class_names == ("a", "b") and source.notes


@pytest.mark.parametrize(
    ("columns", "options", "mentions"),
    [
        ({"path": ["../1.png"]}, {}, ["../1.png", "row 0"]),
        ({"path": ["/etc/1.png"]}, {}, ["/etc/1.png"]),
        ({"path": ["1.png", None]}, {}, ["row 1", "None", "path"]),
        ({"path": [""]}, {}, ["row 0", "path"]),
        ({"path": ["1.png"], "label": [0.5]}, {}, ["0.5"]),
        ({"path": ["1.png"] * 2, "label": ["a", None]}, {}, ["row 1", "None"]),
        ({"path": ["1.png"], "label": [""]}, {}, ["label"]),
        ({"path": ["1.png"], "file": ["1.png"]}, {}, ["'path'", "'file'", "--image_field"]),
        ({"url": ["1.png"]}, {}, ["'url'", "--image_field"]),
        ({"url": [1]}, {"image_field": "url"}, ["'url'"]),
        ({"path": ["x" * 2**17]}, {}, ["65,536"]),
        ({"path": []}, {}, ["list.parquet"]),
        ({"path": ["1.png"]}, {"image_range": "0..1"}, ["image_range"]),
        ({"image": [image(0)]}, {"image_root": "."}, ["image_root"]),
    ],
)
def test_parquet_lists_without_paths_and_labels_are_refused(columns, options, mentions, tmp_path):
    table = write_parquet(tmp_path / "list.parquet", columns)
    opened = open_source(str(table), SourceOptions(**options))
    check_refusal(opened.__enter__, (ConfigError, DataError), *mentions)
