"""How far real and fake samples lie in each other's neighborhoods: precision, recall, density, coverage.

The ball of a sample reaches to its k-th nearest other sample of its own set, border included.
"""

import numpy as np

from trainer.metrics.pairwise import CrossStats, cross_stats, self_stats
from trainer.metrics.validation import checked_pair

NUM_NEIGHBORS = 5


def precision_recall(
    real_features: np.ndarray, fake_features: np.ndarray, k: int = NUM_NEIGHBORS
) -> tuple[float, float]:
    """Precision: the share of fake samples inside a real ball. Recall: the share of real samples inside a fake ball.

    Fake samples that show some modes only have precision 1 and low recall; fake samples that show more than the real
    ones have low precision and recall 1.

    Source: arXiv 1904.06991, equations 1 and 2.

    Args:
        real_features: numbers [N, F], N at least k + 1.
        fake_features: numbers [M, F], M at least k + 1.
        k: the neighbor that sets a ball's radius, at least 1.

    Returns:
        precision and recall, both in [0, 1], 1 is best.

    Raises:
        DataError: if a set has another shape or a value that is not finite.
    """
    both = _compare(real_features, fake_features, k)
    return both.precision, both.recall


def density_coverage(
    real_features: np.ndarray, fake_features: np.ndarray, k: int = NUM_NEIGHBORS
) -> tuple[float, float]:
    """Density: the mean number of real balls around a fake sample, by k. Coverage: the share of real balls with a fake.

    Source: arXiv 2002.09797, equations 3 and 4.

    Args:
        real_features: numbers [N, F], N at least k + 1.
        fake_features: numbers [M, F], M at least k + 1.
        k: the neighbor that sets a ball's radius, at least 1.

    Returns:
        density, at least 0 and about 1 for equal distributions, and coverage in [0, 1], 1 is best.

    Raises:
        DataError: if a set has another shape or a value that is not finite.
    """
    both = _compare(real_features, fake_features, k)
    return both.density, both.coverage


def _compare(real_features: np.ndarray, fake_features: np.ndarray, k: int) -> CrossStats:
    real, fake = checked_pair(real_features, fake_features, minimum=k + 1)
    return cross_stats(self_stats(real, k), self_stats(fake, k))
