"""The Frechet distance between the normal distributions fitted to two sets of features."""

import numpy as np

from trainer import heartbeat
from trainer.metrics.moments import Moments, moments, row_blocks
from trainer.metrics.validation import validate_feature_pair


def frechet_distance(real_features: np.ndarray, fake_features: np.ndarray) -> float:
    """Computes the squared Frechet (2-Wasserstein) distance |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½) in float64.

    Use many more samples than features: the estimate has an upward bias of about 1 / number of samples.

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
    return frechet_from_moments(moments(row_blocks(real)), moments(row_blocks(fake)))


def frechet_from_moments(real: Moments, fake: Moments) -> float:
    """Returns the same distance from moments that are already computed.

    With S1 = A Aᵀ and S2 = B Bᵀ, the trace of (S1 S2)^½ is the sum of the singular values of Aᵀ B. They are accurate
    to the last digits for singular covariances as well, where a root of S1 S2 is not.
    """
    factors = []
    for distribution in (real, fake):
        factors.append(distribution.factor)
        heartbeat.beat()  # a decomposition of 2,048 features takes seconds
    root_trace = np.linalg.svd(factors[0].T @ factors[1], compute_uv=False).sum()
    mean_distance = np.square(real.mean - fake.mean).sum()
    distance = mean_distance + np.trace(real.covariance) + np.trace(fake.covariance) - 2.0 * root_trace
    return max(float(distance), 0.0)
