"""The interface of the networks whose features the image metrics compare."""

from typing import Protocol

import tensorflow as tf


class Extractor(Protocol):
    """A function of images that returns features and logits, such as that of the network of the suite `photos`.

    Legend: `B` images of a batch, `H W C` height, width and channels, `F` features, `K` classes.
    """

    name: str
    """Name of the metric suite, which is part of the names of its metrics, such as `inception`."""
    sha256: str
    """SHA-256 of the weights, 64 hexadecimal digits. Metrics are comparable only if the hashes are equal."""
    feature_size: int
    """Number of features F."""
    frechet_name: str
    """Name of the Frechet distance of these features: `fid` only for the network of the literature."""

    def __call__(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Extracts features. It can be called inside a `tf.function` and on every replica.

        Args:
            images: uint8 or float [B, H, W, C] in [0, 255] with C 1, 3, or 4, whose fourth channel (alpha) is ignored.

        Returns:
            features: float32 [B, F].
            logits: float32 [B, K].
        """
        ...
