"""The base class of metric suites that compare fake images with real ones.

Shapes: `N` real and `M` fake images, `H W C` height, width and channels.
"""

import abc
import functools
from typing import Any, Protocol

import numpy as np

from trainer.errors import DataError
from trainer.metrics import protocol_of
from trainer.metrics.digits_classifier import IMAGE_SIZE, DigitsClassifier


class ImageSampler(Protocol):
    """A model that generates images, such as `trainer.models.GAN`."""

    def sample(self, num_images: int) -> tuple[np.ndarray, Any]:
        """Returns uint8 images [num_images, H, W, C] and their requested labels int32 [num_images], or `None`."""
        ...


class Suite(abc.ABC):
    """Compares fake images with real ones. Statistics of the real images are computed once, on first use.

    The name of a metric ends in the number of fake samples: `frechet_digits_5k`. Values are comparable if the names,
    the real images and the classifiers (`classifier.sha256`) are equal.

    Padding does not affect the metrics: if all real images are 0 outside their central 28x28 pixels, all real and fake
    images of that size are cropped to these pixels. The classifier resizes images of other sizes to 28x28.
    """

    def __init__(self, name: str, real_images: np.ndarray, num_samples: int) -> None:
        """Initializes the suite.

        Args:
            name: Name of the suite, which becomes part of the names of metrics.
            real_images: uint8 [N, H, W, C] in [0, 255].
            num_samples: Number M of fake images that `evaluate` takes.
        """
        self.num_samples = num_samples
        self._real_images = np.asarray(real_images)
        self.protocol = protocol_of(name, num_samples)
        """Suffix of the names of all metrics, such as `digits_5k`."""

    def measure(self, model: ImageSampler) -> dict[str, float]:
        """Generates the number of images that the suite needs and evaluates them.

        Args:
            model: Model that generates the images. If it has a true attribute `labels_are_codes`, the labels of its
                samples are codes whose meaning the model learned by itself, not requested classes.

        Returns:
            The metrics of `evaluate`.
        """
        images, labels = model.sample(self.num_samples)
        return self.evaluate(images, labels, labels_are_codes=bool(getattr(model, "labels_are_codes", False)))

    @abc.abstractmethod
    def evaluate(
        self, fake_images: np.ndarray, fake_labels: np.ndarray | None = None, *, labels_are_codes: bool = False
    ) -> dict[str, float]:
        """Compares fake images uint8 [M, H, W, C] with the real ones, and their classes with the labels [M]."""

    @abc.abstractmethod
    def real_vs_real(self) -> dict[str, float]:
        """Compares real images with other real images, which gives the scores of a perfect generator."""

    @functools.cached_property
    def classifier(self) -> DigitsClassifier:
        """The classifier that extracts the features."""
        return DigitsClassifier()

    def _check_fakes(self, fake_images: np.ndarray, fake_labels: np.ndarray | None) -> None:
        if len(fake_images) != self.num_samples:
            raise DataError(
                f"received {len(fake_images)} fake images, but {self.protocol} takes {self.num_samples}; "
                "generate that many or change num_samples."
            )
        if fake_labels is not None and np.shape(fake_labels) != (self.num_samples,):
            raise DataError(
                f"fake_labels has shape {list(np.shape(fake_labels))}, expected [{self.num_samples}]; "
                "give one label per image."
            )

    def _without_padding(self, images: np.ndarray) -> np.ndarray:
        """Crops the padding of the real images from images [N, H, W, C] of the same size."""
        if images.ndim != 4 or images.shape[1:3] != self._real_images.shape[1:3]:
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
