"""Base class of sources for arrays: images that are stored one after the other in a local file."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config.choices import ImageRange
from trainer.config.fields import check_choice
from trainer.data.pipeline.pixel_ranges import IMAGE_RANGES, Range, find_range, has_other_scale, is_inside
from trainer.data.prepare.sources.base import Item, Source
from trainer.data.prepare.sources.fields import count_bytes
from trainer.data.prepare.sources.listing import describe_classes
from trainer.data.record_files import SupportsRead
from trainer.errors import DataError, StorageError, count_of
from trainer.image_io import MAX_PIXELS

BLOCK_BYTES = 2**20
"""Number of bytes that are read at a time."""
_MAX_IMAGES = 20_000_000
"""Maximum number of images. Their labels are in memory."""


@dataclass(frozen=True)
class StoredArray:
    """An array of images in C order in a local file.

    Attributes:
        path: Local file.
        offset: Number of bytes before the first pixel.
        shape: Shape of the array.
        dtype: Type of the pixels.
        name: Name of the array, for messages.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    name: str

    @property
    def num_bytes(self) -> int:
        """Size of the pixels in bytes."""
        return count_bytes(self.shape, self.dtype)


class ArraySource(Source):
    """Images of an array.

    Args:
        array: Images, of a shape that `check_images` accepts.
        labels: Labels int64 [N], or None.
        class_names: Class names by label.
        image_range: Range of the pixels, one of `ImageRange`. None: the only range that fits.
        notes: Sentences for the user.

    Raises:
        DataError: If the pixels do not fit exactly one range.
    """

    expected_content = "an array of one or more images"
    empty_remedy = "store images in the array"

    def __init__(
        self,
        array: StoredArray,
        labels: np.ndarray | None,
        class_names: tuple[str, ...],
        image_range: str | None,
        notes: Sequence[str] = (),
    ) -> None:
        self._array = array
        self._has_found_range = image_range is None
        self._image_bytes = count_bytes(array.shape[1:], array.dtype)
        (self._low, self._high), digest = _read_range(array, image_range)
        settings = digest, array.shape, array.dtype.str, self._low, self._high
        self.content_digest = hashlib.sha256(repr(settings).encode()).hexdigest()
        labels = np.zeros(array.shape[0], np.int64) if labels is None else labels
        self.class_names = class_names
        self.items = _ArrayItems(array.name, labels)
        self._channels_first = _has_channels_first(array.shape)
        self.notes, self.class_notes = [*notes], describe_classes(class_names, len(labels))
        if self._channels_first:
            self.notes.append(f"{array.name} has the shape {list(array.shape)}, which is read as [N, C, H, W].")
        self._file = array.path.open("rb")

    def read(self, index: int) -> np.ndarray:
        offset = self._array.offset + index * self._image_bytes
        content = os.pread(self._file.fileno(), self._image_bytes, offset)
        if len(content) < self._image_bytes:
            raise DataError("is truncated; copy the file again")
        shape = self._array.shape[1:]
        values = np.frombuffer(content, self._array.dtype).reshape(shape if len(shape) == 3 else (*shape, 1))
        values = values.transpose(1, 2, 0) if self._channels_first else values
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError("has NaN or infinite pixels; correct or remove it")
        if self._has_found_range and values.dtype.kind == "f" and has_other_scale(values, (self._low, self._high)):
            raise DataError(
                "has no pixels above 1, in an array with pixels up to 255; scale all images to the same range, or pass "
                "--image_range=0..255 if it is almost black"
            )
        if values.dtype == np.uint8 and (self._low, self._high) == (0.0, 255.0):
            return np.ascontiguousarray(values)
        values = values if values.dtype.itemsize > 2 and values.dtype.kind == "f" else values.astype(np.float64)
        pixels = np.rint((values - self._low) * (255.0 / (self._high - self._low)))
        return np.clip(pixels, 0, 255).astype(np.uint8)

    def num_bytes(self, index: int) -> int:
        """Returns the size of an image in memory while it is read, in bytes."""
        return self._image_bytes

    def close(self) -> None:
        self._file.close()


class _ArrayItems(Sequence[Item]):
    """Items `image 0 of NAME`, `image 1 of NAME`, …, which are made on demand.

    Args:
        name: Name of the array.
        labels: Labels int64 [N].
    """

    def __init__(self, name: str, labels: np.ndarray):
        self._name, self._labels = name, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: Any) -> Any:
        return Item(f"image {range(len(self))[index]} of {self._name}", int(self._labels[index]))


def check_images(shape: tuple[int, ...], dtype: np.dtype, name: str) -> None:
    """Checks the shape and the type of an array of images, before its pixels are read.

    Raises:
        DataError: If the array is not of shape [N, H, W], [N, H, W, 1, 3 or 4] or [N, 1 or 3, H, W], or has no
            numbers.
    """
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise DataError(f"{name} has images of type {dtype}, expected integers or floats; convert them.")
    is_single = len(shape) == 3 and (shape[2] in (1, 3) or shape[0] == 3)
    if is_single:
        raise DataError(
            f"{name} has the shape {list(shape)}, which may be one image or images of one channel; reshape it to "
            "[N, H, W, C]."
        )
    if not (len(shape) == 3 or (len(shape) == 4 and (shape[3] in (1, 3, 4) or shape[1] in (1, 3)))) or 0 in shape[1:]:
        raise DataError(
            f"{name} has images of shape {list(shape)}, expected [N, H, W], [N, H, W, 1, 3 or 4] or [N, 1 or 3, H, W]; "
            "reshape them."
        )
    if shape[0] > _MAX_IMAGES or int(np.prod(shape[1:], dtype=object)) > 3 * MAX_PIXELS:
        raise DataError(
            f"{name} states {count_of(shape[0], 'image')} of shape {list(shape[1:])}, more than {_MAX_IMAGES:,} "
            "images or "
            f"{MAX_PIXELS:,} pixels per image; divide it."
        )


def check_size(stated: int, actual: int, name: str) -> None:
    """Checks the number of bytes that a header states against the size of the file.

    Raises:
        DataError: If they differ.
    """
    if stated > actual:
        raise DataError(f"{name} lacks {count_of(stated - actual, 'byte')} of {stated:,}; copy it again.")
    if stated < actual:
        raise DataError(
            f"{name} has {count_of(actual - stated, 'byte')} after the {count_of(stated, 'byte')} that its header "
            "states; save it again, "
            "with one array per file."
        )


def copy_values(file: SupportsRead, target: Path, num_bytes: int, name: str) -> None:
    """Copies exactly `num_bytes` bytes to a file, block by block.

    Raises:
        DataError: If the file ends before.
        StorageError: If the disk is too small.
    """
    check_disk(target, num_bytes, name)
    remaining = num_bytes
    with target.open("wb") as writer:
        while remaining and (block := file.read(min(remaining, BLOCK_BYTES))):
            writer.write(block)
            remaining -= len(block)
    check_size(num_bytes, num_bytes - remaining, name)


def check_disk(target: Path, num_bytes: int, name: str) -> None:
    """Checks that a disk has space for a file.

    Raises:
        StorageError: If it does not.
    """
    num_free = shutil.disk_usage(target.parent).free
    if num_bytes > num_free:
        raise StorageError(
            f"{name} states {num_bytes:,} bytes, but {target.parent} has {num_free:,} free; set TMPDIR to another "
            "folder, or check the file."
        )


def _has_channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3)


def _read_range(array: StoredArray, stated: str | None) -> tuple[Range, str]:
    """Returns the pixels that become 0 and 255, and the SHA-256 of all pixels.

    Args:
        array: Images.
        stated: Range that the user states. None: the one that all finite pixels fill.
    """
    if stated is not None:
        check_choice("image_range", stated, ImageRange)
    low, high, digest = np.inf, -np.inf, hashlib.sha256()
    for block in _read_blocks(array):
        digest.update(block.data)
        finite = block[np.isfinite(block)] if block.dtype.kind == "f" else block
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:  # no finite pixels: each image is reported by itself
        return IMAGE_RANGES[stated or ImageRange.UNIT], digest.hexdigest()
    values = f"{array.name} has {array.dtype} pixels from {low:g} to {high:g}"
    if stated is not None:
        if not is_inside(low, high, IMAGE_RANGES[stated]):
            raise DataError(f"{values}, outside image_range={stated}; scale them, or state another range.")
        return IMAGE_RANGES[stated], digest.hexdigest()
    image_range = find_range(low, high, array.dtype)
    if image_range is None:
        if array.dtype == np.uint8:
            raise DataError(f"{values}, which may be 0..1 or 0..255; state it with --image_range.")
        possible = [name for name, ends in IMAGE_RANGES.items() if is_inside(low, high, ends)]
        remedy = f"state the range with --image_range={' or '.join(possible)}" if possible else "scale them to 0..255"
        raise DataError(f"{values}, which fill none of the ranges {', '.join(IMAGE_RANGES)}; {remedy}.")
    return image_range, digest.hexdigest()


def _read_blocks(array: StoredArray) -> Iterator[np.ndarray]:
    """Yields the pixels in blocks, as flat arrays."""
    num_values = array.num_bytes // array.dtype.itemsize
    values = np.memmap(array.path, array.dtype, "r", array.offset, (num_values,)) if num_values else np.empty(0)
    for start in range(0, num_values, BLOCK_BYTES):
        yield values[start : start + BLOCK_BYTES]
