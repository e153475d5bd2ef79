"""The training images that are nearest to samples in feature space, and the share of samples that are copies.

A tile of pairs is in memory at a time. Shapes: `M` samples, `N` training images, `F` features, `k` neighbors.
"""

import dataclasses

import numpy as np

from trainer.errors import DataError
from trainer.metrics.pairwise import compare_tile, slices
from trainer.metrics.validation import validate_feature_pair, validate_features

_TILE_ROWS, _TILE_COLUMNS = 512, 4096
_QUANTILE = 0.01
_HIGH_SHARE = 0.05
_MIN_CLOSE = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest training images of samples, the nearest one first."""

    indices: np.ndarray
    """int64 [M, k]. Index of each neighbor among the training images."""
    distances: np.ndarray
    """float64 [M, k]. Distance in feature space; 0 for features that are equal up to rounding errors of float32."""


@dataclasses.dataclass(frozen=True)
class Copies:
    """Number of samples that are closer to a training image than training images are to each other."""

    num_samples: int
    num_close: int
    """Number of samples whose nearest training image is closer than `threshold`, or equal to them."""
    threshold: float
    """Distance below which 1% of the training images have another, different training image."""

    @property
    def share(self) -> float:
        """Share of close samples in [0, 1]. Real images that are not in the training set have about 0.01."""
        return self.num_close / self.num_samples

    @property
    def is_high(self) -> bool:
        """True if the share is at least 0.05 and does not rest on one or two samples."""
        return self.num_close >= _MIN_CLOSE and self.share >= _HIGH_SHARE


def nearest(samples: np.ndarray, training: np.ndarray, k: int) -> Neighbors:
    """Returns the k nearest training images of each sample.

    Args:
        samples: Features [M, F] of samples.
        training: Features [N, F] of training images.
        k: Number of neighbors, from 1 to N.

    Raises:
        DataError: If a set has another shape, too few rows, or a value that is not finite.
    """
    training, samples = validate_feature_pair(training, samples, min_samples=1)
    if not 1 <= k <= len(training):
        raise DataError(f"k={k} neighbors of {len(training)} training images were requested; choose 1 to that number.")
    return _nearest(samples, training, k, skips_equal=False)


def find_copies(nearest_distances: np.ndarray, training: np.ndarray) -> Copies:
    """Counts the samples that are closer to a training image than almost all training images are to each other.

    The threshold is the 1st percentile of the distances of training images to their nearest different training image.
    Equal training images do not lower it. A sample that is equal to a training image is always close.

    Args:
        nearest_distances: Distance of each sample to its nearest training image [M], M at least 1.
        training: Features [N, F] of the training images, N at least 2.

    Raises:
        DataError: If `training` has another shape, too few rows, or a value that is not finite.
    """
    training = validate_features(training, "training_features", min_samples=2)
    own_distances = _nearest(training, training, 1, skips_equal=True).distances[:, 0]
    different = own_distances[np.isfinite(own_distances)]
    threshold = float(np.quantile(different, _QUANTILE)) if different.size else 0.0
    num_close = np.count_nonzero((nearest_distances < threshold) | (nearest_distances == 0.0))
    return Copies(len(nearest_distances), int(num_close), threshold)


def _nearest(rows: np.ndarray, columns: np.ndarray, k: int, *, skips_equal: bool) -> Neighbors:
    """Returns the k nearest columns of each row; equal ones at distance 0, or at infinity if they are skipped."""
    indices, squared_distances = [], []
    for row_slice in slices(len(rows), _TILE_ROWS):
        num_rows = row_slice.stop - row_slice.start
        best = np.full((num_rows, k), np.inf)
        best_index = np.zeros((num_rows, k), np.int64)
        for column_slice in slices(len(columns), _TILE_COLUMNS):
            tile = compare_tile(rows[row_slice], columns[column_slice])[1].numpy()
            if skips_equal:
                tile = np.where(tile > 0.0, tile, np.inf)
            columns_of_tile = _smallest(tile, k)
            candidates = np.concatenate([best, np.take_along_axis(tile, columns_of_tile, 1)], 1)
            candidate_indices = np.concatenate([best_index, columns_of_tile + column_slice.start], 1)
            order = np.lexsort((candidate_indices, candidates), axis=1)[:, :k]
            best = np.take_along_axis(candidates, order, 1)
            best_index = np.take_along_axis(candidate_indices, order, 1)
        indices.append(best_index)
        squared_distances.append(best)
    return Neighbors(np.concatenate(indices), np.sqrt(np.concatenate(squared_distances)))


def _smallest(tile: np.ndarray, k: int) -> np.ndarray:
    """Returns the columns of the k smallest values of each row, in any order: int64 [R, min(k, C)]."""
    if k >= tile.shape[1]:
        return np.broadcast_to(np.arange(tile.shape[1]), tile.shape)
    return tile.argmin(1)[:, np.newaxis] if k == 1 else np.argpartition(tile, k - 1, axis=1)[:, :k]
