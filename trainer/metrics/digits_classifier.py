"""The feature extractor of the digits metrics: a small convolutional classifier of handwritten digits.

Shapes: `N` images, `B` images of a batch, `H W C` height, width and channels, `F` = 64 features, `K` = 10 classes.
"""

import pathlib

import numpy as np
import tensorflow as tf

from trainer.errors import DataError
from trainer.metrics import shipped_weights
from trainer.metrics.extraction import ReplicatedFunction, blocks_of
from trainer.metrics.extractor import on_white

WEIGHTS_PATH = pathlib.Path(__file__).parent / "digits_classifier.npz"
IMAGE_SIZE = 28
FEATURE_SIZE = 64
NUM_CONVOLUTIONS = 3
_STRIDES = (2, 2, 1)


class DigitsClassifier:
    """Three convolutions, a layer of 64 features and 10 logits, trained by `scripts/train_digits_classifier.py`.

    The features are the values of the 64-unit layer before its ReLU. They are closer to the normal distribution that
    the Frechet distance assumes than rectified values. Each feature is scaled to mean 0 and variance 1 on the training
    digits, so that all features have the same weight.
    """

    def __init__(self, path: str | pathlib.Path = WEIGHTS_PATH) -> None:
        """Loads the weights.

        Args:
            path: Path of the weights, an `.npz` file next to a `.json` file with its SHA-256.

        Raises:
            DataError: If a file is missing or the weights do not have the SHA-256 in the `.json` file.
        """
        self.sha256, weights = shipped_weights.load(path, "digits")
        """SHA-256 of the weights. Metrics are comparable only if their classifiers have the same hash."""
        # Arrays and no tensors, which would belong to the graph in which a suite first uses its classifier.
        self._weights = weights
        self._extract = ReplicatedFunction(self.__call__)

    def __call__(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Classifies images. It can be called inside a `tf.function`.

        Args:
            images: uint8 or float [B, H, W, C] in [0, 255]. Images with alpha (C is 4) are placed on white, channels
                are averaged, and sizes other than 28x28 are resized with antialiasing.

        Returns:
            features: float32 [B, F], each of mean 0 and variance 1 on real digits.
            logits: float32 [B, K].
        """
        x = tf.reduce_mean(on_white(tf.cast(images, tf.float32)), axis=-1, keepdims=True)
        if x.shape[1:3] != (IMAGE_SIZE, IMAGE_SIZE):
            x = tf.image.resize(x, (IMAGE_SIZE, IMAGE_SIZE), antialias=True)
        x = x / 127.5 - 1.0
        for index, stride in enumerate(_STRIDES):
            x = tf.nn.conv2d(x, self._weights[f"conv{index}_kernel"], stride, "SAME")
            x = tf.nn.relu(x + self._weights[f"conv{index}_bias"])
        x = tf.reshape(x, (-1, self._weights["features_kernel"].shape[0]))
        raw = x @ self._weights["features_kernel"] + self._weights["features_bias"]
        logits = tf.nn.relu(raw) @ self._weights["logits_kernel"] + self._weights["logits_bias"]
        return (raw - self._weights["features_mean"]) / self._weights["features_deviation"], logits

    def extract(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Classifies any number of images, in blocks of fixed size.

        Args:
            images: uint8 or float [N, H, W, C] in [0, 255].

        Returns:
            features: float32 [N, F].
            logits: float32 [N, K].

        Raises:
            DataError: If there are no images or they have another shape.
        """
        images = np.asarray(images)
        if images.ndim != 4 or not images.size:
            raise DataError(
                f"images have shape {list(images.shape)}, expected [N, H, W, C] with N at least 1; add the axes."
            )
        features, logits = self._extract(blocks_of(images))
        return features, logits
