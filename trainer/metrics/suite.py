"""The base class of metric suites.

Shapes: `M` fake images, `B` images of a block, `H W C` height, width and channels.
"""

import abc
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from trainer.errors import DataError


class Suite(abc.ABC):
    """Measures a model, and real images for comparison.

    Attributes:
        num_samples: Number M of fake images; None for a suite that generates none.
        num_real_images: Number of real images that they are compared with; None for a suite that generates none.
    """

    num_samples: int | None = None
    num_real_images: int | None = None

    @property
    def weights_sha256(self) -> str | None:
        """SHA-256 of the weights of the network whose features are compared, 64 hexadecimal digits; None without one.

        Metrics are comparable only if the hashes are equal.
        """
        return None

    @abc.abstractmethod
    def measure(self, model: Any) -> dict[str, float]:
        """Returns the metrics of a model. If several machines train it, all of them must make the same call."""

    @abc.abstractmethod
    def real_vs_real(self) -> dict[str, float]:
        """Compares real images with other real images, which gives the scores of a perfect generator."""


class ImageSampler(Protocol):
    """A model that generates images, such as `trainer.models.GAN`."""

    def sample_features(
        self, num_images: int, function: Callable[[tf.Tensor], tuple[tf.Tensor, ...]]
    ) -> tuple[tuple[np.ndarray, ...], Any]:
        """Applies a function of uint8 images [B, H, W, C] to samples.

        Returns:
            Its outputs for all samples, and the requested labels int32 [num_images], or `None`.
        """
        ...


def as_pixels(images: Any, name: str) -> np.ndarray:
    """Returns 8-bit images as an array uint8 [N, H, W, C]. Floats are rejected, because their range is not known.

    Raises:
        DataError: If the images have another type or shape.
    """
    pixels = np.asarray(images)
    if pixels.dtype != np.uint8 or pixels.ndim != 4:
        raise DataError(
            f"{name} are {pixels.dtype} of shape {list(pixels.shape)}; pass 8-bit images, uint8 [N, H, W, C] in "
            "[0, 255]."
        )
    return pixels


def check_num_fakes(num_fakes: int, num_samples: int, protocol: str) -> None:
    """Raises a DataError unless there are as many fake images as the protocol of a suite requires."""
    if num_fakes != num_samples:
        raise DataError(
            f"received {num_fakes} fake images, but {protocol} takes {num_samples}; generate that many or change "
            "num_samples."
        )
