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
            lambda image_range, *inputs: as_bytes(function(*inputs), image_range),
            autograph=False,
            reduce_retracing=True,
        )

    def __call__(self, image_range: tuple[float, float], *inputs: np.ndarray | None) -> np.ndarray:
        """Images uint8 [N, H, W, C] for inputs [N, ...], of which some may be None."""
        made = []
        for start in range(0, len(next(given for given in inputs if given is not None)), _BATCH):
            part = slice(start, start + _BATCH)
            of_part = (None if given is None else tf.constant(given[part]) for given in inputs)
            made.append(self._function(image_range, *of_part).numpy())
        return np.concatenate(made)


def as_bytes(images: tf.Tensor, image_range: tuple[float, float]) -> tf.Tensor:
    """Images of any float type in `image_range` as uint8."""
    low, high = image_range
    pixels = (tf.cast(images, tf.float32) - low) * (255.0 / (high - low))
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)
