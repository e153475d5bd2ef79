"""The kernel distance and the neighborhood metrics, on sets that are small enough to count by hand."""

import numpy as np
import pytest
from feature_metrics import density_coverage, kid, precision_recall

from trainer.metrics import pairwise

RANDOM = np.random.Generator(np.random.PCG64(2))
LEFT, RIGHT = RANDOM.normal(size=(30, 2)), RANDOM.normal(size=(30, 2)) + 100
BOTH = np.concatenate([LEFT, RIGHT])


def test_the_kernel_distance_of_a_case_counted_by_hand():
    # F = 2, kernel (x·y / 2 + 1)³. Real pair: (0 + 1)³ = 1. Fake pair: (2 / 2 + 1)³ = 8.
    # Across: (1, 0)·(2, 0) -> 8, (1, 0)·(1, 2) -> 27/8, (0, 2)·(2, 0) -> 1, (0, 2)·(1, 2) -> 27.
    real, fake = [[1.0, 0.0], [0.0, 2.0]], [[2.0, 0.0], [1.0, 2.0]]
    assert kid(real, fake) == pytest.approx(1 + 8 - 2 * (8 + 27 / 8 + 1 + 27) / 4)


def test_the_kernel_distance_is_unbiased():
    values = [kid(RANDOM.normal(size=(20, 3)), RANDOM.normal(size=(20, 3))) for _ in range(100)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 10
    assert min(values) < 0 < max(values)


def test_fakes_of_some_modes_only_are_precise_and_recall_little():
    precision, recall = precision_recall(BOTH, RANDOM.permutation(LEFT), k=5)
    assert precision == 1.0
    assert recall == 0.5


def test_fakes_of_more_modes_recall_all_and_are_imprecise():
    precision, recall = precision_recall(LEFT, BOTH, k=5)
    assert precision == 0.5
    assert recall == 1.0


def test_coverage_counts_real_balls_and_density_fake_samples():
    density, coverage = density_coverage(BOTH, LEFT, k=5)
    assert coverage == 0.5
    assert density > 1.0
    density_of_more, coverage_of_more = density_coverage(LEFT, BOTH, k=5)
    assert coverage_of_more == 1.0
    assert density_of_more == pytest.approx(density / 2)


def test_the_four_measures_of_a_case_counted_by_hand():
    # k = 1. Real 0, 1, 5 have radii 1, 1, 4 and balls [-1, 1], [0, 2], [1, 9]; fake 1.5, 8, 20 have radii 6.5, 6.5, 12
    # and balls [-5, 8], [1.5, 14.5], [8, 32].
    real, fake = [[0.0], [1.0], [5.0]], [[1.5], [8.0], [20.0]]
    assert precision_recall(real, fake, k=1) == pytest.approx((2 / 3, 3 / 3))
    # Fake 1.5 is in 2 real balls, 8 in 1, 20 in none; the balls of 1 and 5 contain a fake sample.
    assert density_coverage(real, fake, k=1) == pytest.approx((3 / 3, 2 / 3))


def test_recall_uses_fake_balls_and_precision_real_ones():
    # k = 1: the balls [-1, 1] and [0, 2] contain neither 50 nor 150; [-50, 150] and [50, 250] contain 0 and 1.
    assert precision_recall([[0.0], [1.0]], [[50.0], [150.0]], k=1) == (0.0, 1.0)
    assert precision_recall([[50.0], [150.0]], [[0.0], [1.0]], k=1) == (1.0, 0.0)


def test_one_image_repeated_has_no_recall():
    repeated = np.repeat(BOTH[:1], 60, axis=0)
    precision, recall = precision_recall(BOTH, repeated, k=5)
    assert (precision, recall) == (1.0, 1 / 60)


def test_a_sample_is_not_its_own_neighbor_and_k_counts_the_others():
    features = np.array([[0.0], [1.0], [3.0], [7.0]])
    assert pairwise.self_stats(features, 1).squared_radii.tolist() == [1.0, 1.0, 4.0, 16.0]
    assert pairwise.self_stats(features, 3).squared_radii.tolist() == [49.0, 36.0, 16.0, 49.0]


def test_the_size_of_the_blocks_does_not_matter(monkeypatch):
    real, fake = RANDOM.normal(size=(23, 3)), RANDOM.normal(size=(31, 3)) * 1.2
    whole = (*precision_recall(real, fake), *density_coverage(real, fake), kid(real, fake))
    monkeypatch.setattr(pairwise, "_MAX_PAIRS", 7 * 31)
    in_blocks = (*precision_recall(real, fake), *density_coverage(real, fake), kid(real, fake))
    assert in_blocks == pytest.approx(whole, rel=1e-12)
    assert 0 < whole[0] < 1


def test_neighborhood_metrics_equal_a_direct_computation():
    real, fake = RANDOM.normal(size=(40, 3)), RANDOM.normal(size=(30, 3)) * 1.5
    across = np.linalg.norm(real[:, None] - fake[None], axis=2)
    real_radii, fake_radii = (
        np.sort(np.linalg.norm(samples[:, None] - samples[None], axis=2), axis=1)[:, 5] for samples in (real, fake)
    )
    precision = (across <= real_radii[:, None]).any(axis=0).mean()
    recall = (across <= fake_radii[None, :]).any(axis=1).mean()
    density = (across <= real_radii[:, None]).sum(axis=0).mean() / 5
    coverage = (across.min(axis=1) <= real_radii).mean()
    assert precision_recall(real, fake) == pytest.approx((precision, recall))
    assert density_coverage(real, fake) == pytest.approx((density, coverage))
