"""Precision, recall, density and coverage: metrics on the overlap of the neighborhoods of real and fake samples.

The ball of a sample includes everything up to its k-th nearest other sample of its own set.
"""

import numpy as np

from trainer.metrics.pairwise import CrossStats, cross_stats, self_stats
from trainer.metrics.validation import validate_feature_pair

NUM_NEIGHBORS = 5


def precision_recall(
    real_features: np.ndarray, fake_features: np.ndarray, k: int = NUM_NEIGHBORS
) -> tuple[float, float]:
    """Computes precision, the fraction of fake samples in real balls, and recall, that of real samples in fake balls.

    Fake samples that cover only some of the modes have precision 1 and low recall. Fake samples that cover all modes
    and more have low precision and recall 1.

    Source: arXiv 1904.06991, equations 1 and 2.

    Args:
        real_features: Numbers [N, F], N at least k + 1.
        fake_features: Numbers [M, F], M at least k + 1.
        k: Number of neighbors in a ball, at least 1.

    Returns:
        Precision and recall, both in [0, 1]; best: 1.

    Raises:
        DataError: If a set has another shape or a value that is not finite.
    """
    stats = _compare(real_features, fake_features, k)
    return stats.precision, stats.recall


def density_coverage(
    real_features: np.ndarray, fake_features: np.ndarray, k: int = NUM_NEIGHBORS
) -> tuple[float, float]:
    """Computes density, the mean number of real balls around a fake sample divided by k, and coverage.

    Coverage is the fraction of real balls that contain a fake sample.

    Source: arXiv 2002.09797, equations 3 and 4.

    Args:
        real_features: Numbers [N, F], N at least k + 1.
        fake_features: Numbers [M, F], M at least k + 1.
        k: Number of neighbors in a ball, at least 1.

    Returns:
        Density, at least 0 and about 1 for equal distributions, and coverage in [0, 1]; best: 1.

    Raises:
        DataError: If a set has another shape or a value that is not finite.
    """
    stats = _compare(real_features, fake_features, k)
    return stats.density, stats.coverage


def _compare(real_features: np.ndarray, fake_features: np.ndarray, k: int) -> CrossStats:
    real, fake = validate_feature_pair(real_features, fake_features, min_samples=k + 1)
    return cross_stats(self_stats(real, k), self_stats(fake, k))
