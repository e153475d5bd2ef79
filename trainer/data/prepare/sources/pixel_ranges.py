"""Range of the pixels of an array: the only reading that fits all values, or the one that the user states."""

from collections.abc import Iterable

import numpy as np

from trainer.config.choices import ImageRange
from trainer.config.fields import check_choice
from trainer.errors import DataError

_RANGES = {ImageRange.SIGNED_UNIT: (-1.0, 1.0), ImageRange.UNIT: (0.0, 1.0), ImageRange.EIGHT_BIT: (0.0, 255.0)}


def find_range(blocks: Iterable[np.ndarray], dtype: np.dtype, stated: str | None, name: str) -> tuple[float, float]:
    """Returns the values that become 0 and 255.

    Args:
        blocks: All pixels, in blocks of any shape. They are not read if the type determines the range.
        dtype: Type of the pixels.
        stated: Range that the user states, one of `ImageRange`, or None.
        name: Name of the array, for messages.

    Raises:
        ConfigError: If `stated` is unknown.
        DataError: If the values exceed the stated range, or fit none or several ranges.
    """
    if stated is not None:
        check_choice("image_range", stated, ImageRange)
    if stated is None and dtype == np.uint8:
        return _RANGES[ImageRange.EIGHT_BIT]
    if stated is None and dtype.kind == "b":
        return _RANGES[ImageRange.UNIT]
    low, high = _extremes(blocks)
    if low > high:  # no finite pixels: each image is reported by itself
        return _RANGES[ImageRange.UNIT]
    if stated is not None:
        if low < _RANGES[stated][0] or high > _RANGES[stated][1]:
            raise DataError(
                f"{name} has pixels from {low:g} to {high:g}, outside image_range={stated}; scale them, or state "
                "another range."
            )
        return _RANGES[stated]
    fitting = _fitting_range(low, high, dtype.kind != "f")
    if fitting is None:
        raise DataError(
            f"{name} has {dtype} pixels from {low:g} to {high:g}, which do not clearly fit one of the ranges "
            f"{', '.join(_RANGES)}; state it with --image_range=RANGE, or scale the pixels."
        )
    return _RANGES[fitting]


def _fitting_range(low: float, high: float, is_integer: bool) -> ImageRange | None:
    """Returns the range whose ends the values reach, or None if no range clearly fits."""
    if low < 0:
        reaches_end = low <= -0.9 or high >= 0.9
        return ImageRange.SIGNED_UNIT if low >= -1 and high <= 1 and reaches_end and not is_integer else None
    if high <= 1:
        return ImageRange.UNIT if high >= 0.5 and not is_integer else None
    return ImageRange.EIGHT_BIT if 128 <= high <= 255 else None


def _extremes(blocks: Iterable[np.ndarray]) -> tuple[float, float]:
    """Returns the smallest and the largest finite pixel; infinity and minus infinity if there is none."""
    low, high = np.inf, -np.inf
    for block in blocks:
        finite = block[np.isfinite(block)] if block.dtype.kind == "f" else block
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return low, high
