"""The metric suite `paired` for models that translate inputs: the difference between outputs and their images.

Shapes: `N` pairs, `H W C` height, width and channels.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from trainer.metrics.extraction import blocks_of
from trainer.metrics.suite import Suite, as_pixels

_MAX_PSNR = 100.0
_SSIM_WINDOW = 11


class PairedMetrics(Suite):
    """The differences between outputs and images."""

    def __init__(self, inputs: np.ndarray, images: np.ndarray) -> None:
        """Initializes the suite.

        Args:
            inputs: Inputs, uint8 [N, H, W, I].
            images: Image of each input, uint8 [N, H, W, C].

        Raises:
            DataError: If inputs or images have another type or shape.
        """
        self._inputs, self._images = as_pixels(inputs, "inputs"), as_pixels(images, "images")

    def measure(self, model: Any) -> dict[str, float]:
        """Translates the inputs, and compares the outputs with the images.

        Args:
            model: Model that translates inputs, such as `trainer.models.Pix2Pix`.

        Returns:
            Means over the pairs: `paired_l1`, the mean absolute difference of pixel values as a fraction of their
            range, in [0, 1], best: 0; `paired_psnr`, the peak signal-to-noise ratio in dB, at most 100; `paired_ssim`,
            the structural similarity of `tf.image.ssim`, best: 1. All channels count alike.
        """
        return self._compare(model.translate(self._inputs))

    def real_vs_real(self) -> dict[str, float]:
        """Returns the values of outputs that equal the images."""
        return {"paired_l1": 0.0, "paired_psnr": _MAX_PSNR, "paired_ssim": 1.0}

    def _compare(self, outputs: np.ndarray) -> dict[str, float]:
        window = min(_SSIM_WINDOW, *self._images.shape[1:3])
        values = []
        for arrays in blocks_of(outputs, self._images):
            block = [tf.cast(array, tf.float32) for array in arrays]
            differences = tf.reduce_mean(tf.abs(block[0] - block[1]), axis=[1, 2, 3]) / 255.0
            psnr = tf.minimum(tf.image.psnr(*block, max_val=255.0), _MAX_PSNR)
            ssim = tf.image.ssim(*block, max_val=255.0, filter_size=window)
            values.append(tf.stack([differences, psnr, ssim]).numpy())
        means = np.concatenate(values, axis=1).astype(np.float64).mean(axis=1)
        return dict(zip(("paired_l1", "paired_psnr", "paired_ssim"), means.tolist(), strict=True))
