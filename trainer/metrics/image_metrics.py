"""The metric suites for any images, on the features of a network: `inception` and `photos`.

Shapes: `N` real and `M` fake images, `H W C` height, width and channels, `F` features, `K` classes.
"""

import functools
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from trainer.errors import DataError
from trainer.metrics import protocol_of
from trainer.metrics.comparison import MIN_IMAGES, compare, feature_statistics, inception_score
from trainer.metrics.extractor import Extractor
from trainer.metrics.real_statistics import RealImages, RealStatistics, fake_subsets, real_statistics
from trainer.metrics.suite import ImageSampler, Suite, check_num_fakes
from trainer.storage import Location

_MIN_REAL_IMAGES = 2 * MIN_IMAGES
"""Minimum number of real images, of which one half is compared with the other."""

_logger = logging.getLogger(__name__)


class ImageMetrics(Suite):
    """Compares fake images with real ones: Frechet and kernel distance, precision and recall, density and coverage.

    The name of a metric ends in the name of the extractor and the number of fake images: `fid_inception_50k`. Values
    are comparable if the names, the real images and `weights_sha256` are equal.

    The kernel distance is the mean over 100 random subsets of 1,000 real and 1,000 fake images, or as many as there
    are real images. `kid_std` is the standard deviation over these subsets. If all subsets contain all images, it is 0.
    """

    num_samples: int

    def __init__(
        self,
        extractor: Extractor,
        real: RealImages,
        num_samples: int,
        *,
        folders: Sequence[Location] = (),
        strategy: tf.distribute.Strategy | None = None,
        inception_score: bool = False,
    ) -> None:
        """Initializes the suite. Features of real images are computed, or read, on first use.

        Args:
            extractor: Network that extracts the features.
            real: Real images, at least 12 and at most `num_samples`.
            num_samples: Number M of fake images, at least 12.
            folders: Folders for statistics of real images; see `real_statistics`.
            strategy: Strategy whose replicas extract the features. None: the current device.
            inception_score: Whether to report the Inception score.

        Raises:
            DataError: If there are too few real images or samples, or more real images than samples.
        """
        if num_samples < _MIN_REAL_IMAGES:
            raise DataError(
                f"num_samples={num_samples} is too few, expected at least {_MIN_REAL_IMAGES}; increase it, or use "
                "metrics=none."
            )
        if real.num_images < _MIN_REAL_IMAGES:
            raise DataError(
                f"received {real.num_images} real images, expected at least {_MIN_REAL_IMAGES}; provide more, or use "
                "metrics=none."
            )
        if real.num_images > num_samples:
            raise DataError(
                f"received {real.num_images} real images, expected at most num_samples={num_samples}; use the first "
                f"{num_samples} of them."
            )
        self.extractor = extractor
        self.num_samples, self.num_real_images = num_samples, real.num_images
        self.protocol = protocol_of(extractor.name, num_samples)
        """Suffix of the names of all metrics, such as `inception_50k`."""
        self._real_images, self._folders, self._strategy = real, folders, strategy
        self._has_inception_score = inception_score
        if real.num_images <= extractor.feature_size:
            _logger.warning(
                f"{real.num_images:,} real images are few for the {extractor.feature_size:,} features of "
                f"{extractor.name}: {extractor.frechet_name}_{self.protocol} has a large bias; compare "
                f"kid_{self.protocol} instead, which has none."
            )

    def measure(self, model: ImageSampler) -> dict[str, float]:
        """Generates the number of images that the suite needs and evaluates them.

        The model extracts the features on all of its replicas. If it is trained on several machines, all of them must
        make the same call.

        Args:
            model: Model that generates the images.

        Returns:
            The metrics of `evaluate_features`.
        """
        outputs, _ = model.sample_features(self.num_samples, self.extract_block)
        return self.evaluate_features(*outputs)

    def evaluate_features(self, features: np.ndarray, logits: np.ndarray | None = None) -> dict[str, float]:
        """Compares the features of fake images with those of the real ones.

        Args:
            features: float32 [M, F], M = `num_samples`.
            logits: float32 [M, K]; only needed for the Inception score.

        Returns:
            `fid_…` or `frechet_…`, `kid_…` (best: 0), `kid_std_…`, `precision_…`, `recall_…`, `density_…`, `coverage_…`
            (best: 1), each ending in `protocol`. If it was requested, also `inception_score_…`, at least 1 and best at
            its maximum.

        Raises:
            DataError: If there are not `num_samples` images, or the features are not finite.
        """
        check_num_fakes(len(features), self.num_samples, self.protocol)
        real = self.real_statistics
        subsets = fake_subsets(len(features), len(real.features))
        values = compare(real, feature_statistics(features, "fake_features", subsets))
        if self._has_inception_score:
            if logits is None:
                raise DataError("inception_score=True needs the logits of the fake images; provide them.")
            values["inception_score"] = inception_score(logits)
        return self._named(values)

    def real_vs_real(self) -> dict[str, float]:
        """Compares real images with other real images, which gives the scores of a perfect generator.

        Protocol: the 1st, 3rd, 5th… real images are the real set and the 2nd, 4th… are the fake set. Because each set
        has half as many samples, the Frechet distance is about twice that of two full sets.

        Returns:
            The metrics of `evaluate_features` under the same names.
        """
        values = dict(self.real_statistics.real_vs_real)
        if not self._has_inception_score:
            del values["inception_score"]
        return self._named(values)

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the extractor's weights."""
        return self.extractor.sha256

    @functools.cached_property
    def real_statistics(self) -> RealStatistics:
        """Statistics of the real images."""
        return real_statistics(self.extractor, self._real_images, self._folders, self._strategy)

    def extract_block(self, images: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns the features of images [B, H, W, C], and their logits if they are needed."""
        features, logits = self.extractor(images)
        return (features, logits) if self._has_inception_score else (features,)

    def _named(self, values: Mapping[str, float]) -> dict[str, float]:
        names = {"frechet": self.extractor.frechet_name}
        return {f"{names.get(name, name)}_{self.protocol}": value for name, value in values.items()}
