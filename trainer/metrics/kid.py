"""The kernel distance (KID) between two sets of features."""

import numpy as np

from trainer.metrics.pairwise import CrossStats, SelfStats, cross_stats, self_stats
from trainer.metrics.validation import validate_feature_pair


def kid(real_features: np.ndarray, fake_features: np.ndarray) -> float:
    """Estimates the squared maximum mean discrepancy with the cubic kernel (x·y / F + 1)³, without bias.

    Source: arXiv 1801.01401, section 4. Deviation: one estimate over all pairs instead of a mean over subsets.

    Args:
        real_features: Numbers [N, F], N at least 2.
        fake_features: Numbers [M, F], M at least 2.

    Returns:
        The distance. Its expectation is 0 for equal distributions, so it can be negative.

    Raises:
        DataError: If a set has another shape or a value that is not finite.
    """
    pair = validate_feature_pair(real_features, fake_features, min_samples=2)
    real, fake = (self_stats(features, k=1) for features in pair)
    return kid_from_stats(real, fake, cross_stats(real, fake))


def kid_from_stats(real: SelfStats, fake: SelfStats, cross: CrossStats) -> float:
    """Returns the same distance from statistics that are already computed."""
    return real.kernel_mean + fake.kernel_mean - 2.0 * cross.kernel_mean
