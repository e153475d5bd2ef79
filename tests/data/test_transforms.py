"""Transformed datasets: negatives and colors of another dataset."""

import hashlib
import tracemalloc

import numpy as np
import pytest

from trainer.config.dataset_names import DatasetPrefix, split_prefix
from trainer.data import describe, transforms
from trainer.data.loading import load
from trainer.data.transforms import TRANSFORMS, tint


def test_inverted_images_are_negatives_including_their_padding(digits):
    arrays = load("inverted:digits", padding=1)
    assert arrays.info.image_shape == (30, 30, 1)
    np.testing.assert_array_equal(arrays.images[:, 1:-1, 1:-1], 255 - digits.images)
    assert (arrays.images[:, 0] == 255).all()
    np.testing.assert_array_equal(arrays.labels, digits.labels)


def test_tinted_images_have_one_bright_color_each(digits):
    arrays = load("tinted:digits")
    assert arrays.images.shape == (5000, 28, 28, 3) == (5000, *describe("tinted:digits").image_shape)
    np.testing.assert_allclose(arrays.images.max(axis=-1), digits.images[..., 0], atol=1)
    brightest = arrays.images.reshape(5000, -1, 3).max(axis=1)
    assert len(np.unique(brightest, axis=0)) > 1000
    assert load("tinted:digits").fingerprint == arrays.fingerprint


def test_hues_depend_on_the_position_among_the_loaded_images(digits):
    few = digits.images[digits.labels == 3]
    arrays = load("tinted:digits", (3,))
    np.testing.assert_array_equal(arrays.images, tint(few))
    hue = load("tinted:digits").images[0].reshape(-1, 3).max(axis=0)
    np.testing.assert_array_equal(arrays.images[0].reshape(-1, 3).max(axis=0) // 8, hue // 8)


def test_a_class_filter_applies_to_a_transformed_dataset():
    arrays = load("inverted:digits", (3,))
    assert set(arrays.labels) == {3} and len(arrays.images) == 500


@pytest.mark.parametrize(("transform", "channels"), [("tinted", 1), ("gray_to_color", 3)])
def test_a_transform_needs_little_more_memory_than_its_result(transform, channels):
    images = np.zeros((20_000, 16, 16, channels), np.uint8)
    tracemalloc.start()
    result = TRANSFORMS[transform].function(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * result.nbytes


@pytest.mark.parametrize(
    ("transform", "channels", "digest"),
    [("tinted", 1, "1379ada098e8088d"), ("gray_to_color", 3, "2631d7cfa75f282a"), ("inverted", 3, "5d2332136abf9c88")],
)
def test_the_bytes_of_transformed_images_stay(transform, channels, digest, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (300, 5, 7, channels), np.uint8)
    for block_bytes in (1, 10_000, 2**24):
        monkeypatch.setattr(transforms, "_BLOCK_BYTES", block_bytes)
        assert hashlib.sha256(TRANSFORMS[transform].function(images).tobytes()).hexdigest()[:16] == digest
    assert TRANSFORMS[transform].function(images[:0]).shape[0] == 0


def test_every_prefix_is_split_and_names_a_way_to_make_images():
    assert set(DatasetPrefix) == {DatasetPrefix.STACKED, *TRANSFORMS}
    for prefix in DatasetPrefix:
        assert split_prefix(f"{prefix}:tinted:digits") == (prefix, "tinted:digits")
    for name in ("digits", "inverted", "gs://bucket/inverted:a", "other:digits", ""):
        assert split_prefix(name) == (None, name)


@pytest.mark.parametrize("name", ["inverted:digits", "tinted:digits", "gray_to_color:tinted:digits"])
def test_a_transform_returns_the_shape_that_it_states(name):
    assert load(name, (3,)).images.shape[1:] == describe(name).array_shape
