"""The kernel distance (KID) between two sets of features."""

import numpy as np

from trainer.metrics.pairwise import CrossStats, SelfStats, cross_stats, self_stats
from trainer.metrics.validation import checked_pair


def kid(real_features: np.ndarray, fake_features: np.ndarray) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy with the cubic kernel (x·y / F + 1)³.

    Source: arXiv 1801.01401, section 4. Deviation: one estimate over all pairs, not a mean over subsets.

    Args:
        real_features: numbers [N, F], N at least 2.
        fake_features: numbers [M, F], M at least 2.

    Returns:
        The distance; its expectation is 0 for equal distributions, so that it can fall below 0.

    Raises:
        DataError: if a set has another shape or a value that is not finite.
    """
    real, fake = (self_stats(features, k=1) for features in checked_pair(real_features, fake_features, minimum=2))
    return kid_of_stats(real, fake, cross_stats(real, fake))


def kid_of_stats(real: SelfStats, fake: SelfStats, both: CrossStats) -> float:
    """Returns the same from comparisons already made."""
    return real.kernel_mean + fake.kernel_mean - 2.0 * both.kernel_mean
