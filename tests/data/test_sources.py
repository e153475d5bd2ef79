"""Folders, archives, arrays and CSV files give the same images, classes and order."""

import gzip
import io
import os
import sys
import tarfile
import types
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import idx, image
from refusals import check_refusal

from trainer.data.field_names import LABEL_NAMES, PATH_NAMES
from trainer.data.prepare.sources import SourceOptions, open_source
from trainer.data.prepare.sources.conditions import ConditionedSource
from trainer.errors import ConfigError, DataError, StorageError
from trainer.storage import locate
from trainer.storage.natural_order import natural_sort_key

FILES = {f"{name}/{number}.PNG": image(ord(name) + number) for name in "ba" for number in (2, 10)}
IN_ORDER = ["a/2.PNG", "a/10.PNG", "b/2.PNG", "b/10.PNG"]


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / "letters" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "letters"


def zipped(folder, path, around=""):
    with zipfile.ZipFile(path, "w") as archive:
        for name in FILES:
            archive.write(folder / name, f"{around}{name}")


def tarred(folder, path, around=""):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        archive.add(folder, around or ".")


MAKERS = {"letters.zip": zipped, "letters.tar": tarred, "letters.tar.gz": tarred}


def contents(source):
    return {item.name: source.read(index) for index, item in enumerate(source.items)}


def test_each_subfolder_is_a_class_in_natural_order(folder):
    (folder / "a" / "notes.txt").write_text("no picture")
    (folder / "a" / ".hidden.png").write_bytes(b"")
    with open_source(str(folder)) as source:
        assert [item.name for item in source.items] == IN_ORDER
        assert (source.class_names, [item.label for item in source.items]) == (("a", "b"), [0, 0, 1, 1])
        assert contents(source) == FILES


def test_a_class_may_be_a_link_to_a_folder(folder, tmp_path):
    (folder / "b").rename(tmp_path / "elsewhere")
    (folder / "b").symlink_to(tmp_path / "elsewhere")
    with open_source(str(folder)) as source:
        assert [item.name for item in source.items] == IN_ORDER and contents(source) == FILES
    (folder / "b").unlink()
    (folder / "b").symlink_to(tmp_path / "gone")
    check_refusal(lambda: open_source(str(folder)).__enter__(), StorageError, "letters/b")


def test_a_flat_folder_is_one_class_and_names_may_be_anything(tmp_path):
    for name in ("ein Bild ä.png", "дом 2.JPEG", "x.WebP"):
        (tmp_path / "flat" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "flat" / name).write_bytes(image(1))
    with open_source(f"{tmp_path}/flat/") as source:
        assert source.class_names == ("flat",) and len(source.items) == 3 and source.read(0) == image(1)


@pytest.mark.parametrize("around", ["", "letters/"])
@pytest.mark.parametrize("kind", MAKERS)
def test_an_archive_equals_its_folder_with_or_without_a_parent(folder, tmp_path, kind, around):
    MAKERS[kind](folder, tmp_path / kind, around)
    with open_source(str(tmp_path / kind)) as source:
        assert source.class_names == ("a", "b")
        assert [item.name.removeprefix("./").removeprefix(around) for item in source.items] == IN_ORDER
        assert list(contents(source).values()) == [FILES[name] for name in IN_ORDER]


LONG = f"{'long' * 40}/{'ä' * 120}.png"


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_is_read_to_its_end_or_refused_as_damaged(tmp_path, kind, ending):
    path, pack = tmp_path / f"set.tar{ending}", gzip.compress if ending else bytes
    contents = {f"a/{number}.png": image(number) for number in range(6)}
    if kind != tarfile.USTAR_FORMAT:
        contents[LONG] = image(9)
    plain, headers = io.BytesIO(), []
    with tarfile.open(fileobj=plain, mode="w", format=kind) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            headers.append(archive.offset)
            archive.addfile(member, io.BytesIO(content))
        end = archive.offset
    whole = plain.getvalue()
    assert len(whole) > end + 1024 and not any(whole[end:])  # a tape's last record is filled up with zeros
    for good in (whole, whole[: end + 1024], whole[: end + 512], whole[:end]):
        path.write_bytes(pack(good))
        with open_source(str(path)) as source:
            assert {item.name: source.read(index) for index, item in enumerate(source.items)} == contents
    for header in headers:
        for start, damage in ((header + 148, b"\xff" * 8), (header, bytes(512))):  # the checksum; all of it
            path.write_bytes(pack(whole[:start] + damage + whole[start + len(damage) :]))
            check_refusal(lambda: open_source(str(path)).__enter__(), DataError, path.name)
    path.write_bytes(pack(whole[: headers[3] + 100]))
    check_refusal(lambda: open_source(str(path)).__enter__(), DataError, path.name)


IMAGES = np.random.default_rng(0).integers(0, 255, (5, 4, 6), np.uint8)
LABELS = np.array([0, 2, 1, 2, 0])


@pytest.mark.parametrize("names", [("x", "y"), ("x_train", "y_train"), ("images", "labels")])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_uint8_arrays_are_read_unchanged(tmp_path, names, save):
    save(tmp_path / "set.npz", **dict(zip(names, (IMAGES, LABELS), strict=True)))
    with open_source(str(tmp_path / "set.npz")) as source:
        assert [item.label for item in source.items] == LABELS.tolist() and source.class_names == ("0", "1", "2")
        assert all((source.read(index)[..., 0] == IMAGES[index]).all() for index in range(5))
        assert source.items[3].name == "image 3 of set.npz"


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_float_arrays_are_read_in_the_range_of_all_images(tmp_path, low):
    floats = (IMAGES / 255.0 * (1.0 - low) + low).astype(np.float32)
    floats[1] = 0.5
    np.savez(tmp_path / "set.npz", x=floats)
    with open_source(str(tmp_path / "set.npz")) as source:
        assert (source.read(0)[..., 0] == IMAGES[0]).all() and source.class_names == ("0",)
        assert source.read(1)[0, 0, 0] == round((0.5 - low) / (1 - low) * 255)


def test_an_image_with_nan_is_a_bad_image(tmp_path):
    floats = np.random.default_rng(0).random((3, 4, 4, 3))
    floats[1, 0, 0, 0] = np.nan
    np.savez(tmp_path / "set.npz", x=floats)
    with open_source(str(tmp_path / "set.npz")) as source:
        assert source.read(0).shape == (4, 4, 3)
        check_refusal(lambda: source.read(1), DataError)


@pytest.mark.parametrize("labels_ending", ["", ".gz"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_are_read_with_their_label_files(tmp_path, bucket, ending, labels_ending):
    for name, end, array in (("images-idx3", ending, IMAGES), ("labels-idx1", labels_ending, LABELS)):
        (tmp_path / f"train-{name}-ubyte{end}").write_bytes((gzip.compress if end else bytes)(idx(array)))
    (locate(bucket) / "mnist").upload(tmp_path, [path.name for path in tmp_path.iterdir()])
    for folder in (str(tmp_path), f"{bucket}/mnist"):
        with open_source(f"{folder}/train-images-idx3-ubyte{ending}") as source:
            assert [item.label for item in source.items] == LABELS.tolist()
            assert (source.read(4)[..., 0] == IMAGES[4]).all() and not any("labels" in note for note in source.notes)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "x.idx"])
def test_idx_files_without_labels_are_one_class_which_is_reported(tmp_path, name):
    (tmp_path / name).write_bytes(idx(IMAGES))
    with open_source(str(tmp_path / name)) as source:
        assert source.class_names == ("0",) and any("without labels" in note for note in source.notes)
    with open_source(str(tmp_path / name), SourceOptions(label_field="none")) as source:
        assert source.class_names == ("0",) and not source.notes


def test_a_csv_lists_images_and_their_classes(folder):
    table = folder / "table.csv"
    table.write_text(f"Path,label,more\na/2.PNG,ten,1\n{folder}/b/10.PNG,two,2\n")
    with open_source(str(table)) as source:
        assert (source.class_names, [item.label for item in source.items]) == (("ten", "two"), [0, 1])
        assert (source.read(0), source.read(1)) == (FILES["a/2.PNG"], FILES["b/10.PNG"])
    table.write_text("file\na/2.PNG\nmissing.png\n")
    with open_source(str(table)) as source:
        assert source.class_names == ("table",)
        check_refusal(lambda: source.read(1), DataError, "missing.png")


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        ({}, ["a", "b"]),
        ({"label_field": "Breed"}, ["pug", "lab"]),
        ({"label_field": "none"}, ["table", "table"]),
        ({"image_field": "other", "label_field": "breed"}, ["pug", "lab"]),
    ],
)
def test_columns_of_a_csv_may_be_named(folder, options, classes):
    table = folder / "table.csv"
    table.write_text("path,other,label,breed\na/2.PNG,b/2.PNG,a,pug\na/10.PNG,b/10.PNG,b,lab\n")
    with open_source(str(table), options=SourceOptions(**options)) as source:
        assert [source.class_names[item.label] for item in source.items] == classes
        assert source.read(0) == FILES["b/2.PNG" if "image_field" in options else "a/2.PNG"]
    check_refusal(
        lambda: open_source(str(table), options=SourceOptions(label_field="x")).__enter__(),
        ConfigError,
        "label_field='x'",
        "'breed'",
    )


def as_table(separator, *, mark=b"", end=b"\n"):
    """Returns the bytes of a table whose paths and classes contain the separators in quotes."""
    rows = [["{path}", "label", "more"], ["a/2.PNG", '"x, y; z"', "1"], ['"b/10.PNG"', '"tab\t"', ""]]
    return mark + end.join(separator.join(row).encode() for row in rows) + end


TABLES = {
    "commas": as_table(","),
    "semicolons": as_table(";"),
    "tabs": as_table("\t"),
    "a mark of UTF-8": as_table(",", mark=b"\xef\xbb\xbf"),
    "semicolons of Excel": as_table(";", mark=b"\xef\xbb\xbf", end=b"\r\n"),
    "tabs and line ends of Windows": as_table("\t", end=b"\r\n"),
    "line ends of old Macs": as_table(";", end=b"\r"),
    "empty lines first": b"\n\r\n" + as_table(";"),
}


@pytest.mark.parametrize("key", TABLES)
@pytest.mark.parametrize("name", ["table.csv", "metadata.csv"])
def test_tables_may_have_other_separators_and_line_ends(key, name, folder):
    is_metadata = name == "metadata.csv"
    for path in (folder / "a/10.PNG", folder / "b/2.PNG"):
        path.unlink()
    (folder / name).write_bytes(TABLES[key].replace(b"{path}", b"file_name" if is_metadata else b"path"))
    with open_source(str(folder if is_metadata else folder / name)) as source:
        named = {item.name: source.class_names[item.label].strip() for item in source.items}
    assert named == {"a/2.PNG": "x, y; z", "b/10.PNG": "tab"}


@pytest.mark.parametrize("header", ["path|label", "path:label", "pfad;label"])
def test_a_table_without_paths_is_refused_with_its_columns(header, tmp_path):
    (tmp_path / "x.csv").write_text(f"{header}\na.png|b\n")
    check_refusal(lambda: open_source(str(tmp_path / "x.csv")).__enter__(), DataError, "x.csv", header.split(";")[0])


@pytest.mark.parametrize("name", [*PATH_NAMES, "File_Name", " PATH "])
@pytest.mark.parametrize("use", ["source", "parquet", "folder", "conditions"])
def test_columns_of_paths_have_the_usual_names_in_every_table(name, use, folder):
    rows = "".join(f"{path},{index}\n" for index, path in enumerate(FILES))
    (folder / "metadata.csv").write_text(f"{name},label\n{rows}")
    table = str(folder / "metadata.csv")
    if use == "parquet":
        table = str(folder / "list.parquet")
        pq.write_table(pa.table({name: list(FILES), "label": range(len(FILES))}), table)
    with open_source(str(folder) if use in ("folder", "conditions") else table) as source:
        conditioned = ConditionedSource(source, table) if use == "conditions" else source
        named = {item.name: conditioned.class_names[item.label] for item in conditioned.items}
    assert named == {path: str(index) for index, path in enumerate(FILES)}


@pytest.mark.parametrize("name", LABEL_NAMES)
@pytest.mark.parametrize("table", ["table.csv", "metadata.csv"])
def test_columns_of_labels_have_the_usual_names(name, table, folder):
    rows = "".join(f"{path},x{index},7\n" for index, path in enumerate(FILES))
    (folder / table).write_text(f"{'file_name' if table == 'metadata.csv' else 'path'},{name},more\n{rows}")
    with open_source(str(folder if table == "metadata.csv" else folder / table)) as source:
        assert source.class_names == ("x0", "x1", "x2", "x3")


class ClassLabel:
    """Stand-in for the class of tensorflow-datasets."""

    names = ("cat", "dog")


@pytest.fixture
def tfds(monkeypatch):
    """A stand-in for tensorflow-datasets with one dataset. `calls` lists the calls."""
    examples = [{"image": image(number), "label": number % 2} for number in range(4)]
    calls = []

    class Builder:
        info = types.SimpleNamespace(features={"image": None, "label": ClassLabel()})

        def download_and_prepare(self):
            calls.append("downloaded")

        def as_dataset(self, split, decoders):
            calls.append((split, decoders["image"]))
            return examples

    package = types.SimpleNamespace(
        calls=calls,
        Builder=Builder,
        builder=lambda name: Builder(),
        as_numpy=iter,
        decode=types.SimpleNamespace(SkipDecoding=lambda: "as stored"),
        features=types.SimpleNamespace(ClassLabel=ClassLabel),
    )
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", package)
    return package


def test_tfds_images_are_used_as_stored(tfds):
    with open_source("tfds:pets:test") as source:
        assert tfds.calls == ["downloaded", ("test", "as stored")]
        assert (source.class_names, [item.label for item in source.items]) == (("cat", "dog"), [0, 1, 0, 1])
        assert [source.read(index) for index in range(4)] == [image(number) for number in range(4)]
    with open_source("tfds:pets", options=SourceOptions(split=("train", "test"), label_field="none")) as source:
        assert tfds.calls[-1] == ("train+test", "as stored") and len(source.class_names) == 1


def test_a_split_of_tfds_is_stated_once(tfds):
    options = SourceOptions(split=("train",))
    check_refusal(lambda: open_source("tfds:pets:test", options).__enter__(), ConfigError, "split='train'", "pets:test")
    assert not tfds.calls


@pytest.mark.parametrize("name", ["train-00000-of-00001.parquet", "data.parquet", "paths.parquet"])
def test_a_split_that_a_single_file_is_not_is_refused(name, folder):
    column = {"path": list(FILES)} if name == "paths.parquet" else {"image": list(FILES.values())}
    pq.write_table(pa.table(column), folder / name)
    options = SourceOptions(split=("test",))
    check_refusal(lambda: open_source(str(folder / name), options).__enter__(), ConfigError, "split='test'", name)
    with open_source(str(folder / name), SourceOptions(split=("train",) if "train" in name else ())) as source:
        assert len(source.items) == len(FILES)


def raising(error):
    def act(*args, **kwargs):
        raise error

    return act


@pytest.mark.parametrize(
    ("at", "error", "facts"),
    [
        ("builder", ValueError("Dataset pets not found.\nAvailable: a, b"), ("Dataset pets not found",)),
        ("download_and_prepare", OSError("no network"), ("no network",)),
        ("download_and_prepare", AssertionError(), ("AssertionError",)),
        ("as_dataset", ValueError("Unknown split 'x'."), ("Unknown split 'x'",)),
        ("as_numpy", RuntimeError("lost data"), ("lost data",)),
    ],
)
def test_an_error_of_tfds_becomes_one_line_with_its_cause(tfds, monkeypatch, at, error, facts):
    monkeypatch.setattr(tfds if hasattr(tfds, at) else tfds.Builder, at, raising(error))
    check_refusal(lambda: open_source("tfds:pets:x").__enter__(), DataError, "tfds:pets", *facts)


@pytest.mark.parametrize(("features", "fact"), [({"text": 0}, "image"), ({"image": 0, "label": 0.5}, "label")])
def test_tfds_sets_without_images_or_classes_are_not_downloaded(tfds, features, fact):
    tfds.Builder.info = types.SimpleNamespace(features=features)
    check_refusal(lambda: open_source("tfds:pets").__enter__(), DataError, "tfds:pets", fact)
    assert not tfds.calls


def test_natural_order_sorts_numbers_by_value():
    assert sorted(["10", "9", "b2", "b10", "a"], key=natural_sort_key) == ["9", "10", "a", "b2", "b10"]
    ordered = ["2a", "10", "٣٣", "", "a2", "a010", "a10/1", "a10b", "a", "ab", "b/9.png", "b/10.png", "²"]
    names = sorted(ordered)
    assert names != ordered == sorted(names, key=natural_sort_key)
    long = ["0" * 5000 + "1" + "0" * 5000, "1" + "0" * 4999, "9" * 4999]
    assert sorted(long, key=natural_sort_key) == long[::-1]  # int() takes at most 4,300 digits


def test_a_natural_sort_key_has_words_and_not_letters():
    assert len(natural_sort_key("train/class_0012/images/ILSVRC2012_val_00012345.JPEG")) == 7


def test_classes_of_equal_numbers_keep_the_order_of_the_source(folder):
    labels = ["0001", "1", "001", "00001", "01", "000001"]
    (folder / "list.csv").write_text("path,label\n" + "".join(f"a/2.PNG{label},{label}\n" for label in labels))
    with open_source(str(folder / "list.csv")) as source:
        assert list(source.class_names) == labels


def test_temporary_files_of_a_source_are_deleted(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    os.mkdir(tmp_path / "scratch")
    tarred(folder, tmp_path / "letters.tar.gz")
    with open_source(str(tmp_path / "letters.tar.gz")):
        assert list((tmp_path / "scratch").iterdir())
    assert not list((tmp_path / "scratch").iterdir())
