"""What every measure asks of its two sets of features."""

import numpy as np

from trainer.errors import DataError


def checked_features(features: np.ndarray, name: str, minimum: int) -> np.ndarray:
    """Returns the features as float64 [N, F].

    Args:
        features: numbers [N, F].
        name: what the error calls them.
        minimum: smallest N allowed.

    Raises:
        DataError: if the shape is another, N is below the minimum, or a value is not finite.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < minimum:
        raise DataError(
            f"{name} has shape {list(features.shape)}, expected [N, F] with N at least {minimum}; give more samples."
        )
    if not np.isfinite(features).all():
        raise DataError(f"{name} holds values that are not finite, expected numbers; check the images.")
    return features


def checked_pair(real: np.ndarray, fake: np.ndarray, minimum: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns both sets as float64 [N, F] and [M, F].

    Raises:
        DataError: if a set is not as `checked_features` asks, or their numbers of features differ.
    """
    real = checked_features(real, "real_features", minimum)
    fake = checked_features(fake, "fake_features", minimum)
    if real.shape[1] != fake.shape[1]:
        raise DataError(
            f"fake_features has {fake.shape[1]} features, expected {real.shape[1]} as real_features; "
            "use one extractor for both."
        )
    return real, fake
