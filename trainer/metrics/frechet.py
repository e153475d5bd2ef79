"""The Frechet distance between the normal distributions fitted to two sets of features."""

import numpy as np

from trainer.metrics.validation import checked_pair


def frechet_distance(real_features: np.ndarray, fake_features: np.ndarray) -> float:
    """Squared Frechet (2-Wasserstein) distance |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½), in float64.

    The trace of (S1 S2)^½ is that of (S1^½ S2 S1^½)^½, which is symmetric: eigenvalues of symmetric matrices suffice.
    Samples should outnumber features by far: the estimate is biased upwards by about 1 / number of samples.

    Source: arXiv 1706.08500, equation 6.

    Args:
        real_features: numbers [N, F], N at least 2.
        fake_features: numbers [M, F], M at least 2.

    Returns:
        The distance, 0 for equal sets, in units of the features squared.

    Raises:
        DataError: if a set has another shape or a value that is not finite.
    """
    real, fake = checked_pair(real_features, fake_features, minimum=2)
    real_covariance, fake_covariance = _covariance(real), _covariance(fake)
    values, vectors = np.linalg.eigh(real_covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    product = root @ fake_covariance @ root
    trace_of_root = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0.0)).sum()
    between_means = np.square(real.mean(0) - fake.mean(0)).sum()
    distance = between_means + np.trace(real_covariance) + np.trace(fake_covariance) - 2.0 * trace_of_root
    return max(float(distance), 0.0)


def _covariance(features: np.ndarray) -> np.ndarray:
    return np.atleast_2d(np.cov(features, rowvar=False))
