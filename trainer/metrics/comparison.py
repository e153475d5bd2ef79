"""The metrics that compare the features of fake images with those of real ones.

Shapes: `N` real and `M` fake images, `F` features, `S` subsets for the kernel distance, `K` classes.
"""

import dataclasses

import numpy as np

from trainer.metrics.frechet import frechet_from_moments
from trainer.metrics.kid import kid_from_stats
from trainer.metrics.moments import Moments, moments, row_blocks
from trainer.metrics.pairwise import NUM_NEIGHBORS, SelfStats, cross_stats, self_stats
from trainer.metrics.validation import validate_features

MIN_IMAGES = NUM_NEIGHBORS + 1
"""Minimum number of images of a set: each has `NUM_NEIGHBORS` neighbors."""
_NUM_SPLITS = 10


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Statistics of the features of one set of images."""

    moments: Moments
    """Mean and covariance."""
    pairs: SelfStats
    """Features, radii of their neighborhoods, and kernel means of subsets."""

    @property
    def features(self) -> np.ndarray:
        """float32 or float64 [N, F]."""
        return self.pairs.features


def feature_statistics(features: np.ndarray, name: str, subsets: np.ndarray | None = None) -> FeatureStatistics:
    """Computes the statistics of a set.

    Args:
        features: Numbers [N, F], N at least `MIN_IMAGES`.
        name: Name of the features in error messages.
        subsets: bool [N, S], the subsets for the kernel distance. None: one subset of all samples.

    Raises:
        DataError: If the features have another shape or a value that is not finite.
    """
    features = validate_features(features, name, MIN_IMAGES)
    return FeatureStatistics(moments(row_blocks(features)), self_stats(features, NUM_NEIGHBORS, subsets))


def compare(real: FeatureStatistics, fake: FeatureStatistics) -> dict[str, float]:
    """Compares two sets of features of the same extractor.

    Returns:
        `frechet`, `kid` (best: 0), `kid_std`, the standard deviation of `kid` over the subsets, `precision`, `recall`,
        `density` and `coverage` (best: 1).
    """
    cross = cross_stats(real.pairs, fake.pairs)
    kernel_distance = kid_from_stats(real.pairs, fake.pairs, cross)
    return {
        "frechet": frechet_from_moments(real.moments, fake.moments),
        "kid": kernel_distance.mean,
        "kid_std": kernel_distance.deviation,
        "precision": cross.precision,
        "recall": cross.recall,
        "density": cross.density,
        "coverage": cross.coverage,
    }


def inception_score(logits: np.ndarray) -> float:
    """Computes the exponential of the mean divergence KL(p(class | image) || p(class)), averaged over 10 splits.

    Probabilities are the softmax over all K logits; those of the 2015 Inception network are 1,008, of which 1,000 are
    classes. The splits are consecutive images, at least one each.

    Source: arXiv 1606.03498, section 4.

    Args:
        logits: Numbers [M, K], M at least 1.

    Returns:
        The score in [1, K].
    """
    scores = []
    for split in np.array_split(logits, min(_NUM_SPLITS, len(logits))):
        shifted = split.astype(np.float64) - split.max(axis=1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        probabilities = np.exp(log_probabilities)
        log_marginals = np.log(np.maximum(probabilities.mean(axis=0), np.finfo(np.float64).tiny))
        scores.append(np.exp((probabilities * (log_probabilities - log_marginals)).sum(axis=1).mean()))
    return float(np.mean(scores))
