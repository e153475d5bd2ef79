"""The Frechet distance between the normal distributions fitted to two sets of features."""

import numpy as np

from trainer.metrics.validation import validate_feature_pair


def frechet_distance(real_features: np.ndarray, fake_features: np.ndarray) -> float:
    """Computes the squared Frechet (2-Wasserstein) distance |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½) in float64.

    The trace of (S1 S2)^½ equals that of the symmetric matrix (S1^½ S2 S1^½)^½, so eigenvalues of symmetric matrices
    suffice. Use many more samples than features: the estimate has an upward bias of about 1 / number of samples.

    Source: arXiv 1706.08500, equation 6.

    Args:
        real_features: Numbers [N, F], N at least 2.
        fake_features: Numbers [M, F], M at least 2.

    Returns:
        The distance in squared units of the features; 0 for equal sets.

    Raises:
        DataError: If a set has another shape or a value that is not finite.
    """
    real, fake = validate_feature_pair(real_features, fake_features, min_samples=2)
    real_covariance, fake_covariance = _covariance(real), _covariance(fake)
    values, vectors = np.linalg.eigh(real_covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    product = root @ fake_covariance @ root
    root_trace = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0.0)).sum()
    mean_distance = np.square(real.mean(0) - fake.mean(0)).sum()
    distance = mean_distance + np.trace(real_covariance) + np.trace(fake_covariance) - 2.0 * root_trace
    return max(float(distance), 0.0)


def _covariance(features: np.ndarray) -> np.ndarray:
    return np.atleast_2d(np.cov(features, rowvar=False))
