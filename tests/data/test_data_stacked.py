"""Stacked datasets: the drawn digits and the stacked images."""

import hashlib

import numpy as np
import pytest

from trainer.data import describe
from trainer.data.loading import load
from trainer.data.stacked import draw, stack
from trainer.data.tfrecord_writer import write_prepared

SOURCE_COUNTS = [3, 9, 1, 0, 7, 5, 5, 2, 4, 4]
DRAW_SHA256 = "6f4ce45c94ab768de0e7cb86f6a3a1e7d90191968b34fa64eb16fe3b5674f3f5"


def write_source(directory, labels, num_classes=10, channels=1):
    """Writes images of 2×1 pixels, the number and the label of each image, and returns them."""
    images = np.zeros((len(labels), 2, 1, channels), np.uint8)
    images[:, 0, 0, 0], images[:, 1, 0, 0] = np.arange(len(labels)), labels
    names = [f"class {label}" for label in range(num_classes)]
    texts = {"name": "little", "source": "", "license": "", "attribution": ""}
    write_prepared(directory, images, np.asarray(labels), names, **texts)
    return images


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Directory, images and labels of a source with mixed classes of different sizes."""
    labels = np.random.Generator(np.random.PCG64(5)).permutation(np.repeat(np.arange(10), SOURCE_COUNTS))
    directory = tmp_path_factory.mktemp("source")
    return directory, write_source(directory, labels), labels


@pytest.fixture(scope="module")
def stacked(source):
    return load(f"stacked:{source[0]}")


def test_a_stacked_set_has_128000_color_images_in_1000_classes():
    info = describe("stacked:digits")
    assert (info.name, info.image_shape, info.num_examples) == ("stacked:digits", (28, 28, 3), 128_000)
    assert (info.class_names[0], info.class_names[7], info.class_names[-1]) == ("000", "007", "999")
    assert info.num_classes == 1000
    assert 80 < min(info.class_counts) < 128 < max(info.class_counts) < 180


def test_the_drawn_digits_never_change():
    positions = draw((500,) * 10).positions
    assert hashlib.sha256(positions.astype("<i8").tobytes()).hexdigest() == DRAW_SHA256


def test_every_digit_is_drawn_about_as_often_in_every_channel():
    positions = draw((4, 6)).positions
    for channel in range(3):
        counts = np.bincount(positions[:, channel], minlength=10)
        assert len(counts) == 10
        assert abs(counts - 12_800).max() < 600  # 5.6 standard deviations
    pairs = np.bincount(positions[:, 0] * 10 + positions[:, 1], minlength=100)
    assert abs(pairs - 1280).max() < 200


def test_the_description_counts_classes_exactly_without_pixels(tmp_path, stacked):
    write_source(tmp_path, np.repeat(np.arange(10), SOURCE_COUNTS))
    next(tmp_path.glob("*.tfrecord")).unlink()
    info = describe(f"stacked:{tmp_path}")
    assert info == stacked.info
    assert info.class_counts == tuple(np.bincount(stacked.labels, minlength=1000))
    assert info.name == "stacked:little"


def test_channels_are_digits_and_labels_their_classes(source, stacked):
    _, images, labels = source
    numbers = stacked.images[:, 0, 0, :]
    np.testing.assert_array_equal(stacked.labels, labels[numbers] @ [100, 10, 1])
    for channel in range(3):
        np.testing.assert_array_equal(stacked.images[..., channel], images[numbers[:, channel], ..., 0])
    assert (stacked.images.dtype, stacked.labels.dtype) == (np.uint8, np.int32)
    assert stacked.images.shape == (128_000, 2, 1, 3)
    assert set(numbers.ravel()) == set(range(len(labels)))


def test_drawn_positions_refer_to_the_source_sorted_by_class(source, stacked):
    order = np.argsort(source[2], kind="stable")
    np.testing.assert_array_equal(stacked.images[:, 0, 0, :], order[draw(SOURCE_COUNTS).positions])


def test_a_class_filter_keeps_order_and_labels(source, stacked):
    filtered = load(f"stacked:{source[0]}", (145, 11))
    is_selected = np.isin(stacked.labels, (11, 145))
    np.testing.assert_array_equal(filtered.images, stacked.images[is_selected])
    np.testing.assert_array_equal(filtered.labels, stacked.labels[is_selected])
    assert filtered.info == stacked.info.with_classes((145, 11))
    assert filtered.info.num_examples == len(filtered.images)


def test_padding_surrounds_every_channel_with_zeros(source, stacked):
    padded = load(f"stacked:{source[0]}", (145,), padding=3)
    assert padded.images.shape[1:] == padded.info.image_shape == (8, 7, 3)
    np.testing.assert_array_equal(padded.images[:, 3:-3, 3:-3], stacked.images[stacked.labels == 145])
    assert padded.images.sum() == stacked.images[stacked.labels == 145].sum(dtype=np.int64)


def test_the_embedded_digits_stack(digits):
    some = load("stacked:digits", (307,))
    images, labels = stack(digits.images, digits.labels, (307,))
    np.testing.assert_array_equal(some.images, images)
    np.testing.assert_array_equal(some.labels, labels)
    threes = {image.tobytes() for image in digits.images[digits.labels == 3]}
    assert all(image[:, :, :1].tobytes() in threes for image in some.images)
