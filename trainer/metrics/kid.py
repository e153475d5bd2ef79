"""The kernel distance (KID) between two sets of features, and the subsets that it compares."""

from typing import NamedTuple

import numpy as np

from trainer.metrics.pairwise import CrossStats, SelfStats

NUM_SUBSETS = 100
"""Number of subsets over which the image metrics average."""
MAX_SUBSET_SIZE = 1000
"""Number of samples of a subset of a set that is large enough."""
_ROUNDING = 1e-12
"""Deviation, as a share of the kernel's mean, up to which subsets count as equal."""


class KernelDistance(NamedTuple):
    """A kernel distance."""

    mean: float
    """Mean over the subsets."""
    deviation: float
    """Standard deviation over the subsets; 0 for a single one, and for several with the same samples."""


def kid_from_stats(real: SelfStats, fake: SelfStats, cross: CrossStats) -> KernelDistance:
    """Estimates the squared maximum mean discrepancy with the cubic kernel (x·y / F + 1)³, without bias.

    It compares each real subset with the fake subset of the same number. The expectation is 0 for equal distributions,
    so a distance can be negative.

    Source: arXiv 1801.01401, section 4.
    """
    distances = real.kernel_means + fake.kernel_means - 2.0 * cross.kernel_means
    deviation = float(distances.std())
    is_rounding = deviation <= _ROUNDING * float(np.abs(cross.kernel_means).max())
    return KernelDistance(float(distances.mean()), 0.0 if is_rounding else deviation)


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
