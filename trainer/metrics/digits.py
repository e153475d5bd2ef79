"""The suite of metrics for handwritten digits: five measures on the features of a digits classifier.

Shapes: `N` real and `M` fake images, `H W C` height, width and channels, `F` features.
"""

import functools

import numpy as np

from trainer.errors import DataError
from trainer.metrics.features import DigitsClassifier
from trainer.metrics.frechet import frechet_distance
from trainer.metrics.kernel import kernel_distance_of
from trainer.metrics.manifold import NUM_NEIGHBOURS
from trainer.metrics.pairwise import Within, between, within
from trainer.metrics.samples import checked_features


class DigitsMetrics:
    """Compares fake digits with real ones; what concerns the real ones alone is computed once, when first needed.

    A metric's name ends in the number of fake samples that it takes: `frechet_digits_5k`. Numbers are comparable
    between equal names, equal real images and equal classifiers (`classifier.sha256`).
    """

    def __init__(self, real_images: np.ndarray, num_samples: int = 5000) -> None:
        """Takes the real images.

        Args:
            real_images: uint8 [N, H, W, C] in [0, 255]; the first `num_samples` are used, or all if there are fewer.
            num_samples: number of fake images that `evaluate` takes, at least 6.

        Raises:
            DataError: if there are fewer than 12 real images or `num_samples` is too small.
        """
        if num_samples <= NUM_NEIGHBOURS:
            raise DataError(
                f"num_samples={num_samples} is too few, expected at least {NUM_NEIGHBOURS + 1}; ask for more."
            )
        self.num_samples = num_samples
        self._real_images = np.asarray(real_images)[:num_samples]
        minimum = 2 * (NUM_NEIGHBOURS + 1)
        if len(self._real_images) < minimum:
            raise DataError(f"there are {len(self._real_images)} real images, expected at least {minimum}; give more.")
        thousands, rest = divmod(num_samples, 1000)
        self.protocol = f"digits_{num_samples if rest else f'{thousands}k'}"
        """The end of every metric's name, such as `digits_5k`."""

    def evaluate(self, fake_images: np.ndarray, fake_labels: np.ndarray | None = None) -> dict[str, float]:
        """Measures fake images against the real ones.

        Args:
            fake_images: uint8 [M, H, W, C] in [0, 255], M = `num_samples`; other sizes than 28x28 are resized.
            fake_labels: integers [M] in [0, 10), the digit that each image was asked to show, or `None`.

        Returns:
            `frechet_…`, `kid_…` (best: 0), `precision_…`, `recall_…`, `density_…`, `coverage_…` (best: 1), each
            ending in `protocol`; with labels also `conditional_accuracy` in [0, 1], the share that the classifier
            reads as asked.

        Raises:
            DataError: if there are not `num_samples` images, or not one label for each.
        """
        if len(fake_images) != self.num_samples:
            raise DataError(
                f"there are {len(fake_images)} fake images, {self.protocol} takes {self.num_samples}; "
                "generate that many or change num_samples."
            )
        if fake_labels is not None and np.shape(fake_labels) != (self.num_samples,):
            raise DataError(
                f"fake_labels has shape {list(np.shape(fake_labels))}, expected [{self.num_samples}]; "
                "give one label an image."
            )
        features, logits = self.classifier.extract(fake_images)
        metrics = self._compare(self._real, _within(features, "fake_features"))
        if fake_labels is not None:
            metrics["conditional_accuracy"] = float(np.mean(logits.argmax(axis=1) == np.asarray(fake_labels)))
        return metrics

    def floor(self) -> dict[str, float]:
        """Measures the real images against themselves: what a perfect generator would score, and no better.

        Protocol: the 1st, 3rd, 5th… real image play the real set and the 2nd, 4th… the fake set. Half as many
        samples a side make the Frechet distance about twice what two full sets would give.

        Returns:
            The metrics of `evaluate`, under the same names, without `conditional_accuracy`.
        """
        features = self._real.features.numpy()
        return self._compare(_within(features[0::2], "real_features"), _within(features[1::2], "fake_features"))

    @functools.cached_property
    def classifier(self) -> DigitsClassifier:
        """The classifier that gives the features."""
        return DigitsClassifier()

    @functools.cached_property
    def _real(self) -> Within:
        return _within(self.classifier.extract(self._real_images)[0], "real_features")

    def _compare(self, real: Within, fake: Within) -> dict[str, float]:
        both = between(real, fake)
        values = {
            "frechet": frechet_distance(real.features.numpy(), fake.features.numpy()),
            "kid": kernel_distance_of(real, fake, both),
            "precision": both.precision,
            "recall": both.recall,
            "density": both.density,
            "coverage": both.coverage,
        }
        return {f"{name}_{self.protocol}": value for name, value in values.items()}


def _within(features: np.ndarray, name: str) -> Within:
    return within(checked_features(features, name, NUM_NEIGHBOURS + 1), NUM_NEIGHBOURS)
