"""Measures on classes alone: how the classes of fake images spread, and how codes match them. No image is needed.

Shapes: `N` images, `K` classes.
"""

import numpy as np

from trainer.errors import DataError

_MAX_MATCHED_CLASSES = 16


def mode_divergence(fake_counts: np.ndarray, real_counts: np.ndarray) -> float:
    """Kullback-Leibler divergence KL(fake || real) between two distributions over the same modes.

    Smoothing: to the real counts, one image is added that is spread evenly over all modes, 1/K each. It does not matter
    to modes that the real images show, and makes a mode that none of them shows dear instead of infinitely so. The
    fake counts are not smoothed. A perfect generator's value is not 0: with F fake images and R real ones it is about
    (K - 1) / 2 · (1/F + 1/R).

    Args:
        fake_counts: integers [K], how many fake images show each mode; their sum at least 1.
        real_counts: integers [K], the same of the real ones.

    Returns:
        The divergence in nats, at least 0.
    """
    fake = np.asarray(fake_counts, np.float64)
    real = np.asarray(real_counts, np.float64) + 1.0 / len(real_counts)
    fake, real = fake / fake.sum(), real / real.sum()
    shown = fake > 0
    return max(float(np.sum(fake[shown] * np.log(fake[shown] / real[shown]))), 0.0)


def matched_accuracy(codes: np.ndarray, classes: np.ndarray, num_classes: int) -> float:
    """The share of images whose class is the one that their code stands for, under the best one-to-one matching.

    Codes that a network found by itself have no fixed order, so each is taken to stand for the class that makes the
    share largest, no class twice. The matching is exact: code by code, the best total for every subset of classes
    that the codes so far may stand for, 2^K · K sums a code.

    Args:
        codes: integers [N], N at least 1, of any number of different values; codes beyond K stay unmatched.
        classes: integers [N] in [0, K), what the images show.
        num_classes: K, at most 16.

    Returns:
        The share in [0, 1]. Codes without any meaning get about 1/K, and a little more by chance.

    Raises:
        DataError: if K is larger.
    """
    if num_classes > _MAX_MATCHED_CLASSES:
        raise DataError(
            f"num_classes={num_classes} is too many to match exactly, expected at most {_MAX_MATCHED_CLASSES}; "
            "measure without codes."
        )
    values, code_indices = np.unique(codes, return_inverse=True)
    counts = np.bincount(code_indices * num_classes + classes, minlength=len(values) * num_classes)
    subsets = np.arange(2**num_classes)
    best = np.zeros_like(subsets)  # best[s]: most images right when the codes so far stand for classes of s only
    for of_code in counts.reshape(len(values), num_classes):
        updated = best.copy()
        for label, count in enumerate(of_code):
            holding = subsets[(subsets >> label) & 1 == 1]
            updated[holding] = np.maximum(updated[holding], best[holding ^ (1 << label)] + count)
        best = updated
    return float(best[-1]) / len(classes)
