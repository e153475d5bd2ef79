"""What the suites of metrics share: how a model is measured, what a metric is called, which pixels are read.

Shapes: `N` real and `M` fake images, `H W C` height, width and channels.
"""

import abc
import functools
from typing import Any, Protocol

import numpy as np

from trainer.errors import DataError
from trainer.metrics.digits_classifier import IMAGE_SIZE, DigitsClassifier


class ImageSampler(Protocol):
    """A model that images can be asked of, such as `trainer.models.GAN`."""

    def sample(self, num_images: int) -> tuple[np.ndarray, Any]:
        """Returns uint8 images [num_images, H, W, C] and the labels int32 [num_images] they show, or `None`."""
        ...


class Suite(abc.ABC):
    """Compares fake images with real ones; what concerns the real ones alone is computed once, when first needed.

    A metric's name ends in the number of fake samples that it takes: `frechet_digits_5k`. Numbers are comparable
    between equal names, equal real images and equal classifiers (`classifier.sha256`).

    Padding does not change what is measured: where every real image is 0 outside its central 28x28 pixels, these are
    cut out of all images of that size, real and fake. Other sizes than 28x28 are resized by the classifier.
    """

    def __init__(self, name: str, real_images: np.ndarray, num_samples: int) -> None:
        """Takes the real images.

        Args:
            name: the suite's, in the metrics' names.
            real_images: uint8 [N, H, W, C] in [0, 255].
            num_samples: number M of fake images that `evaluate` takes.
        """
        self.num_samples = num_samples
        self._real_images = np.asarray(real_images)
        thousands, rest = divmod(num_samples, 1000)
        self.protocol = f"{name}_{num_samples if rest else f'{thousands}k'}"
        """The end of every metric's name, such as `digits_5k`."""

    def measure(self, model: ImageSampler) -> dict[str, float]:
        """Samples what the suite needs and evaluates it.

        Args:
            model: what makes the images. Where its attribute `labels_are_codes` is true, the labels of its samples are
                codes that it gave a meaning to by itself, not classes that were asked for.

        Returns:
            The metrics of `evaluate`.
        """
        images, labels = model.sample(self.num_samples)
        return self.evaluate(images, labels, labels_are_codes=bool(getattr(model, "labels_are_codes", False)))

    @abc.abstractmethod
    def evaluate(
        self, fake_images: np.ndarray, fake_labels: np.ndarray | None = None, *, labels_are_codes: bool = False
    ) -> dict[str, float]:
        """Measures fake images uint8 [M, H, W, C] against the real ones, and whether they show their labels [M]."""

    @abc.abstractmethod
    def real_vs_real(self) -> dict[str, float]:
        """Measures real images against other real ones: what a perfect generator would score, and no better."""

    @functools.cached_property
    def classifier(self) -> DigitsClassifier:
        """The classifier that gives the features."""
        return DigitsClassifier()

    def _check_fakes(self, fake_images: np.ndarray, fake_labels: np.ndarray | None) -> None:
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

    def _without_padding(self, images: np.ndarray) -> np.ndarray:
        """Cuts from images [N, H, W, C] what the real images show to be padding."""
        if images.ndim != 4 or images.shape[1:3] != self._real_images.shape[1:3]:
            return images
        rows, columns = self._inside
        return images[:, rows, columns]

    @functools.cached_property
    def _inside(self) -> tuple[slice, slice]:
        """The rows and columns that are not padding."""
        real = self._real_images
        height, width = real.shape[1:3]
        top, left = (height - IMAGE_SIZE) // 2, (width - IMAGE_SIZE) // 2
        bottom, right = top + IMAGE_SIZE, left + IMAGE_SIZE
        if min(top, left) < 0 or height % 2 or width % 2:
            return slice(None), slice(None)
        if any(edge.any() for edge in (real[:, :top], real[:, bottom:], real[:, :, :left], real[:, :, right:])):
            return slice(None), slice(None)
        return slice(top, bottom), slice(left, right)
