"""Nearest training images against brute force, and the share of copies on sets whose copies are known."""

import functools

import numpy as np
import pytest
from refusals import check_refusal

from trainer.errors import DataError
from trainer.metrics import neighbors
from trainer.metrics.neighbors import Copies, find_copies, nearest


def features(seed, num, size=16):
    """Features like those of images: most of the variance is in a few directions."""
    return (np.random.default_rng(seed).normal(size=(num, size)) * 0.8 ** np.arange(size) + 3.0).astype(np.float32)


def copies(samples, training):
    return find_copies(nearest(samples, training, 1).distances[:, 0], training)


@pytest.mark.parametrize(("rows", "columns"), [(512, 4096), (7, 11), (1, 1), (50, 3)])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_neighbors_equal_brute_force_in_tiles_of_any_size(monkeypatch, rows, columns, k):
    monkeypatch.setattr(neighbors, "_TILE_ROWS", rows)
    monkeypatch.setattr(neighbors, "_TILE_COLUMNS", columns)
    samples, training = features(1, 23), features(2, 40)
    result = nearest(samples, training, k)
    distances = np.linalg.norm(samples[:, np.newaxis].astype(np.float64) - training, axis=2)
    np.testing.assert_array_equal(result.indices, np.argsort(distances, axis=1)[:, :k])
    np.testing.assert_allclose(result.distances, np.sort(distances, axis=1)[:, :k], rtol=1e-9)


def test_equal_images_have_distance_zero_and_the_lowest_number_first():
    training = features(2, 40)
    training[[3, 30]] = training[17]
    result = nearest(training[[17, 5]], training, 3)
    assert result.indices.tolist()[0] == [3, 17, 30] and result.distances[0].tolist() == [0.0, 0.0, 0.0]
    assert result.indices[1, 0] == 5 and result.distances[1, 0] == 0.0 < result.distances[1, 1]


def test_the_threshold_is_the_first_percentile_of_distances_of_different_images():
    training = features(2, 300)
    distances = np.linalg.norm(training[:, np.newaxis].astype(np.float64) - training, axis=2)
    np.fill_diagonal(distances, np.inf)
    expected = np.quantile(distances.min(1), 0.01)
    assert copies(features(1, 20), training).threshold == pytest.approx(expected, rel=1e-9)
    assert copies(features(1, 20), np.repeat(training, 3, 0)).threshold == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("repeats", [1, 3], ids=lambda repeats: f"each image {repeats} times")
def test_held_out_images_are_no_copies_and_copies_are_found(repeats):
    training = np.repeat(features(2, 1000), repeats, 0)
    held_out = copies(features(1, 1000), training)
    assert held_out.share < 0.02 and not held_out.is_high
    mixed = features(1, 1000)
    mixed[:100] = training[np.random.default_rng(0).choice(len(training), 100, replace=False)]
    assert copies(mixed, training).share == pytest.approx(0.1, abs=0.02) and copies(mixed, training).is_high
    noisy = mixed + np.random.default_rng(3).normal(size=mixed.shape).astype(np.float32) * 0.01
    assert copies(noisy, training).share == pytest.approx(0.1, abs=0.02)


def test_rounding_does_not_hide_a_copy():
    training = features(2, 500)
    assert copies(training * np.float32(1 + 1e-7), training).share == 1.0


def test_a_training_set_of_one_repeated_image_still_has_copies():
    training = np.repeat(features(2, 1), 20, 0)
    result = copies(np.concatenate([training[:4], features(1, 4)]), training)
    assert (result.threshold, result.num_close, result.share) == (0.0, 4, 0.5)


@pytest.mark.parametrize(
    ("num_samples", "num_close", "is_high"),
    [(16, 2, False), (16, 3, True), (1000, 49, False), (1000, 50, True), (12, 0, False)],
)
def test_a_share_is_high_from_5_percent_and_3_samples(num_samples, num_close, is_high):
    assert Copies(num_samples, num_close, 1.0).is_high == is_high


@pytest.mark.parametrize(
    ("act", "mentions"),
    [
        (functools.partial(nearest, features(1, 4), features(2, 3), 4), ("4", "3")),
        (functools.partial(nearest, features(1, 4), features(2, 3), 0), ("0", "3")),
        (functools.partial(nearest, features(1, 4, 8), features(2, 3), 1), ("8", "16")),
        (functools.partial(nearest, np.full((2, 16), np.nan), features(2, 3), 1), ("fake_features",)),
        (functools.partial(nearest, np.zeros((0, 16)), features(2, 3), 1), ("[0, 16]",)),
        (functools.partial(find_copies, np.ones(3), features(2, 1)), ("[1, 16]",)),
    ],
    ids=["too many neighbors", "no neighbors", "other features", "not finite", "no samples", "one training image"],
)
def test_sets_without_neighbors_are_refused(act, mentions):
    check_refusal(act, DataError, *mentions)
