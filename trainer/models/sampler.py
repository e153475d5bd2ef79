"""Generation of 8-bit images in batches.

Legend: `N` images, `H W C` an image, `Z` latent size.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

_BATCH_SIZE = 250


class Sampler:
    """Runs a compiled generator in batches.

    Args:
        function: Function of tensors [B, ...] that returns images [B, H, W, C] in `image_range`.
    """

    def __init__(self, function: Callable[..., tf.Tensor]):
        self._function = tf.function(
            lambda image_range, *inputs: as_bytes(function(*inputs), image_range),
            autograph=False,
            reduce_retracing=True,
        )

    def __call__(self, image_range: tuple[float, float], *inputs: np.ndarray | None) -> np.ndarray:
        """Returns images uint8 [N, H, W, C] for inputs [N, ...]. An input may be None."""
        num_images = next(len(array) for array in inputs if array is not None)
        batches = []
        for start in range(0, num_images, _BATCH_SIZE):
            batch = slice(start, start + _BATCH_SIZE)
            tensors = (None if array is None else tf.constant(array[batch]) for array in inputs)
            batches.append(self._function(image_range, *tensors).numpy())
        return np.concatenate(batches)


def as_bytes(images: tf.Tensor, image_range: tuple[float, float]) -> tf.Tensor:
    """Converts images of any float type in `image_range` to uint8."""
    low, high = image_range
    pixels = (tf.cast(images, tf.float32) - low) * (255.0 / (high - low))
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)
