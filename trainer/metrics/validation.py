"""Checks of the features that metrics compare."""

import numpy as np

from trainer.errors import DataError


def validate_features(features: np.ndarray, name: str, min_samples: int) -> np.ndarray:
    """Returns the features as float64 [N, F], or as float32 if that is their type, without a copy.

    Args:
        features: Numbers [N, F].
        name: Name of the features in error messages.
        min_samples: Smallest allowed N.

    Raises:
        DataError: If the shape is not [N, F], N is too small, or a value is not finite.
    """
    features = np.asarray(features)
    features = features if features.dtype == np.float32 else features.astype(np.float64, copy=False)
    if features.ndim != 2 or len(features) < min_samples:
        raise DataError(
            f"{name} has shape {list(features.shape)}, expected [N, F] with N at least {min_samples}; "
            "provide more samples."
        )
    if not np.isfinite(features).all():
        raise DataError(f"{name} has values that are not finite, expected finite numbers; check the images.")
    return features


def validate_feature_pair(real: np.ndarray, fake: np.ndarray, min_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns real and fake features as float32 or float64 [N, F] and [M, F].

    Args:
        real: Numbers [N, F].
        fake: Numbers [M, F].
        min_samples: Smallest allowed N and M.

    Raises:
        DataError: If one of the sets is not valid, or their numbers of features differ.
    """
    real = validate_features(real, "real_features", min_samples)
    fake = validate_features(fake, "fake_features", min_samples)
    if real.shape[1] != fake.shape[1]:
        raise DataError(
            f"fake_features has {fake.shape[1]} features, expected {real.shape[1]} as in real_features; "
            "use the same feature extractor for both."
        )
    return real, fake
