"""Mean and covariance of features, computed in float64 from blocks of any size.

Shapes: `N` samples, `F` features, `R` rows of a block.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator

import numpy as np

from trainer import heartbeat

_BLOCK_ROWS = 2048


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Number of samples, mean and covariance of a set of features."""

    num_samples: int
    """Number of samples N, at least 2."""
    mean: np.ndarray
    """float64 [F]."""
    covariance: np.ndarray
    """float64 [F, F], with the divisor N - 1. It is singular unless N is greater than F."""

    @functools.cached_property
    def factor(self) -> np.ndarray:
        """Matrix A with A Aᵀ equal to the covariance: float64 [F, min(F, N - 1)].

        The covariance of N samples has at most N - 1 eigenvalues other than 0. The others are left out, because their
        rounding errors would grow when the roots are taken.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        rank = min(len(values), self.num_samples - 1)
        return vectors[:, -rank:] * np.sqrt(np.maximum(values[-rank:], 0.0))


def moments(blocks: Iterable[np.ndarray]) -> Moments:
    """Returns the moments of all rows of the blocks, of which one is held at a time.

    The sums of squares are those of deviations from the mean so far (the update of Chan, Golub and LeVeque), so a mean
    that is much greater than the deviations does not cost digits.

    Args:
        blocks: Numbers [R, F], at least two rows together. Features in one array: see `row_blocks`.
    """
    num_samples, mean, scatter = 0, np.zeros(1), np.zeros((1, 1))
    for rows in blocks:
        heartbeat.beat()
        block = np.asarray(rows, np.float64)
        if not len(block):
            continue
        block_mean = block.mean(0)
        deviations = block - block_mean
        difference = block_mean - mean
        total = num_samples + len(block)
        mean = mean + difference * (len(block) / total)
        weight = num_samples * len(block) / total
        scatter = scatter + deviations.T @ deviations + weight * np.outer(difference, difference)
        num_samples = total
    return Moments(num_samples, mean, scatter / (num_samples - 1))


def row_blocks(features: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the rows of features [N, F] in blocks."""
    for start in range(0, len(features), _BLOCK_ROWS):
        yield features[start : start + _BLOCK_ROWS]
