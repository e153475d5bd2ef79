"""The interface of the networks whose features the image metrics compare."""

from typing import Protocol

import tensorflow as tf

from trainer.errors import DataError


class Extractor(Protocol):
    """A function of images that returns features and logits, such as that of the network of the suite `photos`.

    Shapes: `B` images of a batch, `H W C` height, width and channels, `F` features, `K` classes.
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
            images: uint8 or float [B, H, W, C] in [0, 255] with C 1, 3, or 4 (with alpha, placed on white).

        Returns:
            features: float32 [B, F].
            logits: float32 [B, K].
        """
        ...


def as_rgb(images: tf.Tensor) -> tf.Tensor:
    """Returns images as color images: gray is repeated to three channels, and alpha is placed on white.

    Args:
        images: uint8 or float [B, H, W, C] in [0, 255], C of 1, 3 or 4.

    Returns:
        float32 [B, H, W, 3] in [0, 255].

    Raises:
        DataError: If the images have another shape.
    """
    images = tf.cast(images, tf.float32)
    if images.shape.rank != 4 or images.shape[-1] not in (1, 3, 4):
        raise DataError(
            f"images have shape {images.shape}, expected [B, H, W, C] with C of 1, 3 or 4; convert the images."
        )
    return tf.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else on_white(images)


def on_white(images: tf.Tensor) -> tf.Tensor:
    """Places images with straight alpha on white, as files are prepared without alpha. Other images stay as they are.

    Args:
        images: float32 [B, H, W, C] in [0, 255].

    Returns:
        float32 [B, H, W, 3] if C is 4, else the images.
    """
    if images.shape[-1] != 4:
        return images
    alpha = images[..., 3:] / 255.0
    return images[..., :3] * alpha + 255.0 * (1.0 - alpha)
