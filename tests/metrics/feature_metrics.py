"""The metrics of two sets of features without subsets, from the statistics of their pairs."""

import numpy as np

from trainer.metrics.kid import kid_from_stats
from trainer.metrics.pairwise import NUM_NEIGHBORS, cross_stats, self_stats


def stats_of(real, fake, k):
    """Returns the statistics of real and of fake features, and of both together."""
    real, fake = (self_stats(np.asarray(features, np.float64), k) for features in (real, fake))
    return real, fake, cross_stats(real, fake)


def kid(real, fake):
    """Returns the kernel distance of all samples."""
    return kid_from_stats(*stats_of(real, fake, k=1)).mean


def precision_recall(real, fake, k=NUM_NEIGHBORS):
    """Returns precision and recall."""
    *_, cross = stats_of(real, fake, k)
    return cross.precision, cross.recall


def density_coverage(real, fake, k=NUM_NEIGHBORS):
    """Returns density and coverage."""
    *_, cross = stats_of(real, fake, k)
    return cross.density, cross.coverage
