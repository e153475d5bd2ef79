"""The feature extractor of the suite `photos`: a small residual network that ships with the package.

Shapes: `B` images of a batch, `H W C` height, width and channels, `F` = 336 features, `K` = 10 classes.
"""

import pathlib

import tensorflow as tf

from trainer.metrics import shipped_weights
from trainer.metrics.extractor import as_rgb

WEIGHTS_PATH = pathlib.Path(__file__).parent / "photos_network.npz"
IMAGE_SIZE = 64
STEM = 16
"""Number of channels of the first convolution."""
STAGES = (40, 96, 160)
"""Number of channels of each stage. The first convolution of a stage halves the height and width."""
CONVOLUTIONS = (
    "stem",
    *(f"stage{stage}_{part}" for stage in range(len(STAGES)) for part in ("down", "first", "second")),
)


class PhotosNetwork:
    """Ten convolutions in three residual stages, trained on small photographs by `scripts/train_photos_network.py`.

    Protocol: Every image is resized to 64x64 pixels, bilinearly and with antialiasing. Smaller images are enlarged, and
    images that are not square are distorted. Gray is repeated to three channels, and images with alpha are placed on
    white. The features are the means over the positions of the outputs of the three stages, and the mean absolute
    differences of neighboring positions of the first output. The first stage responds to sharpness, noise, compression
    and color, the last one to content. Each feature is scaled to mean 0 and variance 1 on the training images, so that
    all features have the same weight.
    """

    name = "photos"
    frechet_name = "frechet"
    feature_size = STAGES[0] + sum(STAGES)

    def __init__(self, path: str | pathlib.Path = WEIGHTS_PATH) -> None:
        """Loads the weights.

        Args:
            path: Path of the weights, an `.npz` file next to a `.json` file with its SHA-256.

        Raises:
            DataError: If a file is missing or the weights do not have the SHA-256 in the `.json` file.
        """
        self.sha256, weights = shipped_weights.load(path, self.name)
        """SHA-256 of the weights. Metrics are comparable only if their networks have the same hash."""
        self._weights = {name: tf.constant(values, tf.float32) for name, values in weights.items()}

    def __call__(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Extracts features. It can be called inside a `tf.function`.

        Args:
            images: uint8 or float [B, H, W, C] in [0, 255]; C is 1 (gray), 3, or 4 (with alpha, placed on white).

        Returns:
            features: float32 [B, F], each of mean 0 and variance 1 on the training images.
            logits: float32 [B, K].

        Raises:
            DataError: If the images have another shape.
        """
        x = as_rgb(images)
        if x.shape[1:3] != (IMAGE_SIZE, IMAGE_SIZE):
            x = tf.image.resize(x, (IMAGE_SIZE, IMAGE_SIZE), antialias=True)
        outputs = self._convolve_stages(x / 127.5 - 1.0)
        means = [tf.reduce_mean(values, axis=(1, 2)) for values in outputs]
        logits = means[-1] @ self._weights["logits_kernel"] + self._weights["logits_bias"]
        raw = tf.concat([_mean_differences(outputs[0]), *means], axis=-1)
        return (raw - self._weights["features_mean"]) / self._weights["features_deviation"], logits

    def _convolve_stages(self, x: tf.Tensor) -> list[tf.Tensor]:
        """Returns the output of each stage, float32 [B, h, w, channels], for images float32 [B, H, W, 3] in [-1, 1]."""
        x = tf.nn.relu(self._convolve(x, "stem"))
        outputs = []
        for stage in range(len(STAGES)):
            x = tf.nn.relu(self._convolve(x, f"stage{stage}_down", stride=2))
            y = tf.nn.relu(self._convolve(x, f"stage{stage}_first"))
            x = tf.nn.relu(x + self._convolve(y, f"stage{stage}_second"))
            outputs.append(x)
        return outputs

    def _convolve(self, x: tf.Tensor, name: str, stride: int = 1) -> tf.Tensor:
        return tf.nn.conv2d(x, self._weights[f"{name}_kernel"], stride, "SAME") + self._weights[f"{name}_bias"]


def _mean_differences(x: tf.Tensor) -> tf.Tensor:
    """Returns mean absolute differences of vertical and of horizontal neighbors, added: [B, h, w, n] to [B, n]."""
    vertical = tf.reduce_mean(tf.abs(x[:, 1:] - x[:, :-1]), axis=(1, 2))
    return vertical + tf.reduce_mean(tf.abs(x[:, :, 1:] - x[:, :, :-1]), axis=(1, 2))
