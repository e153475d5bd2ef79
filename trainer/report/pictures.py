"""Pictures for a page: reduced to a number of bytes, and kept for the next page."""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from trainer.image_io import read_grid
from trainer.storage.mirror import FileState, file_state

_LARGE_BYTES = 192 * 2**10
_SMALL_BYTES = 48 * 2**10
_MAX_NUM_LARGE = 50
MAX_GRIDS = 200
"""Maximum number of grids in a page, which then have at most 13 MB as text."""
_QUALITY = 85
_MAX_PIXELS_PER_BYTE = 8
"""Pixels per byte of a simple picture. Larger pictures are reduced before they are encoded for the first time."""
_MAX_SIDE = 16_383
"""Maximum width and height of a WebP file in pixels."""
_NUM_ATTEMPTS = 4


class Pictures:
    """Encodes PNG files as WebP in data URLs. A file that has not changed since the last page is not encoded again."""

    def __init__(self) -> None:
        self._urls: dict[tuple[Path, FileState, int], str | None] = {}
        self._used = set[tuple[Path, FileState, int]]()

    def url(self, path: Path, max_bytes: int = _LARGE_BYTES) -> str | None:
        """Returns a picture as a data URL; None if it cannot be read.

        Args:
            path: PNG file.
            max_bytes: Maximum size of the WebP file in bytes.
        """
        try:
            key = (path, file_state(path), max_bytes)
        except OSError:
            return None
        self._used.add(key)
        if key not in self._urls:
            image = read_grid(path)
            self._urls[key] = None if image is None else _data_url(_encode(image, max_bytes))
        return self._urls[key]

    def end_page(self) -> None:
        """Drops the pictures that the page does not have."""
        self._urls = {key: url for key, url in self._urls.items() if key in self._used}
        self._used.clear()


def select_grids(steps: Sequence[int], best_step: int | None) -> list[int]:
    """Returns the steps of the sample grids that a page has.

    If there are too many for a page, every second, fourth, eighth… is taken, with the best and the last one.

    Args:
        steps: Step of each grid, in ascending order.
        best_step: Step whose grid is always taken.
    """
    stride = 1
    while -(-len(steps) // stride) > MAX_GRIDS:
        stride *= 2
    taken = {*steps[::stride], *steps[-1:], best_step}
    return [step for step in steps if step in taken]


def bytes_per_grid(num_grids: int) -> int:
    """Returns the number of bytes that each grid in the page of one run may have."""
    return _LARGE_BYTES if num_grids <= _MAX_NUM_LARGE else _SMALL_BYTES


def share_of_page(num_pictures: int) -> int:
    """Returns the number of bytes that each of several pictures in a page may have."""
    return min(_LARGE_BYTES, MAX_GRIDS * _SMALL_BYTES // max(1, num_pictures))


def _encode(image: Image.Image, max_bytes: int) -> bytes:
    """Returns a picture as WebP, reduced until it has at most this number of bytes, or a few times."""
    num_pixels, side = image.width * image.height, max(image.size)
    scale = min(1.0, math.sqrt(_MAX_PIXELS_PER_BYTE * max_bytes / num_pixels), _MAX_SIDE / side)
    for _ in range(_NUM_ATTEMPTS):
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        resized = image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        resized.save(buffer, "WEBP", quality=_QUALITY, method=2)
        content = buffer.getvalue()
        if len(content) <= max_bytes:
            break
        scale *= 0.9 * math.sqrt(max_bytes / len(content))
    return content


def _data_url(content: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"
