"""What a trained generator shows: images from latents as 8-bit pixels, in batches of one size.

Legend: `N` images, `H W C` an image, `Z` latent size.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

_BATCH = 250


class Sampler:
    """A compiled function from float tensors to images, fed in batches.

    Args:
        function: (tensors [B, ...] ...) -> images [B, H, W, C] in `image_range`.
    """

    def __init__(self, function: Callable[..., tf.Tensor]):
        self._function = tf.function(
            lambda *inputs: tf.cast(function(*inputs), tf.float32), autograph=False, reduce_retracing=True
        )

    def __call__(self, image_range: tuple[float, float], *inputs: np.ndarray | None) -> np.ndarray:
        """Images uint8 [N, H, W, C] for inputs [N, ...], of which some may be None."""
        low, high = image_range
        made = []
        for start in range(0, len(next(given for given in inputs if given is not None)), _BATCH):
            part = slice(start, start + _BATCH)
            images = self._function(*(None if given is None else tf.constant(given[part]) for given in inputs))
            pixels = (images.numpy() - low) * (255.0 / (high - low))
            made.append(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
        return np.concatenate(made)
