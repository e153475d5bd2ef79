"""Conversion of the arguments of `GAN.fit` and `GAN.sample` to arrays.

Legend: `N` images, `H W C` an image, `K` classes.
"""

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from trainer.config.choices import ImageRange
from trainer.data.pipeline.batching import IMAGE_RANGES
from trainer.errors import DataError


def as_images(x: object, name: str = "x") -> np.ndarray:
    """Returns images [N, H, W, C] as uint8 if they are uint8, else as float32.

    Raises:
        DataError: If `x` is not an array of numbers.
    """
    images = _as_array(x, name)
    if images.ndim < 2 or images.dtype.kind not in "uif":
        raise DataError(f"{name} is {images.dtype} of shape {images.shape}; pass numbers of shape [N, H, W, C].")
    return images if images.dtype == np.uint8 else images.astype(np.float32)


def as_classes(y: object, num_examples: int, name: str = "y") -> np.ndarray:
    """Returns labels, integers [N] or [N, 1] or one-hot [N, K], as int32 [N].

    Raises:
        DataError: If there is not one label from 0 up per image.
    """
    labels = _as_array(y, name)
    is_one_hot = labels.ndim == 2 and labels.shape[1] > 1
    if labels.dtype.kind not in ("buif" if is_one_hot else "uif"):
        raise DataError(f"{name} is of type {labels.dtype}; pass classes as numbers from 0 up, or as one-hot vectors.")
    labels = labels.argmax(axis=1) if is_one_hot else labels.reshape(-1)
    if len(labels) != num_examples:
        raise DataError(f"{name} has {labels.size} labels for {num_examples} images; pass one label per image.")
    if labels.min() < 0:
        raise DataError(f"{name} has the label {labels.min()}; labels begin at 0.")
    return labels.astype(np.int32)


def range_of(images: np.ndarray) -> tuple[float, float]:
    """Returns the range that float images are in.

    Raises:
        DataError: If a value is not finite.
    """
    if not np.isfinite(images).all():
        raise DataError("x has values that are not finite; remove them before training.")
    if images.min() < 0:
        return IMAGE_RANGES[ImageRange.SIGNED_UNIT]
    return IMAGE_RANGES[ImageRange.UNIT if images.max() <= 1 else ImageRange.EIGHT_BIT]


def _as_array(value: object, name: str) -> np.ndarray:
    """Converts an array, tensor, list or pandas object to an array; rejects iterables of batches by their type."""
    if isinstance(value, (tf.data.Dataset, keras.utils.PyDataset, Iterator)) or _is_data_loader(value):
        raise DataError(
            f"{name} is a {type(value).__name__}, which yields batches, but the data is kept in memory; pass arrays, "
            "as numpy.concatenate([batch for batch in dataset]), or prepare the images with python -m trainer prepare."
        )
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(f"{name} has elements of different shapes; pass images and labels of one shape.") from error


def _is_data_loader(value: object) -> bool:
    """Returns whether an object is a `torch.utils.data.DataLoader`, without importing PyTorch."""
    return any(f"{kind.__module__}.{kind.__name__}".startswith("torch.utils.data.") for kind in type(value).__mro__)
