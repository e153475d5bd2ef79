"""Mean and covariance from blocks, and the Frechet distance of singular covariances."""

import numpy as np
import pytest

from trainer.metrics.frechet import frechet_distance, frechet_from_moments
from trainer.metrics.moments import moments, row_blocks

RANDOM = np.random.Generator(np.random.PCG64(11))


@pytest.mark.parametrize("lengths", [[90], [1] * 90, [0, 1, 0, 64, 25, 0], [45, 45], [89, 1]], ids=str)
@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("num_features", [1, 7, 120])
def test_blocks_of_any_size_give_the_moments_of_all_rows(lengths, offset, num_features):
    features = RANDOM.normal(size=(90, num_features)) @ RANDOM.normal(size=(num_features, num_features)) + offset
    result = moments(np.split(features, np.cumsum(lengths)[:-1]))
    assert result.num_samples == 90
    np.testing.assert_allclose(result.mean, features.mean(0), rtol=1e-12, atol=1e-12)
    centered = features - features.mean(0)  # np.cov of a great mean loses no digits either
    expected = centered.T @ centered / 89
    np.testing.assert_allclose(result.covariance, expected, rtol=1e-9, atol=1e-9 * (1 + 1e-6 * offset))


def test_moments_of_float32_are_summed_in_float64():
    features = (RANDOM.normal(size=(5000, 3)) + 1000).astype(np.float32)
    exact = features.astype(np.float64)
    result = moments(row_blocks(features))
    np.testing.assert_allclose(result.mean, exact.mean(0), rtol=1e-13)
    np.testing.assert_allclose(result.covariance, np.cov(exact, rowvar=False), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("num_real", "num_fake", "num_features"), [(5, 7, 40), (40, 6, 40), (30, 300, 64), (2, 2, 3)])
def test_singular_covariances_give_the_distance_of_the_samples(num_real, num_fake, num_features):
    scales = np.geomspace(1.0, 1e-4, num_features)
    real = RANDOM.normal(size=(num_real, num_features)) * scales
    fake = RANDOM.normal(size=(num_fake, num_features)) * scales + 0.1 * scales
    # The trace of (A Aᵀ B Bᵀ)^½ is the sum of the singular values of Aᵀ B, here with the samples as A and B.
    first, second = ((samples - samples.mean(0)) / np.sqrt(len(samples) - 1) for samples in (real, fake))
    root_trace = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    expected = np.square(real.mean(0) - fake.mean(0)).sum() + (first**2).sum() + (second**2).sum() - 2 * root_trace
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    same = moments([real])
    assert frechet_from_moments(same, same) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e3])
def test_features_that_never_change_add_only_their_difference(constant):
    real, fake = RANDOM.normal(size=(50, 4)), RANDOM.normal(size=(60, 4)) * 2
    expected = frechet_distance(real, fake)

    def widened(samples, value):
        return np.concatenate([samples, np.full((len(samples), 6), value)], axis=1)

    assert frechet_distance(widened(real, constant), widened(fake, constant)) == pytest.approx(expected, rel=1e-9)
    shifted = frechet_distance(widened(real, constant), widened(fake, constant + 1))
    assert shifted == pytest.approx(expected + 6, rel=1e-9)
