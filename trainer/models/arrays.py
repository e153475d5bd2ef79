"""Conversion of images and labels to arrays. Data that has more than one reading, or none, is refused.

Shapes: `N` images, `H W C` an image, `K` classes.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from trainer.config.choices import ImageRange
from trainer.data.pipeline.pixel_ranges import IMAGE_RANGES, SIXTEEN_BIT, Range, find_range, has_other_scale, is_inside
from trainer.errors import DataError, count_of, quote

_MODES_WITHOUT_PIXELS = ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "La", "RGBa")
"""Modes of Pillow whose values are indices of colors, or colors that are not gray, RGB, or RGBA."""


def read_images(
    domains: Mapping[str, object], user_range: Range | None, current: Range, *, is_trained: bool = False
) -> tuple[list[np.ndarray], Range]:
    """Converts the images of one or more domains, which have the same range.

    uint8 images are 8-bit pixels. Booleans, and integers that are only 0 and 1, are black and white. Other integers
    are 8-bit pixels if they reach from about 0 to about 255, and 16-bit pixels if they reach to about 65,535. Floats
    are used as they are: they are in `user_range`; otherwise in the one of -1..1, 0..1 and 0..255 that they fill, up to
    a tenth of it at either end.

    Args:
        domains: Arrays, tensors or lists [N, H, W, C], by the name of the argument.
        user_range: Range that the user has set; None to find it.
        current: Range that 8-bit pixels are mapped to.
        is_trained: Whether the networks have been trained in the current range. Floats that fill none may lie in it
            then.

    Returns:
        Images [N, H, W, C] of each domain, uint8 or float32; and the range (low, high) that the networks work in.

    Raises:
        DataError: If an argument is not an array of numbers, or its values do not fit exactly one reading.
    """
    images = [as_images(x, name, user_range) for name, x in domains.items()]
    floats = [array for array in images if array.dtype != np.uint8]
    if not floats:
        return images, current
    names = " and ".join(domains)
    low = min(float(array.min()) for array in floats)
    high = max(float(array.max()) for array in floats)
    if not np.isfinite(low + high):
        first = _first_where(domains, images, lambda image: not np.isfinite(image).all())
        raise DataError(f"{names} has values that are not finite, first in {first}; remove or replace them.")
    if user_range:
        _check_user_range(low, high, user_range, names)
        return images, user_range
    image_range = find_range(low, high, np.dtype(np.float32))
    if image_range is None and is_trained and is_inside(low, high, current):
        image_range = current
    if image_range is None:
        raise DataError(
            f"{names} has floats from {low:g} to {high:g}, which fill none of the ranges {', '.join(IMAGE_RANGES)}; "
            f"scale or clip {names} to one of them, or state the range that {names} lies in as image_range of the "
            "model."
        )
    mixed = _first_where(domains, images, lambda image: has_other_scale(image, image_range))
    if mixed is not None:
        raise DataError(
            f"{names} has floats from {low:g} to {high:g}, but {mixed} has none above 1; scale all images to the same "
            "range, or state image_range=0..255 of the model if the image is almost black."
        )
    return images, image_range


def _first_where(
    domains: Mapping[str, object], images: Sequence[np.ndarray], predicate: Callable[[np.ndarray], bool]
) -> str | None:
    """Returns the name of the first image for which a function is true, such as `x[3]`; None if there is none."""
    names = (
        f"{name}[{number}]"
        for name, array in zip(domains, images, strict=True)
        for number, image in enumerate(array)
        if array.dtype != np.uint8 and predicate(image)
    )
    return next(names, None)


def as_images(x: object, name: str = "x", user_range: Range | None = None) -> np.ndarray:
    """Returns images [N, H, W, C] as uint8 if they are 8-bit pixels, else as float32, without a check of their range.

    Raises:
        DataError: If `x` is not an array of numbers, or its integers are not pixels.
    """
    images = _as_pixels(as_array(x, name), name, user_range)
    with np.errstate(over="ignore"):  # too large values become infinite, which `read_images` rejects
        return images if images.dtype == np.uint8 else images.astype(np.float32, copy=False)


def as_classes(y: object, num_examples: int, num_classes: int | None = None, name: str = "y") -> np.ndarray:
    """Returns labels, whole numbers [N] or [N, 1] or one-hot [N, K], as int32 [N].

    Args:
        y: Labels.
        num_examples: Number of images, N.
        num_classes: Number of classes, K; None if any number is allowed.
        name: Name of the argument.

    Raises:
        DataError: If there is not exactly one class from 0 to K-1 per image.
    """
    labels = as_array(y, name)
    is_one_hot = labels.ndim == 2 and labels.shape[1] > 1
    if labels.dtype.kind not in ("buif" if is_one_hot else "uif"):
        raise DataError(f"{name} is of type {labels.dtype}; pass classes as numbers from 0 up, or as one-hot vectors.")
    if labels.ndim == 0 or labels.ndim > 2 or (not is_one_hot and labels.size != len(labels)):
        raise DataError(f"{name} has the shape {labels.shape}; pass integers of shape [N], or one-hot vectors [N, K].")
    if len(labels) != num_examples:
        raise DataError(
            f"{name} has {count_of(len(labels), 'label')} for {count_of(num_examples, 'image')}; pass one label per "
            "image."
        )
    return _from_one_hot(labels, num_classes, name) if is_one_hot else _from_numbers(labels, num_classes, name)


def class_tensor(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Returns labels as a tensor int32 [B]. Running it fails if a label is wrong.

    Args:
        labels: Whole numbers [B] or [B, 1], or one-hot [B, K].
        num_classes: Number of classes, K.
    """
    labels = tf.convert_to_tensor(labels)
    if len(labels.shape) == 2 and labels.shape[1] != 1:
        labels = tf.ensure_shape(tf.cast(labels, tf.float32), [None, num_classes])
        classes = tf.argmax(labels, axis=-1, output_type=tf.int32)
        expected = tf.one_hot(classes, num_classes)
    else:
        labels = tf.reshape(labels, [-1])
        classes = tf.clip_by_value(tf.cast(labels, tf.int32), 0, num_classes - 1)
        expected = tf.cast(classes, labels.dtype)
    message = f"labels are not classes; pass whole numbers from 0 to {num_classes - 1}, or one-hot vectors"
    with tf.control_dependencies([tf.debugging.assert_equal(labels, expected, message)]):
        return tf.identity(classes)


def as_array(value: object, name: str) -> np.ndarray:
    """Returns an array, tensor, list or pandas object as an array with at least one element.

    Raises:
        DataError: If `value` cannot be an array, is empty, has elements of different shapes, or is a picture of Pillow
            whose values are no pixels.
    """
    for picture in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(picture, Image.Image) and picture.mode in _MODES_WITHOUT_PIXELS:
            raise DataError(
                f"{name} has a picture of Pillow in the mode {picture.mode}, whose values are not gray, RGB, or RGBA; "
                'pass picture.convert("RGB").'
            )
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O" and array.ndim == 1 and len(array) and np.ndim(array[0]):
            array = np.stack(list(array))  # a pandas.Series of arrays
    except ValueError as error:
        raise DataError(
            f"{name} has elements of different shapes; pass images of one shape as x, and labels as y."
        ) from error
    except (TypeError, RuntimeError) as error:  # PyTorch's tensors on a GPU or with gradients raise them
        raise DataError(f"{name} is no array: {quote(str(error))}; pass arrays of NumPy.") from error
    if array.dtype.kind == "O" and not array.ndim:
        kind = type(value).__name__
        raise DataError(f"{name} is of type {kind}; pass arrays of NumPy, such as those of trainer.data.loading.load.")
    if np.ma.is_masked(value):
        raise DataError(f"{name} is a masked array with masked values; fill or remove them.")
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.ndim and not array.size:
        raise DataError(f"{name} is empty, of shape {array.shape}; pass at least one example.")
    return array


def _as_pixels(images: np.ndarray, name: str, user_range: Range | None) -> np.ndarray:
    """Returns images as uint8 if they are 8-bit pixels, else as floats."""
    if images.ndim < 2 or images.dtype.kind not in "buif":
        raise DataError(
            f"{name} is {images.dtype} of shape {images.shape}; pass numbers of shape [N, H, W, C], or load a dataset "
            "with trainer.data.loading.load."
        )
    if images.dtype.kind == "f":
        return images
    eight_bit = IMAGE_RANGES[ImageRange.EIGHT_BIT]
    low, high = int(images.min()), int(images.max())
    image_range = find_range(low, high, images.dtype)
    if image_range == IMAGE_RANGES[ImageRange.UNIT]:  # black and white
        return images.astype(np.uint8) * np.uint8(255)
    if images.dtype == np.uint8:
        if image_range is None and user_range != eight_bit:
            raise DataError(
                f"{name} is uint8 with no value above 1, which is black as 8-bit pixels; pass {name} * 255 or booleans."
            )
        return images
    if user_range and is_inside(low, high, user_range):
        return images.astype(np.uint8 if user_range == eight_bit else np.float32)
    if user_range == eight_bit:
        _check_user_range(low, high, user_range, name)
    if image_range == SIXTEEN_BIT:
        return np.rint(images * np.float32(1 / 257)).astype(np.uint8)
    if image_range is not None:
        return images.astype(np.uint8)
    raise DataError(
        f"{name} has values of type {images.dtype} from {low} to {high}, which do not fill the range of 8-bit or "
        f"16-bit pixels; pass 8-bit pixels as uint8, or scale {name} to floats from 0 to 1 or from -1 to 1."
    )


def _check_user_range(low: float, high: float, user_range: Range, name: str) -> None:
    """Rejects images outside of the range that the user has set."""
    if not is_inside(low, high, user_range):
        raise DataError(
            f"{name} has values from {low:g} to {high:g}, outside of "
            f"image_range={user_range[0]:g}..{user_range[1]:g}; scale "
            f"or clip {name}, or state another of the ranges {', '.join(IMAGE_RANGES)}."
        )


def _from_one_hot(labels: np.ndarray, num_classes: int | None, name: str) -> np.ndarray:
    if num_classes is not None and labels.shape[1] != num_classes:
        raise DataError(
            f"{name} has the shape {labels.shape}, but num_classes={num_classes}; pass integers of shape [N], or "
            f"one-hot vectors of shape [N, {num_classes}]."
        )
    is_wrong = (np.sum(labels == 1, axis=1) != 1) | (np.sum(labels == 0, axis=1) != labels.shape[1] - 1)
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise DataError(
            f"{name}[{row}]={quote(labels[row].tolist())} is not one-hot; pass one 1 and otherwise 0 per image, or "
            "integers."
        )
    return labels.argmax(axis=1).astype(np.int32)


def _from_numbers(labels: np.ndarray, num_classes: int | None, name: str) -> np.ndarray:
    labels = labels.reshape(-1)
    limit = np.iinfo(np.int32).max if num_classes is None else num_classes - 1
    with np.errstate(invalid="ignore"):
        is_wrong = ~((labels >= 0) & (labels <= limit) & (labels == np.floor(labels)))
    if is_wrong.any():
        row = int(is_wrong.argmax())
        classes = "from 0 up" if num_classes is None else f"from 0 to {limit}, because num_classes={num_classes}"
        raise DataError(f"{name}[{row}]={labels[row]} is no class; pass whole numbers {classes}, or one-hot vectors.")
    return labels.astype(np.int32)
