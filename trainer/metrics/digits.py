"""The metric suite `digits` for handwritten digits, on the features of a digits classifier.

Shapes: `N` real and `M` fake images, `H W C` height, width and channels, `F` features.
"""

import functools

import numpy as np
import tensorflow as tf

from trainer.errors import DataError
from trainer.metrics.comparison import MIN_IMAGES, FeatureStatistics, compare, feature_statistics
from trainer.metrics.digit_features import DigitFeatureSuite
from trainer.metrics.extraction import ReplicatedFunction, blocks_of
from trainer.metrics.modes import matched_accuracy


class DigitsMetrics(DigitFeatureSuite):
    """Compares fake digits with real ones: Frechet and kernel distance, precision and recall, density and coverage."""

    def __init__(self, real_images: np.ndarray, num_samples: int = 5000) -> None:
        """Initializes the suite.

        Args:
            real_images: uint8 [N, H, W, C] in [0, 255]. The first `num_samples` are used, or all if there are fewer.
            num_samples: Number M of fake images that `evaluate_features` takes, at least 6.

        Raises:
            DataError: If there are fewer than 12 real images, they have another type or shape, or `num_samples` is too
                small.
        """
        if num_samples < MIN_IMAGES:
            raise DataError(f"num_samples={num_samples} is too few, expected at least {MIN_IMAGES}; increase it.")
        # A copy, so that the array with all real images can be freed.
        super().__init__("digits", np.array(real_images[:num_samples]), num_samples)
        minimum = 2 * MIN_IMAGES
        if len(self._real_images) < minimum:
            raise DataError(
                f"received {len(self._real_images)} real images, expected at least {minimum}; provide more, or use "
                "metrics=none."
            )

    def extract_block(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self.classifier(self._without_padding(images))

    def evaluate_features(
        self,
        features: np.ndarray,
        logits: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        labels_are_codes: bool = False,
    ) -> dict[str, float]:
        """Compares fake images with the real ones.

        Args:
            features: float32 [M, F], features of the fake images, M = `num_samples`.
            logits: float32 [M, 10], their logits.
            labels: Integers [M] in [0, 10), the digit that was requested for each image, or `None`.
            labels_are_codes: True if the labels are codes whose meaning the model learned by itself.

        Returns:
            `frechet_…`, `kid_…` (best: 0), `precision_…`, `recall_…`, `density_…`, `coverage_…` (best: 1), each
            ending in `protocol`. With labels also `conditional_accuracy` in [0, 1], the fraction of images that the
            classifier recognizes as the requested digit, or for codes `code_accuracy`, the accuracy under the best
            one-to-one matching of codes and digits.
        """
        metrics = self._compare(self._real, feature_statistics(features, "fake_features"))
        if labels is not None:
            predictions = logits.argmax(axis=1)
            if labels_are_codes:
                metrics["code_accuracy"] = matched_accuracy(labels, predictions, logits.shape[1])
            else:
                metrics["conditional_accuracy"] = float(np.mean(predictions == np.asarray(labels)))
        return metrics

    def real_vs_real(self) -> dict[str, float]:
        """Compares real images with other real images, which gives the scores of a perfect generator.

        Protocol: the 1st, 3rd, 5th… real images are the real set and the 2nd, 4th… are the fake set. Because each set
        has half as many samples, the Frechet distance is about twice that of two full sets.

        Returns:
            The metrics of `evaluate_features` under the same names, without the accuracies.
        """
        features = self._real.features
        return self._compare(
            feature_statistics(features[0::2], "real_features"), feature_statistics(features[1::2], "fake_features")
        )

    @functools.cached_property
    def _real(self) -> FeatureStatistics:
        features, _ = ReplicatedFunction(self.extract_block)(blocks_of(self._real_images))
        return feature_statistics(features, "real_features")

    def _compare(self, real: FeatureStatistics, fake: FeatureStatistics) -> dict[str, float]:
        values = compare(real, fake)
        del values["kid_std"]  # there is one subset of all images
        return {f"{name}_{self.protocol}": value for name, value in values.items()}
