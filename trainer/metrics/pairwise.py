"""Statistics of all pairs of samples, from which the kernel distance and the neighborhood metrics are computed.

Features stay in the type and the place where they are. One tile of pairs is in memory at a time, in float64, so the
size of the sets does not change the memory that the pairs take. Shapes: `N` real and `M` fake samples, `F` features,
`S` subsets, `R` rows and `P` columns of a tile.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from trainer import heartbeat

NUM_NEIGHBORS = 5
"""Number of neighbors in the ball of a sample, for the metrics of images."""
_MAX_PAIRS = 2_500_000
"""Number of pairs in memory at a time: 20 MB per matrix."""
_EQUAL = 1e-12
"""Squared distance between equal samples, as a share of the sum of their squared norms, up to rounding.

Features of equal images differ by rounding errors of float32, a relative distance of up to about 1e-6.
"""


@dataclasses.dataclass(frozen=True, eq=False)
class SelfStats:
    """Statistics of one set of samples, compared with itself."""

    features: np.ndarray
    """float32 or float64 [N, F]."""
    squared_radii: np.ndarray
    """float64 [N], the squared distance of each sample to its k-th nearest other sample."""
    kernel_means: np.ndarray
    """float64 [S]: for each subset, the mean of the cubic kernel over the pairs of different samples."""
    subsets: np.ndarray
    """bool [N, S]: the samples of each subset."""
    num_neighbors: int
    """Number of neighbors k."""


@dataclasses.dataclass(frozen=True, eq=False)
class CrossStats:
    """Statistics of real samples, compared with fake ones.

    The ball of a sample includes everything up to its k-th nearest other sample of its own set. Fake samples that cover
    only some of the modes have precision 1 and low recall. Fake samples that cover all modes and more have low
    precision and recall 1.

    Sources: arXiv 1904.06991, equations 1 and 2, for precision and recall; arXiv 2002.09797, equations 3 and 4, for
    density and coverage.
    """

    kernel_means: np.ndarray
    """float64 [S]: the mean of the cubic kernel over the pairs of a subset of real and one of fake samples."""
    precision: float
    """Fraction of fake samples in real balls, in [0, 1]; best: 1."""
    recall: float
    """Fraction of real samples in fake balls, in [0, 1]; best: 1."""
    density: float
    """Mean number of real balls around a fake sample, divided by k: at least 0, about 1 for equal distributions."""
    coverage: float
    """Fraction of real balls that contain a fake sample, in [0, 1]; best: 1."""


def self_stats(features: np.ndarray, k: int, subsets: np.ndarray | None = None) -> SelfStats:
    """Compares each sample of a set with all others.

    Args:
        features: float32 or float64 [N, F], N at least k + 1.
        k: Number of neighbors, at least 1. A sample is not its own neighbor.
        subsets: bool [N, S], the samples of each subset that the kernel distance compares, at least 2. None: one subset
            of all samples.
    """
    subsets = np.ones((len(features), 1), bool) if subsets is None else subsets
    sizes, kernel_sums = subsets.sum(0), np.zeros(subsets.shape[1])
    nearest = np.full((len(features), k), np.inf)
    size = math.isqrt(_MAX_PAIRS)
    for rows in slices(len(features), size):
        for columns in slices(len(features), size, rows.start):  # each pair is in one tile
            products, squared_distances = compare_tile(features[rows], features[columns])
            kernel = _cubic_kernel(products, features.shape[1])
            if rows == columns:  # the diagonal holds the pairs of a sample and itself
                kernel = tf.linalg.set_diag(kernel, tf.zeros(len(kernel), tf.float64))
                infinity = tf.fill([len(kernel)], tf.constant(np.inf, tf.float64))
                squared_distances = tf.linalg.set_diag(squared_distances, infinity)
                kernel_sums += _sum_of_subsets(kernel, subsets[rows], subsets[columns])
            else:
                kernel_sums += 2.0 * _sum_of_subsets(kernel, subsets[rows], subsets[columns])
                _update_nearest(nearest[columns], tf.transpose(squared_distances))
            _update_nearest(nearest[rows], squared_distances)
    return SelfStats(features, nearest[:, -1].copy(), kernel_sums / (sizes * (sizes - 1)), subsets, k)


def cross_stats(real: SelfStats, fake: SelfStats) -> CrossStats:
    """Compares each real sample with each fake one."""
    num_real, num_fake = len(real.features), len(fake.features)
    kernel_sums, num_inside, num_recalled, num_covered = np.zeros(real.subsets.shape[1]), 0, 0, 0
    fake_is_inside = np.zeros(num_fake, bool)
    size = math.isqrt(_MAX_PAIRS)
    for rows in slices(num_real, size):
        is_recalled, is_covered = np.zeros((2, rows.stop - rows.start), bool)
        for columns in slices(num_fake, size):
            products, squared_distances = compare_tile(real.features[rows], fake.features[columns])
            kernel = _cubic_kernel(products, real.features.shape[1])
            kernel_sums += _sum_of_subsets(kernel, real.subsets[rows], fake.subsets[columns])
            in_real_ball = squared_distances <= real.squared_radii[rows, None]
            in_fake_ball = squared_distances <= fake.squared_radii[columns]
            num_inside += int(tf.math.count_nonzero(in_real_ball))
            fake_is_inside[columns] |= tf.reduce_any(in_real_ball, axis=0).numpy()
            is_covered |= tf.reduce_any(in_real_ball, axis=1).numpy()
            is_recalled |= tf.reduce_any(in_fake_ball, axis=1).numpy()
        num_covered += int(np.count_nonzero(is_covered))
        num_recalled += int(np.count_nonzero(is_recalled))
    return CrossStats(
        kernel_means=kernel_sums / (real.subsets.sum(0) * fake.subsets.sum(0)),
        precision=int(np.count_nonzero(fake_is_inside)) / num_fake,
        recall=num_recalled / num_real,
        density=num_inside / (real.num_neighbors * num_fake),
        coverage=num_covered / num_real,
    )


def slices(length: int, size: int, start: int = 0) -> Iterator[slice]:
    """Yields the rows, or the columns, of tiles from `start` to `length`: `size` of them, and the rest."""
    for begin in range(start, length, size):
        yield slice(begin, min(begin + size, length))


def compare_tile(rows: np.ndarray, columns: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the inner products and the squared distances of samples [R, F] and [P, F], both float64 [R, P].

    The distance of samples that are equal up to rounding is 0.
    """
    heartbeat.beat()
    first, second = (tf.cast(tf.constant(samples), tf.float64) for samples in (rows, columns))
    products = tf.matmul(first, second, transpose_b=True)
    norms = tf.reduce_sum(tf.square(first), axis=1, keepdims=True) + tf.reduce_sum(tf.square(second), axis=1)
    squared_distances = norms - 2.0 * products
    return products, tf.where(squared_distances > _EQUAL * norms, squared_distances, 0.0)


def _update_nearest(nearest: np.ndarray, squared_distances: tf.Tensor) -> None:
    """Replaces the k smallest squared distances [R, k] of samples, in order, if some of [R, P] are smaller."""
    k = nearest.shape[1]
    closest = -tf.math.top_k(-squared_distances, min(k, squared_distances.shape[1])).values
    nearest[:] = np.sort(np.concatenate([nearest, closest], axis=1), axis=1)[:, :k]


def _cubic_kernel(products: tf.Tensor, size: int) -> tf.Tensor:
    base = products / size + 1.0
    return base * base * base


def _sum_of_subsets(kernel: tf.Tensor, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns the sum of the kernel [R, P] over the pairs of each subset, bool [R, S] and [P, S]: float64 [S]."""
    row_sums = tf.matmul(kernel, tf.cast(tf.constant(columns), tf.float64))
    return tf.reduce_sum(tf.where(tf.constant(rows), row_sums, 0.0), axis=0).numpy()
