"""Statistics of all pairs of samples, from which the kernel distance and the neighborhood metrics are computed.

One block of rows is in memory at a time. Everything is float64, so the distance between equal samples is 0 to 15
digits. Shapes: `N` real and `M` fake samples, `F` features, `R` rows of a block.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

_MAX_PAIRS = 2_500_000
"""Number of pairs in memory at a time: 20 MB per matrix."""


@dataclasses.dataclass(frozen=True, eq=False)
class SelfStats:
    """Statistics of one set of samples, compared with itself."""

    features: tf.Tensor
    """float64 [N, F]."""
    squared_radii: tf.Tensor
    """float64 [N], the squared distance of each sample to its k-th nearest other sample."""
    kernel_mean: float
    """Mean of the cubic kernel over the N (N - 1) pairs of different samples."""
    num_neighbors: int
    """Number of neighbors k."""


@dataclasses.dataclass(frozen=True)
class CrossStats:
    """Statistics of real samples, compared with fake ones."""

    kernel_mean: float
    """Mean of the cubic kernel over the N·M pairs."""
    precision: float
    recall: float
    density: float
    coverage: float


def self_stats(features: np.ndarray, k: int) -> SelfStats:
    """Compares each sample of a set with all others.

    Args:
        features: float64 [N, F], N at least k + 1.
        k: Number of neighbors, at least 1. A sample is not its own neighbor.
    """
    samples = tf.constant(features, tf.float64)
    num_samples, size = features.shape
    kernel_sum, radii = 0.0, []
    for start, products, squared_distances in _blocks(samples, samples):
        diagonal = tf.stack([tf.range(products.shape[0]), tf.range(start, start + products.shape[0])], axis=1)
        kernel = _cubic_kernel(products, size)
        kernel_sum += float(tf.reduce_sum(kernel) - tf.reduce_sum(tf.gather_nd(kernel, diagonal)))
        infinity = tf.fill([products.shape[0]], tf.constant(np.inf, tf.float64))
        others = tf.tensor_scatter_nd_update(squared_distances, diagonal, infinity)
        radii.append(-tf.math.top_k(-others, k).values[:, -1])
    return SelfStats(samples, tf.concat(radii, 0), kernel_sum / (num_samples * (num_samples - 1)), k)


def cross_stats(real: SelfStats, fake: SelfStats) -> CrossStats:
    """Compares each real sample with each fake one.

    A ball is the neighborhood of a sample in its own set. Precision and density count fake samples in *real* balls,
    recall counts real samples in *fake* balls, and coverage counts *real* balls that contain a fake sample.
    """
    num_real, size = real.features.shape
    num_fake = fake.features.shape[0]
    kernel_sum, num_inside, num_recalled, num_covered = 0.0, 0, 0, 0
    fake_is_inside = tf.zeros([num_fake], tf.bool)
    for start, products, squared_distances in _blocks(real.features, fake.features):
        kernel_sum += float(tf.reduce_sum(_cubic_kernel(products, size)))
        radii = real.squared_radii[start : start + products.shape[0], None]
        in_real_ball = squared_distances <= radii
        in_fake_ball = squared_distances <= fake.squared_radii
        fake_is_inside |= tf.reduce_any(in_real_ball, axis=0)
        num_inside += int(tf.math.count_nonzero(in_real_ball))
        num_covered += int(tf.math.count_nonzero(tf.reduce_any(in_real_ball, axis=1)))
        num_recalled += int(tf.math.count_nonzero(tf.reduce_any(in_fake_ball, axis=1)))
    return CrossStats(
        kernel_mean=kernel_sum / (num_real * num_fake),
        precision=int(tf.math.count_nonzero(fake_is_inside)) / num_fake,
        recall=num_recalled / num_real,
        density=num_inside / (real.num_neighbors * num_fake),
        coverage=num_covered / num_real,
    )


def _blocks(rows: tf.Tensor, columns: tf.Tensor) -> Iterator[tuple[int, tf.Tensor, tf.Tensor]]:
    """Yields the first row of each block, its inner products and its squared distances, both float64 [R, M]."""
    column_norms = tf.reduce_sum(tf.square(columns), axis=1)
    num_rows = max(1, _MAX_PAIRS // columns.shape[0])
    for start in range(0, rows.shape[0], num_rows):
        block = rows[start : start + num_rows]
        products = tf.matmul(block, columns, transpose_b=True)
        row_norms = tf.reduce_sum(tf.square(block), axis=1, keepdims=True)
        yield start, products, tf.maximum(row_norms + column_norms - 2.0 * products, 0.0)


def _cubic_kernel(products: tf.Tensor, size: int) -> tf.Tensor:
    base = products / size + 1.0
    return base * base * base
