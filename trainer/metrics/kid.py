"""The kernel distance (KID) between two sets of features."""

from typing import NamedTuple

import numpy as np

from trainer.metrics.pairwise import CrossStats, SelfStats, cross_stats, self_stats
from trainer.metrics.validation import validate_feature_pair

NUM_SUBSETS = 100
"""Number of subsets over which the image metrics average."""
MAX_SUBSET_SIZE = 1000
"""Number of samples of a subset of a set that is large enough."""


class KernelDistance(NamedTuple):
    """A kernel distance."""

    mean: float
    """Mean over the subsets."""
    deviation: float
    """Standard deviation over the subsets; 0 for a single one."""


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
    return kid_from_stats(real, fake, cross_stats(real, fake)).mean


def kid_from_stats(real: SelfStats, fake: SelfStats, cross: CrossStats) -> KernelDistance:
    """Returns the distance of each real subset and the fake subset of the same number, as mean and deviation."""
    distances = real.kernel_means + fake.kernel_means - 2.0 * cross.kernel_means
    return KernelDistance(float(distances.mean()), float(distances.std()))


def random_subsets(num_samples: int, size: int, seed: int) -> np.ndarray:
    """Draws subsets without repeated samples, always the same ones.

    Args:
        num_samples: Number of samples N.
        size: Number of samples of each subset, at most N.
        seed: Seed of the subsets. Two sets that are compared have different seeds.

    Returns:
        bool [N, S], S = `NUM_SUBSETS`: the samples of each subset.
    """
    # Unlike those of a Generator, the numbers of a RandomState are the same in all versions of NumPy.
    random = np.random.RandomState(seed)
    subsets = np.zeros((num_samples, NUM_SUBSETS), bool)
    for index in range(NUM_SUBSETS):
        subsets[random.permutation(num_samples)[:size], index] = True
    return subsets
