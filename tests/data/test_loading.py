"""Loading of the embedded digits, a directory, and the datasets of Keras."""

import keras
import numpy as np
import pytest
from refusals import check_refusal

from trainer import control_group
from trainer.data.datasets import KERAS_DATASETS, embedded_digits_dir, machine_memory_mib
from trainer.data.loading import Arrays, load
from trainer.errors import ConfigError, DataError

FINGERPRINT = "67233f450f736699fcbbbc5f4558e066891c0334588f7f41898234b14661979a"


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_the_embedded_digits_have_500_images_per_class(digits):
    assert (digits.images.shape, digits.images.dtype) == ((5000, 28, 28, 1), np.uint8)
    assert (digits.labels.shape, digits.labels.dtype) == ((5000,), np.int32)
    assert np.bincount(digits.labels).tolist() == [500] * 10
    assert (digits.images.min(), digits.images.max()) == (0, 255)


def test_the_embedded_digits_are_shuffled(digits):
    assert all(set(digits.labels[start : start + 100]) == set(range(10)) for start in range(0, 5000, 100))


def test_the_fingerprint_of_the_embedded_digits_does_not_change(digits):
    assert digits.fingerprint == FINGERPRINT


def test_the_fingerprint_depends_on_images_labels_order_and_shape():
    images, labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1), np.array([0, 1], np.int32)
    variants = [
        Arrays(images, labels, None),
        Arrays(images + 1, labels, None),
        Arrays(images, labels[::-1], None),
        Arrays(images[::-1], labels[::-1], None),
        Arrays(images.reshape(2, 4, 3, 1), labels, None),
    ]
    assert len({arrays.fingerprint for arrays in variants}) == len(variants)
    assert Arrays(images.copy(), labels.copy(), None).fingerprint == variants[0].fingerprint


def test_a_class_filter_keeps_order_and_labels(digits):
    filtered = load("digits", (3, 0))
    is_selected = (digits.labels == 0) | (digits.labels == 3)
    np.testing.assert_array_equal(filtered.images, digits.images[is_selected])
    np.testing.assert_array_equal(filtered.labels, digits.labels[is_selected])
    assert (filtered.info.num_examples, filtered.info.num_classes) == (1000, 10)


def test_padding_surrounds_every_image_with_zeros(digits):
    padded = load("digits", (3, 0), padding=2)
    is_selected = (digits.labels == 0) | (digits.labels == 3)
    assert padded.images.shape[1:] == padded.info.image_shape == (32, 32, 1)
    np.testing.assert_array_equal(padded.images[:, 2:-2, 2:-2], digits.images[is_selected])
    assert padded.images.sum() == digits.images[is_selected].sum()


def test_a_directory_loads_like_the_embedded_digits(digits):
    assert load(str(embedded_digits_dir())).fingerprint == digits.fingerprint


@pytest.mark.parametrize("name", ["digits", "inverted:digits", "stacked:digits"])
def test_a_dataset_larger_than_the_memory_is_refused(monkeypatch, name):
    monkeypatch.setattr("trainer.data.loading.machine_memory_mib", lambda: 3.0)
    check_refusal(lambda: load(name), ConfigError, "digits", " MiB", " 3 MiB", "num_chunks")


@pytest.mark.parametrize("name", ["digits", "inverted:digits", "stacked:digits", "mnist"])
def test_padding_counts_as_memory(name):
    check_refusal(lambda: load(name, padding=100_000), ConfigError, name, "MiB", "padding")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cgroup": "0::/a/b\n", "fs/a/b/memory.max": "max", "fs/a/memory.max": f"{3 * 2**20}\n"}, 3),
        ({"cgroup": "0::/../a\n", "fs/memory.max": f"{4 * 2**20}\n"}, 4),
        ({"cgroup": "3:memory:/docker/a\n0::/\n", "fs/memory/memory.limit_in_bytes": f"{5 * 2**20}\n"}, 5),
    ],
)
def test_the_memory_of_a_container_is_its_limit(files, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(control_group, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(control_group, "_ROOT", tmp_path / "fs")
    without_limit = machine_memory_mib()
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine_memory_mib() == expected < without_limit


def test_an_unknown_class_is_refused_before_a_download(monkeypatch):
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: pytest.fail("downloaded"))
    check_refusal(lambda: load("cifar10", (10,)), ConfigError, "classes=10", "cifar10")


@pytest.mark.parametrize("name", list(KERAS_DATASETS))
def test_a_failed_download_names_its_cause_and_where_files_go(monkeypatch, name):
    def fail():
        raise Exception("URL fetch failure on https://example.org")

    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", fail)
    facts = (name, "URL fetch failure on https://example.org", KERAS_DATASETS[name].cache, "--dataset=digits")
    check_refusal(lambda: load(name), DataError, *facts)


def test_a_downloaded_dataset_has_the_usual_shape_and_types(monkeypatch):
    labels = np.repeat(np.arange(10, dtype=np.uint8), 5000)[:, None]
    images = np.zeros((50000, 32, 32, 3), np.uint8)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: ((images, labels), (None, None)))
    arrays = load("cifar10", (7,))
    assert (arrays.images.shape, arrays.labels.shape) == ((5000, 32, 32, 3), (5000,))
    assert (arrays.images.dtype, arrays.labels.dtype) == (np.uint8, np.int32)
    assert set(arrays.labels) == {7}


@pytest.mark.parametrize("name", list(KERAS_DATASETS))
def test_a_downloaded_dataset_with_other_counts_is_refused(monkeypatch, name):
    info, cache = KERAS_DATASETS[name]
    content = (np.zeros((10, *info.image_shape), np.uint8), np.arange(10, dtype=np.uint8))
    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", lambda: (content, (None, None)))
    check_refusal(lambda: load(name), DataError, name, "[1, 1, 1, ", f"[{info.class_counts[0]}, ", cache)
