"""The metric suite `stacked` for stacked digits: how many of the 1,000 modes a generator covers, and how evenly.

Shapes: `N` real and `M` fake images, `H W C` height, width and channels, `D` distinct digits, `F` features per digit,
`K` = 1,000 modes.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from trainer import heartbeat
from trainer.errors import DataError
from trainer.metrics.digit_features import DigitFeatureSuite
from trainer.metrics.frechet import frechet_distance
from trainer.metrics.modes import mode_divergence

NUM_MODES = 1000
_PLACE_VALUES = np.array([100, 10, 1])
_BLOCK_SIZE = 1000


class StackedMetrics(DigitFeatureSuite):
    """Classifies the digit in each channel of an image; the three digits are its mode, 000 to 999.

    Protocol, as in PacGAN: a generator trained on 128,000 stacked digits generates 26,000 samples. The metrics are the
    number of modes of the samples, and KL(generated || real) between the two distributions over modes in nats. The real
    distribution consists of the classifier's predictions for all real images instead of the labels, so that its errors
    affect both sides; `mode_divergence` describes the smoothing. With all 128,000 images, the divergence of a perfect
    generator is about 0.023 because of sampling noise: see `real_vs_real`.

    Published values (modes, KL): DCGAN 99, 3.40; VEEGAN 150, 2.95; PacDCGAN2 1000, 0.06 (all from PacGAN); StyleGAN2
    940, 0.42; R3GAN 1000, 0.029 (32x32). They are not exactly comparable with ours: they use other classifiers and the
    digits of all of MNIST, while `stacked:digits` draws from 5,000 of them.

    Source: arXiv 1712.04086 (PacGAN), the experiment on stacked MNIST; arXiv 2501.05441 (R3GAN). Deviation: the Frechet
    distance, on the concatenated features of the three digits, is not part of these protocols.
    """

    def __init__(self, real_images: np.ndarray, num_samples: int = 26_000) -> None:
        """Initializes the suite.

        Args:
            real_images: uint8 [N, H, W, 3] in [0, 255], with a digit in each channel. All images are used for the
                modes, and the first `num_samples`, or all if there are fewer, for the Frechet distance.
            num_samples: Number M of fake images that `evaluate_features` takes, at least 2.

        Raises:
            DataError: If there are fewer than 4 real images, they have another type or shape, or `num_samples` is too
                small.
        """
        if num_samples < 2:
            raise DataError(f"num_samples={num_samples} is too few, expected at least 2; increase it.")
        super().__init__("stacked", real_images, num_samples)
        if len(self._real_images) < 4:
            raise DataError(f"received {len(self._real_images)} real images, expected at least 4; provide more.")
        _check_channels(self._real_images, "real images")

    def extract_block(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the features of the three digits of each image [B, 3 F], and their logits [B, 3, 10]."""
        _check_channels(images, "fake images")
        images = self._without_padding(images)
        digits = tf.reshape(tf.transpose(images, (0, 3, 1, 2)), (-1, *images.shape[1:3], 1))
        features, logits = self.classifier(digits)
        return tf.reshape(features, (-1, 3 * features.shape[1])), tf.reshape(logits, (-1, 3, logits.shape[1]))

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
            features: float32 [M, 3 F], features of the three digits of each fake image, M = `num_samples`.
            logits: float32 [M, 3, 10], their logits.
            labels: Integers [M] in [0, 1000), the mode that was requested for each image, or `None`.
            labels_are_codes: True if the labels are codes without a fixed meaning. They are not evaluated, because a
                code is shared by many of the 1,000 modes.

        Returns:
            `num_modes_…` (best: 1000), `kl_…` and `frechet_…` (best: 0), each ending in `protocol`. With labels also
            `conditional_accuracy` in [0, 1], the fraction of images with all three requested digits.
        """
        modes = logits.argmax(axis=2) @ _PLACE_VALUES
        metrics = self._compare(self._real.modes, self._real_features, modes, features)
        if labels is not None and not labels_are_codes:
            metrics["conditional_accuracy"] = float(np.mean(modes == np.asarray(labels)))
        return metrics

    def real_vs_real(self) -> dict[str, float]:
        """Compares real images with other real images, which gives the scores of a perfect generator.

        Protocol: the last `num_samples` real images, at most half of all, are the fake set and the others are the real
        set. With fewer than twice `num_samples` real images, the distances are larger than those of a full fake set.

        Returns:
            The metrics of `evaluate_features` under the same names, without `conditional_accuracy`.
        """
        real, num_all = self._real, len(self._real_images)
        num_real = num_all - min(self.num_samples, num_all // 2)
        return self._compare(
            real.modes[:num_real],
            real.features(slice(min(num_real, self.num_samples))),
            real.modes[num_real:],
            real.features(slice(num_real, None)),
        )

    @functools.cached_property
    def _real(self) -> "_ClassifiedImages":
        """The classified real images. Their digits repeat, so each distinct digit is classified once."""
        index_of: dict[bytes, int] = {}
        digit_indices = np.empty((len(self._real_images), 3), np.int32)
        for start in range(0, len(digit_indices), _BLOCK_SIZE):
            heartbeat.beat()
            digits = _split_channels(self._without_padding(self._real_images[start : start + _BLOCK_SIZE]))
            new_indices = [index_of.setdefault(digit.tobytes(), len(index_of)) for digit in digits]
            digit_indices[start : start + _BLOCK_SIZE] = np.reshape(new_indices, (-1, 3))
        distinct = np.frombuffer(b"".join(index_of), digits.dtype).reshape(-1, *digits.shape[1:])
        return _ClassifiedImages(*self.classifier.extract(distinct), digit_indices)

    @functools.cached_property
    def _real_features(self) -> np.ndarray:
        return self._real.features(slice(self.num_samples))

    def _compare(
        self, real_modes: np.ndarray, real_features: np.ndarray, fake_modes: np.ndarray, fake_features: np.ndarray
    ) -> dict[str, float]:
        fake_counts = np.bincount(fake_modes, minlength=NUM_MODES)
        values = {
            "num_modes": float(np.count_nonzero(fake_counts)),
            "kl": mode_divergence(fake_counts, np.bincount(real_modes, minlength=NUM_MODES)),
            "frechet": frechet_distance(real_features, fake_features),
        }
        return {f"{name}_{self.protocol}": value for name, value in values.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class _ClassifiedImages:
    """Features and logits of distinct digits, and the indices of the three digits of each image."""

    digit_features: np.ndarray
    """float32 [D, F]."""
    digit_logits: np.ndarray
    """float32 [D, 10]."""
    digit_indices: np.ndarray
    """Integers [N, 3] in [0, D)."""

    @functools.cached_property
    def modes(self) -> np.ndarray:
        """Modes of the images: int64 [N] in [0, K)."""
        return self.digit_logits.argmax(axis=1)[self.digit_indices] @ _PLACE_VALUES

    def features(self, images: slice = slice(None)) -> np.ndarray:
        """Returns the concatenated features of the digits of each selected image: float32 [N, 3 F]."""
        digit_indices = self.digit_indices[images]
        return self.digit_features[digit_indices].reshape(len(digit_indices), -1)


def _split_channels(images: np.ndarray) -> np.ndarray:
    """Splits images [N, H, W, 3] to [3 N, H, W, 1], with the channels of an image one after the other."""
    return np.ascontiguousarray(np.moveaxis(images, 3, 1)).reshape(-1, *images.shape[1:3], 1)


def _check_channels(images: np.ndarray | tf.Tensor, name: str) -> None:
    if len(images.shape) != 4 or images.shape[3] != 3:
        raise DataError(
            f"{name} have shape {list(images.shape[1:])}, expected [H, W, 3]; stacked metrics take images with a digit "
            "in each of three channels."
        )
