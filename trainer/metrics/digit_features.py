"""The base class of the metric suites on the features of the digits classifier.

Shapes: `N` real and `M` fake images, `B` images of a block, `H W C` height, width and channels.
"""

import abc
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.metrics import protocol_of
from trainer.metrics.digits_classifier import IMAGE_SIZE, DigitsClassifier
from trainer.metrics.suite import ImageSampler, Suite, as_pixels


class DigitFeatureSuite(Suite):
    """Compares fake images with real ones. Statistics of the real images are computed once, on first use.

    The name of a metric ends in the number of fake samples: `frechet_digits_5k`. Values are comparable if the names,
    the real images and `weights_sha256` are equal.

    Padding does not affect the metrics: if all real images are 0 outside their central 28x28 pixels, all real and fake
    images of that size are cropped to these pixels. The classifier resizes images of other sizes to 28x28.
    """

    num_samples: int

    def __init__(self, name: str, real_images: np.ndarray, num_samples: int) -> None:
        """Initializes the suite.

        Args:
            name: Name of the suite, which becomes part of the names of metrics.
            real_images: uint8 [N, H, W, C] in [0, 255].
            num_samples: Number M of fake images that `evaluate_features` takes.

        Raises:
            DataError: If the real images have another type or shape.
        """
        self._real_images = as_pixels(real_images, "the real images")
        self.num_samples, self.num_real_images = num_samples, len(self._real_images)
        self.protocol = protocol_of(name, num_samples)
        """Suffix of the names of all metrics, such as `digits_5k`."""

    def measure(self, model: ImageSampler) -> dict[str, float]:
        """Generates the number of images that the suite needs and evaluates them.

        The model extracts the features on all of its replicas. If it is trained on several machines, all of them must
        make the same call.

        Args:
            model: Model that generates the images. If it has a true attribute `labels_are_codes`, the labels of its
                samples are codes whose meaning the model learned by itself, not requested classes. If it has
                `conditions`, they are numbers of vectors, which are not evaluated.

        Returns:
            The metrics of `evaluate_features`.
        """
        (features, logits), labels = model.sample_features(self.num_samples, self.extract_block)
        if getattr(model, "conditions", None) is not None:
            labels = None
        labels_are_codes = bool(getattr(model, "labels_are_codes", False))
        return self.evaluate_features(features, logits, labels, labels_are_codes=labels_are_codes)

    @abc.abstractmethod
    def evaluate_features(
        self,
        features: np.ndarray,
        logits: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        labels_are_codes: bool = False,
    ) -> dict[str, float]:
        """Compares the outputs of `extract_block` for fake images [M, ...] with the real ones."""

    @abc.abstractmethod
    def extract_block(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns features and logits [B, ...] of images [B, H, W, C], which may be padded."""

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the classifier's weights."""
        return self.classifier.sha256

    @functools.cached_property
    def classifier(self) -> DigitsClassifier:
        """The classifier that extracts the features."""
        return DigitsClassifier()

    def _without_padding(self, images: Any) -> Any:
        """Crops the padding of the real images from an array or tensor [N, H, W, C] of images of the same size."""
        if images.shape[1:3] != self._real_images.shape[1:3]:
            return images
        rows, columns = self._content_slices
        return images[:, rows, columns]

    @functools.cached_property
    def _content_slices(self) -> tuple[slice, slice]:
        """Rows and columns of the real images that are not padding."""
        real = self._real_images
        height, width = real.shape[1:3]
        top, left = (height - IMAGE_SIZE) // 2, (width - IMAGE_SIZE) // 2
        bottom, right = top + IMAGE_SIZE, left + IMAGE_SIZE
        if min(top, left) < 0 or height % 2 or width % 2:
            return slice(None), slice(None)
        if any(edge.any() for edge in (real[:, :top], real[:, bottom:], real[:, :, :left], real[:, :, right:])):
            return slice(None), slice(None)
        return slice(top, bottom), slice(left, right)
