"""All image metrics against an independent implementation with NumPy and SciPy."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from scipy.spatial.distance import cdist
from scipy.special import softmax

from trainer.metrics import pairwise
from trainer.metrics.comparison import compare, feature_statistics, inception_score
from trainer.metrics.kid import NUM_SUBSETS, random_subsets
from trainer.metrics.pairwise import NUM_NEIGHBORS


def frechet(real, fake):
    """Returns the distance with a root of the product of the covariances."""
    first, second = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second)
    return np.square(real.mean(0) - fake.mean(0)).sum() + np.trace(first + second - 2 * np.real(root))


def kernel_distance(real, fake):
    """Returns the unbiased estimate of one pair of subsets."""
    size = len(real)

    def kernel(first, second):
        return (first @ second.T / first.shape[1] + 1) ** 3

    within = sum((kernel(samples, samples).sum() - kernel(samples, samples).trace()) for samples in (real, fake))
    return within / (size * (size - 1)) - 2 * kernel(real, fake).mean()


def neighborhoods(real, fake):
    """Returns precision, recall, density and coverage."""
    across = cdist(real, fake)
    real_radii, fake_radii = (np.sort(cdist(s, s), axis=1)[:, NUM_NEIGHBORS] for s in (real, fake))
    in_real = across <= real_radii[:, None]
    return {
        "precision": in_real.any(0).mean(),
        "recall": (across <= fake_radii).any(1).mean(),
        "density": in_real.sum(0).mean() / NUM_NEIGHBORS,
        "coverage": in_real.any(1).mean(),
    }


@pytest.mark.parametrize(("max_pairs", "dtype"), [(pairwise._MAX_PAIRS, np.float64), (70 * 70, np.float32)])
@pytest.mark.parametrize(
    ("num_real", "num_fake", "num_features", "offset", "subset_size"),
    [(150, 170, 8, 0.0, 100), (60, 210, 24, 3.0, 60), (200, 90, 3, 10.0, 20), (12, 12, 5, 0.0, 12)],
)
def test_the_metrics_equal_an_independent_implementation(
    num_real, num_fake, num_features, offset, subset_size, max_pairs, dtype, monkeypatch
):
    monkeypatch.setattr(pairwise, "_MAX_PAIRS", max_pairs)
    random = np.random.Generator(np.random.PCG64(num_real))
    mixing = random.normal(size=(num_features, num_features))
    real = (random.normal(size=(num_real, num_features)) @ mixing + offset).astype(dtype)
    fake = (random.normal(size=(num_fake, num_features)) @ mixing * 0.8 + 0.2 + offset).astype(dtype)
    real_subsets, fake_subsets = random_subsets(num_real, subset_size, 0), random_subsets(num_fake, subset_size, 1)
    values = compare(feature_statistics(real, "real", real_subsets), feature_statistics(fake, "fake", fake_subsets))
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    distances = [
        kernel_distance(real[real_subsets[:, index]], fake[fake_subsets[:, index]]) for index in range(NUM_SUBSETS)
    ]
    expected = {"frechet": frechet(real, fake), "kid": np.mean(distances), "kid_std": np.std(distances)}
    assert values == pytest.approx(expected | neighborhoods(real, fake), rel=1e-6, abs=1e-9)
    assert all(type(value) is float for value in values.values())


def test_the_kernel_distance_of_subsets_of_all_samples_has_no_deviation():
    random = np.random.Generator(np.random.PCG64(6))
    real, fake = (random.normal(size=(203, 20)).astype(np.float32) for _ in range(2))
    subsets = [random_subsets(203, 203, seed) for seed in (0, 1)]
    values = compare(feature_statistics(real, "real", subsets[0]), feature_statistics(fake, "fake", subsets[1]))
    assert values["kid_std"] == 0.0 != values["kid"]


@pytest.mark.parametrize("max_pairs", [25 * 25, 10_000])
def test_samples_that_are_equal_have_distance_zero(max_pairs, monkeypatch):
    monkeypatch.setattr(pairwise, "_MAX_PAIRS", max_pairs)
    random = np.random.Generator(np.random.PCG64(5))
    samples = (random.normal(size=(10, 33)) * random.uniform(0.1, 30) + 7).astype(np.float32)
    repeated = np.repeat(samples, 7, axis=0)  # six other copies: all five neighbors are equal
    real = pairwise.self_stats(repeated, NUM_NEIGHBORS)
    assert not real.squared_radii.any()
    jitter = np.nextafter(samples, np.float32(np.inf))  # another rounding of the same features
    for fake, inside in ((samples, 1.0), (jitter, 1.0), (samples + 0.01, 0.0)):
        cross = pairwise.cross_stats(real, pairwise.self_stats(fake, NUM_NEIGHBORS))
        assert (cross.precision, cross.coverage) == (inside, inside)
        assert cross.density == pytest.approx(inside * 7 / NUM_NEIGHBORS)


def test_subsets_have_their_size_and_are_always_the_same():
    subsets = random_subsets(40, 15, 3)
    assert (subsets.shape, subsets.dtype) == ((40, NUM_SUBSETS), bool)
    assert (subsets.sum(0) == 15).all()
    assert len({column.tobytes() for column in subsets.T}) == NUM_SUBSETS
    np.testing.assert_array_equal(subsets, random_subsets(40, 15, 3))
    assert (subsets != random_subsets(40, 15, 4)).any()
    assert np.flatnonzero(random_subsets(9, 3, 0)[:, 0]).tolist() == sorted(
        np.random.RandomState(0).permutation(9)[:3].tolist()
    )
    assert random_subsets(7, 7, 0).all()


@pytest.mark.parametrize(("num_images", "scale"), [(100, 1.0), (10, 3.0), (57, 300.0)])
def test_the_inception_score_equals_a_direct_computation(num_images, scale):
    logits = (np.random.Generator(np.random.PCG64(9)).normal(size=(num_images, 6)) * scale).astype(np.float32)
    scores = []
    for split in np.array_split(softmax(logits.astype(np.float64), axis=1), 10):
        divergences = [scipy.stats.entropy(row, split.mean(0)) for row in split]
        scores.append(np.exp(np.mean(divergences)))
    assert inception_score(logits) == pytest.approx(np.mean(scores), rel=1e-6)


@pytest.mark.parametrize(
    ("logits", "score"),
    [
        (np.zeros((40, 8)), 1.0),  # no image is of a class
        (np.tile(1e4 * np.eye(4), (10, 1)), 4.0),  # each image is of one of four classes
        (np.tile(1e4 * np.eye(4)[:1], (40, 1)), 1.0),  # all images are of the same class
    ],
)
def test_the_inception_score_of_extreme_cases(logits, score):
    assert inception_score(logits) == pytest.approx(score)
