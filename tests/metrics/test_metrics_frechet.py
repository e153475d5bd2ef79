"""The Frechet distance against closed forms."""

import numpy as np
import pytest

from trainer.metrics.frechet import frechet_distance

RANDOM = np.random.Generator(np.random.PCG64(1))


def samples_of(mean, covariance, num_samples=200):
    """Returns samples whose mean and unbiased covariance are exactly the arguments."""
    raw = RANDOM.normal(size=(num_samples, len(mean)))
    raw -= raw.mean(0)
    whitened = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    return whitened @ np.linalg.cholesky(covariance).T + mean


def test_diagonal_gaussians_match_the_closed_form():
    real = samples_of([1.0, -2.0, 0.0], np.diag([4.0, 1.0, 9.0]))
    fake = samples_of([0.0, 0.0, 0.5], np.diag([1.0, 1.0, 25.0]))
    mean_distance = 1.0 + 4.0 + 0.25
    deviation_distance = (2 - 1) ** 2 + (1 - 1) ** 2 + (3 - 5) ** 2
    assert frechet_distance(real, fake) == pytest.approx(mean_distance + deviation_distance, abs=1e-9)


def test_covariances_that_do_not_commute_match_the_closed_form():
    # For 2 x 2 matrices tr (S1 S2)^½ = sqrt(tr(S1 S2) + 2 sqrt(det(S1 S2))): tr 9, det 15.
    first, second = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[4.0, -1.0], [-1.0, 1.0]])
    expected = 5.0 + 5.0 - 2.0 * np.sqrt(9.0 + 2.0 * np.sqrt(15.0))
    real, fake = samples_of([0.0, 0.0], first), samples_of([0.0, 0.0], second)
    assert np.trace(first @ second) == 9.0
    assert np.linalg.det(first @ second) == pytest.approx(15.0)
    assert frechet_distance(real, fake) == pytest.approx(expected, abs=1e-9)


def test_it_is_symmetric_and_zero_for_equal_sets():
    real, fake = RANDOM.normal(size=(50, 4)), RANDOM.normal(size=(60, 4)) * 2
    assert frechet_distance(real, fake) == pytest.approx(frechet_distance(fake, real), abs=1e-9)
    assert frechet_distance(real, real) == pytest.approx(0.0, abs=1e-9)


def test_fewer_samples_than_features_give_a_finite_distance():
    assert np.isfinite(frechet_distance(RANDOM.normal(size=(5, 20)), RANDOM.normal(size=(5, 20))))


def test_one_feature_is_enough():
    assert frechet_distance([[0.0], [2.0]], [[3.0], [5.0]]) == pytest.approx(9.0)
