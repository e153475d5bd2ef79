"""Metrics on class labels: how evenly fake images cover the modes, and how well codes match classes.

Shapes: `N` images, `K` classes.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment


def mode_divergence(fake_counts: np.ndarray, real_counts: np.ndarray) -> float:
    """Computes the Kullback-Leibler divergence KL(fake || real) between two distributions over the same modes.

    The real counts are smoothed by adding 1/K to each mode, one image in total. This hardly changes modes with real
    images, and gives modes without any a large instead of an infinite penalty. The fake counts are not smoothed. The
    expected value of a perfect generator is not 0: for F fake and R real images it is about (K - 1) / 2 · (1/F + 1/R).

    Args:
        fake_counts: Integers [K], number of fake images of each mode, with a sum of at least 1.
        real_counts: Integers [K], number of real images of each mode.

    Returns:
        The divergence in nats, at least 0.
    """
    fake = np.asarray(fake_counts, np.float64)
    real = np.asarray(real_counts, np.float64) + 1.0 / len(real_counts)
    fake, real = fake / fake.sum(), real / real.sum()
    nonzero = fake > 0
    return max(float(np.sum(fake[nonzero] * np.log(fake[nonzero] / real[nonzero]))), 0.0)


def matched_accuracy(codes: np.ndarray, classes: np.ndarray, num_classes: int) -> float:
    """Computes the accuracy of codes as class predictions under the best one-to-one matching of codes and classes.

    The codes of a model such as InfoGAN have no fixed order, so each code is assigned to at most one class and each
    class to at most one code such that the accuracy is largest.

    Args:
        codes: Integers [N], N at least 1, with any number of different values. If there are more than K values, some
            stay unmatched.
        classes: Integers [N] in [0, K), the classes of the images.
        num_classes: Number of classes K.

    Returns:
        The fraction of images whose class matches their code, in [0, 1]; slightly above 1/K for random codes.
    """
    values, code_indices = np.unique(codes, return_inverse=True)
    counts = np.bincount(code_indices * num_classes + classes, minlength=len(values) * num_classes)
    counts = counts.reshape(len(values), num_classes)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum()) / len(classes)
