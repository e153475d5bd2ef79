"""Images of a dataset in place of a model, so that metrics measure them as they measure samples."""

from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from trainer.data.loading import TrainingData
from trainer.metrics.extraction import BLOCK_SIZE, ReplicatedFunction


class StoredImages:
    """The first images of a dataset, with the methods of a model that metric suites use.

    Args:
        data: Dataset with the images.
    """

    def __init__(self, data: TrainingData):
        self._data = data

    def sample(self, num_images: int) -> tuple[np.ndarray, None]:
        """Returns the first images, uint8 [num_images, H, W, C], and no labels."""
        return self._data.real_images(num_images)[-1], None  # of pairs, the images without their inputs

    def sample_features(
        self, num_images: int, function: Callable[[tf.Tensor], Iterable[tf.Tensor]]
    ) -> tuple[tuple[np.ndarray, ...], None]:
        """Returns the outputs [num_images, ...] of a function of images uint8 [B, H, W, C], and no labels."""
        blocks = self._data.image_blocks(num_images, BLOCK_SIZE)
        return ReplicatedFunction(function)((block,) for block in blocks), None
