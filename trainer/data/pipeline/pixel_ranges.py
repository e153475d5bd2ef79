"""Range of the pixels of images: the only reading that fits all values."""

import numpy as np

from trainer.config.choices import ImageRange

Range = tuple[float, float]
"""Smallest and largest possible value of a pixel."""

IMAGE_RANGES: dict[str, Range] = {
    ImageRange.SIGNED_UNIT: (-1.0, 1.0),
    ImageRange.UNIT: (0.0, 1.0),
    ImageRange.EIGHT_BIT: (0.0, 255.0),
}
"""Ranges of pixels by their names in the config."""
SIXTEEN_BIT: Range = (0.0, 65535.0)
"""Range of 16-bit pixels. They are converted to 8-bit pixels when they are read."""
_MARGIN = 0.1
"""Part of a range within which the smallest and the largest value must lie at its ends."""
_TOLERANCE = 1e-3
"""Part of a range by which rounding may exceed it."""


def find_range(low: float, high: float, dtype: np.dtype) -> Range | None:
    """Returns the only range that the pixels of some images may be in, or None.

    uint8 pixels are 8-bit pixels, unless none is above 1. Booleans, and other integers that are only 0 and 1, are
    black and white. Other integers are 8-bit or 16-bit pixels if they fill one of these ranges. Floats are in the range
    that they fill. Pixels fill a range if the smallest and the largest of them are within a tenth of it at either end.

    Args:
        low: Smallest value.
        high: Largest value.
        dtype: Type of the pixels.
    """
    if dtype == np.uint8:
        return None if high == 1 else IMAGE_RANGES[ImageRange.EIGHT_BIT]
    if dtype.kind == "b" or (dtype.kind in "iu" and (low, high) == (0, 1)):
        return IMAGE_RANGES[ImageRange.UNIT]
    is_whole = dtype.kind in "iu"
    candidates = [IMAGE_RANGES[ImageRange.EIGHT_BIT], SIXTEEN_BIT] if is_whole else IMAGE_RANGES.values()
    return next((candidate for candidate in candidates if _is_filled(low, high, candidate)), None)  # at most one


def has_other_scale(image: np.ndarray, image_range: Range) -> bool:
    """Returns whether an image of a set in 0..255 has fractions and nothing above 1, so that it is rather in 0..1.

    Such a set is a mixture: readers of images return floats up to 1 for some formats, and bytes for others.

    Args:
        image: Image of floats.
        image_range: Range that the whole set fills.
    """
    if image_range != IMAGE_RANGES[ImageRange.EIGHT_BIT] or not 0 < image.max() <= 1:
        return False
    return bool((image != np.floor(image)).any())


def is_inside(low: float, high: float, image_range: Range) -> bool:
    """Returns whether values are in a range, apart from rounding."""
    tolerance = _TOLERANCE * (image_range[1] - image_range[0])
    return image_range[0] - tolerance <= low and high <= image_range[1] + tolerance


def _is_filled(low: float, high: float, image_range: Range) -> bool:
    margin = _MARGIN * (image_range[1] - image_range[0])
    is_at_ends = low <= image_range[0] + margin and image_range[1] - margin <= high
    return is_at_ends and is_inside(low, high, image_range)
