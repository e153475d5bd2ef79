"""Range of the pixels of an array: the only reading that fits all values, or the one that the user states."""

from collections.abc import Iterable

import numpy as np

from trainer.config.choices import ImageRange
from trainer.config.fields import check_choice
from trainer.errors import DataError

_RANGES: dict[str, tuple[float, float]] = {
    ImageRange.SIGNED_UNIT: (-1.0, 1.0),
    ImageRange.UNIT: (0.0, 1.0),
    ImageRange.EIGHT_BIT: (0.0, 255.0),
}
_MARGIN = 0.1
"""Part of a range within which the smallest and the largest value must lie at its ends."""
_TOLERANCE = 1e-3
"""Part of a range by which rounding may exceed it."""


def find_range(blocks: Iterable[np.ndarray], dtype: np.dtype, stated: str | None, name: str) -> tuple[float, float]:
    """Returns the values that become 0 and 255.

    uint8 pixels are 8-bit pixels. Booleans, and other integers that are only 0 and 1, are black and white. Other
    integers and floats are in the range that they fill, up to a tenth of it at either end.

    Args:
        blocks: All pixels, in blocks of any shape.
        dtype: Type of the pixels.
        stated: Range that the user states, one of `ImageRange`, or None.
        name: Name of the array, for messages.

    Raises:
        ConfigError: If `stated` is unknown.
        DataError: If the values exceed the stated range, or do not fill exactly one range.
    """
    if stated is not None:
        check_choice("image_range", stated, ImageRange)
    low, high = _extremes(blocks)
    if low > high:  # no finite pixels: each image is reported by itself
        return _RANGES[stated or ImageRange.UNIT]
    if stated is not None:
        if not _is_inside(low, high, _RANGES[stated]):
            raise DataError(
                f"{name} has pixels from {low:g} to {high:g}, outside image_range={stated}; scale them, or state "
                "another range."
            )
        return _RANGES[stated]
    fitting = _fitting_range(low, high, dtype)
    if fitting is None:
        raise DataError(
            f"{name} has {dtype} pixels from {low:g} to {high:g}, which fill none of the ranges {', '.join(_RANGES)}; "
            "state the range with --image_range, or scale the pixels."
        )
    return _RANGES[fitting]


def _fitting_range(low: float, high: float, dtype: np.dtype) -> str | None:
    """Returns the range that the values fill, or None."""
    if dtype == np.uint8:
        return ImageRange.EIGHT_BIT if high > 1 else None
    if dtype.kind in "biu" and low >= 0 and high <= 1:
        return ImageRange.UNIT if dtype.kind == "b" or (low, high) == (0, 1) else None
    candidates = [ImageRange.EIGHT_BIT] if dtype.kind in "iu" else list(_RANGES)
    return next((name for name in candidates if _is_filled(low, high, _RANGES[name])), None)  # at most one is filled


def _is_inside(low: float, high: float, pixel_range: tuple[float, float]) -> bool:
    tolerance = _TOLERANCE * (pixel_range[1] - pixel_range[0])
    return pixel_range[0] - tolerance <= low and high <= pixel_range[1] + tolerance


def _is_filled(low: float, high: float, pixel_range: tuple[float, float]) -> bool:
    margin = _MARGIN * (pixel_range[1] - pixel_range[0])
    is_at_ends = low <= pixel_range[0] + margin and pixel_range[1] - margin <= high
    return is_at_ends and _is_inside(low, high, pixel_range)


def _extremes(blocks: Iterable[np.ndarray]) -> tuple[float, float]:
    """Returns the smallest and the largest finite pixel; infinity and minus infinity if there is none."""
    low, high = np.inf, -np.inf
    for block in blocks:
        finite = block[np.isfinite(block)] if block.dtype.kind == "f" else block
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return low, high
