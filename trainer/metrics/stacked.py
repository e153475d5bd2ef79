"""The suite of metrics for stacked digits: how many of the 1,000 modes a generator shows, and how evenly.

Shapes: `N` real and `M` fake images, `H W C` height, width and channels, `D` different real digits, `F` features of one
digit, `K` = 1,000 modes.
"""

import dataclasses
import functools

import numpy as np

from trainer.errors import DataError
from trainer.metrics.frechet import frechet_distance
from trainer.metrics.modes import mode_divergence
from trainer.metrics.suite import Suite

NUM_MODES = 1000
_PLACE_VALUES = np.array([100, 10, 1])
_BLOCK = 1000


class StackedMetrics(Suite):
    """Reads the digit in each channel of an image with the digits classifier; the three make its mode, 000 to 999.

    Protocol, after PacGAN: a generator trained on 128,000 stacked digits makes 26,000 samples; reported are the number
    of modes that at least one sample shows, and KL(generated || real) between the two distributions over modes in
    nats. The real distribution is what the classifier reads from all real images, not the labels, so that its own
    mistakes are on both sides; `mode_divergence` states the smoothing. A perfect generator's divergence against all
    128,000 images is about .023, by the samples' chance alone: see `real_vs_real`.

    Published figures (modes, KL): DCGAN 99, 3.40; VEEGAN 150, 2.95; PacDCGAN2 1000, .06 (all from PacGAN); StyleGAN2
    940, .42; R3GAN 1000, .029 (32x32). Theirs and ours are read by other classifiers from digits of all of MNIST, where
    `stacked:digits` draws on 5,000 of them, so that they can be set beside ours but not subtracted from them.

    Source: arXiv 1712.04086 (PacGAN), the experiment on stacked MNIST; arXiv 2501.05441 (R3GAN). Deviation: the Frechet
    distance on the features of the three digits side by side is ours.
    """

    def __init__(self, real_images: np.ndarray, num_samples: int = 26_000) -> None:
        """Takes the real images.

        Args:
            real_images: uint8 [N, H, W, 3] in [0, 255], a digit in each channel. All count for the modes; the first
                `num_samples`, or all if there are fewer, for the Frechet distance.
            num_samples: number of fake images that `evaluate` takes, at least 2.

        Raises:
            DataError: if there are fewer than 4 real images, they have another shape, or `num_samples` is too small.
        """
        if num_samples < 2:
            raise DataError(f"num_samples={num_samples} is too few, expected at least 2; ask for more.")
        super().__init__("stacked", real_images, num_samples)
        _check_stacked(self._real_images, "real images", minimum=4)

    def evaluate(
        self, fake_images: np.ndarray, fake_labels: np.ndarray | None = None, *, labels_are_codes: bool = False
    ) -> dict[str, float]:
        """Measures fake images against the real ones.

        Args:
            fake_images: uint8 [M, H, W, 3] in [0, 255], M = `num_samples`.
            fake_labels: integers [M] in [0, 1000), the mode that each image was asked to show, or `None`.
            labels_are_codes: whether the labels are codes without a fixed meaning, of which nothing is then reported:
                there are too many modes to match codes with.

        Returns:
            `num_modes_…` (best: 1000), `kl_…` and `frechet_…` (best: 0), each ending in `protocol`; with labels also
            `conditional_accuracy` in [0, 1], the share that shows all three digits as asked.

        Raises:
            DataError: if there are not `num_samples` images of three channels, or not one label for each.
        """
        self._check_fakes(fake_images, fake_labels)
        fake = self._read_each(np.asarray(fake_images))
        metrics = self._compare(self._real.modes, self._real_features, fake.modes, fake.features())
        if fake_labels is not None and not labels_are_codes:
            metrics["conditional_accuracy"] = float(np.mean(fake.modes == np.asarray(fake_labels)))
        return metrics

    def real_vs_real(self) -> dict[str, float]:
        """Measures the real images against themselves: what a perfect generator would score, and no better.

        Protocol: the last `num_samples` real images, at most half of all, play the fake set and the others the real
        one. Where there are fewer than twice `num_samples`, this is above what a full fake set would give.

        Returns:
            The metrics of `evaluate`, under the same names, without `conditional_accuracy`.
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
    def _real(self) -> "_Readings":
        """The real images' readings. Their digits repeat, so each different one is read once."""
        numbers: dict[bytes, int] = {}
        places = np.empty((len(self._real_images), 3), np.int32)
        for start in range(0, len(places), _BLOCK):
            digits = _digits(self._without_padding(self._real_images[start : start + _BLOCK]))
            found = [numbers.setdefault(digit.tobytes(), len(numbers)) for digit in digits]
            places[start : start + _BLOCK] = np.reshape(found, (-1, 3))
        different = np.frombuffer(b"".join(numbers), digits.dtype).reshape(-1, *digits.shape[1:])
        return _Readings(*self.classifier.extract(different), places)

    @functools.cached_property
    def _real_features(self) -> np.ndarray:
        return self._real.features(slice(self.num_samples))

    def _read_each(self, images: np.ndarray) -> "_Readings":
        _check_stacked(images, "fake images", minimum=2)
        digits = _digits(self._without_padding(images))
        return _Readings(*self.classifier.extract(digits), np.arange(len(digits)).reshape(-1, 3))

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
class _Readings:
    """What the classifier reads from digits, and which three digits each image is made of."""

    digit_features: np.ndarray
    """float32 [D, F]."""
    digit_logits: np.ndarray
    """float32 [D, 10]."""
    places: np.ndarray
    """integers [N, 3] in [0, D)."""

    @functools.cached_property
    def modes(self) -> np.ndarray:
        """int64 [N] in [0, K)."""
        return self.digit_logits.argmax(axis=1)[self.places] @ _PLACE_VALUES

    def features(self, images: slice = slice(None)) -> np.ndarray:
        """float32 [N, 3 F] of some of the images."""
        places = self.places[images]
        return self.digit_features[places].reshape(len(places), -1)


def _digits(images: np.ndarray) -> np.ndarray:
    """Takes the images [N, H, W, 3] apart: [3 N, H, W, 1], the channels of an image one after the other."""
    return np.ascontiguousarray(np.moveaxis(images, 3, 1)).reshape(-1, *images.shape[1:3], 1)


def _check_stacked(images: np.ndarray, name: str, minimum: int) -> None:
    if images.ndim != 4 or images.shape[3] != 3 or len(images) < minimum:
        raise DataError(
            f"{name} have shape {list(images.shape)}, expected [N, H, W, 3] with N at least {minimum}; "
            "stacked metrics take images with a digit in each of three channels."
        )
