"""The suite of metrics for handwritten digits: five measures on the features of a digits classifier.

Shapes: `N` real and `M` fake images, `H W C` height, width and channels, `F` features.
"""

import functools

import numpy as np

from trainer.errors import DataError
from trainer.metrics.frechet import frechet_distance
from trainer.metrics.kid import kid_of_stats
from trainer.metrics.modes import matched_accuracy
from trainer.metrics.pairwise import SelfStats, cross_stats, self_stats
from trainer.metrics.precision_recall import NUM_NEIGHBORS
from trainer.metrics.suite import Suite
from trainer.metrics.validation import checked_features


class DigitsMetrics(Suite):
    """Compares fake digits with real ones: Frechet and kernel distance, precision and recall, density and coverage."""

    def __init__(self, real_images: np.ndarray, num_samples: int = 5000) -> None:
        """Takes the real images.

        Args:
            real_images: uint8 [N, H, W, C] in [0, 255]; the first `num_samples` are used, or all if there are fewer.
            num_samples: number of fake images that `evaluate` takes, at least 6.

        Raises:
            DataError: if there are fewer than 12 real images or `num_samples` is too small.
        """
        if num_samples <= NUM_NEIGHBORS:
            raise DataError(
                f"num_samples={num_samples} is too few, expected at least {NUM_NEIGHBORS + 1}; ask for more."
            )
        # A copy: the others, which may be as many as fit into memory, are not kept for the sake of these.
        super().__init__("digits", np.array(real_images[:num_samples]), num_samples)
        minimum = 2 * (NUM_NEIGHBORS + 1)
        if len(self._real_images) < minimum:
            raise DataError(f"there are {len(self._real_images)} real images, expected at least {minimum}; give more.")

    def evaluate(
        self, fake_images: np.ndarray, fake_labels: np.ndarray | None = None, *, labels_are_codes: bool = False
    ) -> dict[str, float]:
        """Measures fake images against the real ones.

        Args:
            fake_images: uint8 [M, H, W, C] in [0, 255], M = `num_samples`.
            fake_labels: integers [M], the digit in [0, 10) that each image was asked to show, or `None`.
            labels_are_codes: whether the labels are codes that the model gave a meaning to by itself.

        Returns:
            `frechet_…`, `kid_…` (best: 0), `precision_…`, `recall_…`, `density_…`, `coverage_…` (best: 1), each
            ending in `protocol`; with labels also `conditional_accuracy` in [0, 1], the share that the classifier
            reads as asked, or for codes `code_accuracy`, the share under the best one-to-one matching of codes and
            digits.

        Raises:
            DataError: if there are not `num_samples` images, or not one label for each.
        """
        self._check_fakes(fake_images, fake_labels)
        features, logits = self.classifier.extract(self._without_padding(np.asarray(fake_images)))
        metrics = self._compare(self._real, _self_stats(features, "fake_features"))
        if fake_labels is not None:
            shown = logits.argmax(axis=1)
            if labels_are_codes:
                metrics["code_accuracy"] = matched_accuracy(fake_labels, shown, logits.shape[1])
            else:
                metrics["conditional_accuracy"] = float(np.mean(shown == np.asarray(fake_labels)))
        return metrics

    def real_vs_real(self) -> dict[str, float]:
        """Measures the real images against themselves: what a perfect generator would score, and no better.

        Protocol: the 1st, 3rd, 5th… real image play the real set and the 2nd, 4th… the fake set. Half as many
        samples a side make the Frechet distance about twice what two full sets would give.

        Returns:
            The metrics of `evaluate`, under the same names, without the accuracies.
        """
        features = self._real.features.numpy()
        return self._compare(_self_stats(features[0::2], "real_features"), _self_stats(features[1::2], "fake_features"))

    @functools.cached_property
    def _real(self) -> SelfStats:
        return _self_stats(self.classifier.extract(self._without_padding(self._real_images))[0], "real_features")

    def _compare(self, real: SelfStats, fake: SelfStats) -> dict[str, float]:
        both = cross_stats(real, fake)
        values = {
            "frechet": frechet_distance(real.features.numpy(), fake.features.numpy()),
            "kid": kid_of_stats(real, fake, both),
            "precision": both.precision,
            "recall": both.recall,
            "density": both.density,
            "coverage": both.coverage,
        }
        return {f"{name}_{self.protocol}": value for name, value in values.items()}


def _self_stats(features: np.ndarray, name: str) -> SelfStats:
    return self_stats(checked_features(features, name, NUM_NEIGHBORS + 1), NUM_NEIGHBORS)
