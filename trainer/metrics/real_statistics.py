"""Statistics of real images, which are computed once and stored beside the data or in a cache.

Shapes: `N` real images, `R` images of a block, `H W C` height, width and channels, `F` features.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from trainer.errors import DataError, MissingError, StorageError
from trainer.metrics import statistics_file
from trainer.metrics.comparison import FeatureStatistics, compare, feature_statistics, inception_score
from trainer.metrics.extraction import ReplicatedFunction, all_agree
from trainer.metrics.extractor import Extractor
from trainer.metrics.kid import MAX_SUBSET_SIZE, NUM_SUBSETS, random_subsets
from trainer.metrics.moments import Moments
from trainer.metrics.pairwise import NUM_NEIGHBORS, SelfStats
from trainer.metrics.suite import as_pixels
from trainer.storage import Location

_VERSION = 2
"""Version of the computation and of the file. Statistics of another version are not used."""
_REAL_VS_REAL = "real_vs_real"
"""Name in stored files of the metrics of real images against other real images."""
_REAL_VS_REAL_NAMES = (
    *("frechet", "kid", "kid_std", "precision", "recall", "density", "coverage"),
    "inception_score",
)
_REAL_SEED, _FAKE_SEED = 0, 1

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class RealImages:
    """Real images that a suite compares with."""

    fingerprint: str
    """Digest that identifies the images: the dataset, its classes, and the changes that were made to its pixels."""
    num_images: int
    """Number of images N."""
    blocks: Callable[[], Iterator[np.ndarray]]
    """Function that yields all images in order: uint8 [R, H, W, C] in [0, 255], R at most 50."""


@dataclasses.dataclass(frozen=True, eq=False)
class RealStatistics(FeatureStatistics):
    """Statistics of real images, and the metrics of real images against other real images."""

    real_vs_real: Mapping[str, float]
    """Metrics of the 2nd, 4th, 6th… image, compared with the 1st, 3rd, 5th… as the real ones. They are the scores of a
    perfect generator with half as many images, for which the Frechet distance is about twice as large."""


def real_statistics(
    extractor: Extractor,
    real: RealImages,
    folders: Sequence[Location] = (),
    strategy: tf.distribute.Strategy | None = None,
) -> RealStatistics:
    """Returns the statistics of real images: stored ones, or new ones, which are stored for the next time.

    A stored file is used only for the same images, weights and version of the computation. With several processes, all
    use stored files or all compute together.

    Args:
        extractor: Network that extracts the features.
        real: The images.
        folders: Folders to search in this order. New statistics are stored in the first one that is writable.
        strategy: Strategy whose replicas extract the features. None: the current device.

    Raises:
        DataError: If there are not `num_images` images, they have another type or shape, or the features are not
            finite.
    """
    name = _file_name(extractor, real)
    stored = _find(name, extractor, real, folders)
    if all_agree(strategy, stored is not None) and stored is not None:
        return stored
    _logger.info(f"Computing the features of {real.num_images:,} real images for the metrics of {extractor.name}.")
    statistics = _compute(extractor, real, strategy)
    _store(name, statistics, folders)
    return statistics


def real_subsets(num_images: int) -> np.ndarray:
    """Returns the subsets of real images for the kernel distance: bool [N, S]."""
    return random_subsets(num_images, min(MAX_SUBSET_SIZE, num_images), _REAL_SEED)


def fake_subsets(num_images: int, num_real: int) -> np.ndarray:
    """Returns the subsets of fake images, of the same size as those of the real ones: bool [M, S]."""
    return random_subsets(num_images, min(MAX_SUBSET_SIZE, num_real), _FAKE_SEED)


def _compute(extractor: Extractor, real: RealImages, strategy: tf.distribute.Strategy | None) -> RealStatistics:
    extract = ReplicatedFunction(extractor, strategy)
    features, logits = extract((as_pixels(block, "the real images"),) for block in real.blocks())
    if len(features) != real.num_images:
        raise DataError(
            f"received {len(features)} real images, expected {real.num_images}; the dataset changed while it was "
            "read. Start again."
        )
    statistics = feature_statistics(features, "real_features", real_subsets(len(features)))
    odd, even = features[0::2], features[1::2]
    real_vs_real = compare(
        feature_statistics(odd, "real_features", real_subsets(len(odd))),
        feature_statistics(even, "real_features", fake_subsets(len(even), len(even))),
    )
    real_vs_real["inception_score"] = inception_score(logits[1::2])
    return RealStatistics(statistics.moments, statistics.pairs, real_vs_real)


def _file_name(extractor: Extractor, real: RealImages) -> str:
    """Returns a name that differs if anything does on which the statistics depend."""
    identity = [
        *(_VERSION, NUM_NEIGHBORS, NUM_SUBSETS, MAX_SUBSET_SIZE),
        *(extractor.name, extractor.sha256, real.fingerprint, real.num_images),
    ]
    return f"{extractor.name}_{hashlib.sha256(json.dumps(identity).encode()).hexdigest()}.npz"


def _layout(extractor: Extractor, num_images: int) -> statistics_file.Layout:
    size = extractor.feature_size
    return {
        "features": (np.float32, (num_images, size)),
        "mean": (np.float64, (size,)),
        "covariance": (np.float64, (size, size)),
        "squared_radii": (np.float64, (num_images,)),
        "kernel_means": (np.float64, (NUM_SUBSETS,)),
        _REAL_VS_REAL: (np.float64, (len(_REAL_VS_REAL_NAMES),)),
    }


def _find(name: str, extractor: Extractor, real: RealImages, folders: Sequence[Location]) -> RealStatistics | None:
    """Returns the statistics in the first usable file of this name, or None."""
    for folder in folders:
        try:
            arrays = statistics_file.read_arrays(folder / name, _layout(extractor, real.num_images))
        except MissingError:
            continue
        except StorageError as error:
            _logger.warning(f"Stored statistics of real images are not used: {error}")
            continue
        pairs = SelfStats(
            arrays["features"],
            arrays["squared_radii"],
            arrays["kernel_means"],
            real_subsets(real.num_images),
            NUM_NEIGHBORS,
        )
        real_vs_real = dict(zip(_REAL_VS_REAL_NAMES, arrays[_REAL_VS_REAL].tolist(), strict=True))
        return RealStatistics(Moments(real.num_images, arrays["mean"], arrays["covariance"]), pairs, real_vs_real)
    return None


def _store(name: str, statistics: RealStatistics, folders: Sequence[Location]) -> None:
    """Writes statistics to the first folder that is writable."""
    arrays = {
        "features": statistics.features,
        "mean": statistics.moments.mean,
        "covariance": statistics.moments.covariance,
        "squared_radii": statistics.pairs.squared_radii,
        "kernel_means": statistics.pairs.kernel_means,
        _REAL_VS_REAL: np.array([statistics.real_vs_real[name] for name in _REAL_VS_REAL_NAMES]),
    }
    problem = None
    for folder in folders:
        try:
            return statistics_file.write_arrays(folder / name, arrays)
        except StorageError as error:
            problem = error
    if problem is not None:
        _logger.warning(
            f"The statistics of real images are computed again next time, because they cannot be stored: {problem}"
        )
