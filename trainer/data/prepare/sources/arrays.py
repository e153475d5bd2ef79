"""Sources for arrays: .npz files and IDX files, the format of MNIST. Headers are checked before pixels are read."""

import gzip
import os
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from trainer.data.prepare.sources.base import Item, Source
from trainer.errors import DataError, StorageError

_IMAGE_NAMES = ("x", "x_train", "images", "arr_0")
_LABEL_NAMES = ("y", "y_train", "labels", "arr_1")
_IDX_UINT8 = 0x08
_BLOCK_BYTES = 2**20


class SupportsRead(Protocol):
    """A file that is read block by block."""

    def read(self, size: int, /) -> bytes:
        """Returns at most `size` bytes; no bytes at the end of the file."""


class _ArraySource(Source):
    """Images that are stored one after the other in a local file.

    Args:
        path: Local file.
        offset: Number of bytes before the first pixel.
        shape: Shape [N, H, W] or [N, H, W, C].
        dtype: Type of the pixels: uint8, or floats in [0, 1] or [-1, 1].
        labels: Integers [N], or None.
        name: Name of the source for messages.

    Raises:
        DataError: If the shape, type, range or labels do not fit images.
    """

    expected_content = "an array of one or more images"
    empty_remedy = "store images in the array"

    def __init__(
        self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype, labels: np.ndarray | None, name: str
    ) -> None:
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or 0 in shape[1:]:
            raise DataError(
                f"{name} has images of shape {list(shape)}, expected [N, H, W] or [N, H, W, 1 or 3]; reshape them."
            )
        if dtype != np.uint8 and dtype.kind != "f":
            raise DataError(
                f"{name} has images of type {dtype}, expected uint8, or floats in [0, 1] or [-1, 1]; convert them."
            )
        if labels is not None and (labels.shape != shape[:1] or labels.dtype.kind not in "iu"):
            raise DataError(
                f"{name} has labels {labels.dtype} {list(labels.shape)}, expected one integer for each of {shape[0]} "
                "images; correct the labels."
            )
        if labels is not None and labels.size and labels.min() < 0:
            raise DataError(f"{name} has the label {labels.min()}, expected 0 or more; renumber the labels.")
        self._min_value = 0.0 if dtype == np.uint8 else _find_min_value(path, offset, shape, dtype, name)
        self._file = path.open("rb")
        self._offset, self._shape, self._dtype = offset, (*shape[1:3], shape[3] if len(shape) == 4 else 1), dtype
        self._image_bytes = int(np.prod(self._shape)) * dtype.itemsize
        values = np.zeros(shape[0], np.int64) if labels is None else labels
        classes, item_labels = np.unique(values, return_inverse=True)
        self.class_names = tuple(str(value) for value in classes)
        self.items = [Item(f"image {index} of {name}", int(label)) for index, label in enumerate(item_labels)]

    def read(self, index: int) -> np.ndarray:
        content = os.pread(self._file.fileno(), self._image_bytes, self._offset + index * self._image_bytes)
        if len(content) < self._image_bytes:
            raise DataError("is truncated; copy the file again")
        values = np.frombuffer(content, self._dtype).reshape(self._shape)
        if values.dtype == np.uint8:
            return values
        if not np.isfinite(values).all():
            raise DataError("has NaN or infinite pixels; correct or remove it")
        return np.rint((values - self._min_value) * (255.0 / (1.0 - self._min_value))).astype(np.uint8)

    def close(self) -> None:
        self._file.close()


class NpzSource(_ArraySource):
    """Images `x` (or `images`, `x_train`, `arr_0`) and labels `y` (or `labels`, `y_train`, `arr_1`) of a .npz file.

    Args:
        path: .npz file.
        scratch: Local folder for the unpacked images.

    Raises:
        DataError: If the file is not a .npz file, has no images, or has arrays whose shape or type does not fit images.
        StorageError: If the disk is too small for the unpacked images.
    """

    def __init__(self, path: Path, scratch: Path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = {name.removesuffix(".npy"): name for name in archive.namelist()}
                images = next((name for name in _IMAGE_NAMES if name in names), None)
                if images is None:
                    received = ", ".join(names) or "no arrays"
                    raise DataError(
                        f"{path} has {received}, expected an array with one of the names {', '.join(_IMAGE_NAMES)}; "
                        "rename the array."
                    )
                labels = next((name for name in _LABEL_NAMES if name in names), None)
                data_path = scratch / "images.npy"
                shape, dtype = _unpack_array(archive, names[images], path, data_path)
                label_values = None if labels is None else _read_labels(archive, names[labels], path, shape[0])
        except DataError:
            raise  # a DataError is a ValueError
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
            raise DataError(f"{path} is not a readable .npz file ({error}); save it again.") from error
        super().__init__(data_path, 0, shape, dtype, label_values, path.name)


class IdxSource(_ArraySource):
    """Images of an IDX file and, optionally, labels of another IDX file. Both may be gzip files.

    The format is that of MNIST: 0, 0, type, number of dimensions, then each size as 4 bytes, big-endian.

    Args:
        path: IDX file of images.
        labels: IDX file of labels, or None.
        scratch: Local folder for unpacked files.

    Raises:
        DataError: If a file is not an IDX file of unsigned bytes.
        StorageError: If the disk is too small for the unpacked images.
    """

    def __init__(self, path: Path, labels: Path | None, scratch: Path):
        shape, data_path, offset = _unpack_idx(path, scratch / "images.idx", dimensions=(3, 4))
        label_values = None
        if labels is not None:
            sizes, labels_path, labels_offset = _unpack_idx(labels, scratch / "labels.idx", dimensions=(1,))
            label_values = np.fromfile(labels_path, np.uint8, sizes[0], offset=labels_offset)
        super().__init__(data_path, offset, shape, np.dtype(np.uint8), label_values, path.name)


def labels_file_name(name: str) -> str:
    """Returns the name of the label file for an IDX file of images, by the naming of MNIST."""
    return name.replace("images", "labels").replace("idx3", "idx1")


def _find_min_value(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype, name: str) -> float:
    """Returns the lower end of the range of all floats: 0 for [0, 1], or -1 for [-1, 1]."""
    low, high = np.inf, -np.inf
    for image in np.memmap(path, dtype, "r", offset, shape):
        finite = image[np.isfinite(image)]
        low, high = min(low, float(finite.min(initial=np.inf))), max(high, float(finite.max(initial=-np.inf)))
    if low < -1.0 or high > 1.0:
        raise DataError(f"{name} has floats from {low:g} to {high:g}, expected [0, 1] or [-1, 1]; scale them.")
    return -1.0 if low < 0.0 else 0.0


def _unpack_array(archive: zipfile.ZipFile, name: str, path: Path, target: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Copies the values of an array to a file, and returns its shape and type."""
    with archive.open(name) as member:
        shape, fortran_order, dtype = _read_header(member)
        if fortran_order or dtype.hasobject:
            raise DataError(
                f"{name} in {path} is stored in Fortran order or contains objects; save it as a C-ordered array of "
                "numbers."
            )
        num_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
        _copy(member, target, num_bytes, f"{name} in {path}")
    return shape, dtype


def _read_labels(archive: zipfile.ZipFile, name: str, path: Path, count: int) -> np.ndarray:
    with archive.open(name) as member:
        shape, _, dtype = _read_header(member)
        if len(shape) == 2 and shape[1] == 1:  # as in CIFAR-10 of Keras
            shape = shape[:1]
        if shape != (count,) or dtype.hasobject:
            raise DataError(
                f"{name} in {path} has shape {list(shape)}, expected one integer for each of {count} images; correct "
                "the labels."
            )
        return np.frombuffer(member.read(count * dtype.itemsize), dtype)


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    return readers[version](member)


def _unpack_idx(path: Path, target: Path, dimensions: tuple[int, ...]) -> tuple[tuple[int, ...], Path, int]:
    """Unpacks an IDX file if it is a gzip file.

    Args:
        path: IDX file.
        target: File for the unpacked values.
        dimensions: Allowed numbers of dimensions.

    Returns:
        The shape of the array, the file that contains its values, and their offset in bytes.
    """
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    if path.name.endswith(".gz") and not is_gzip:
        raise DataError(f"{path} is not a gzip file, despite its name; rename it without .gz.")
    try:
        with gzip.open(path) if is_gzip else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != _IDX_UINT8 or magic[3] not in dimensions:
                raise DataError(
                    f"{path} begins with {magic.hex(' ')}, expected 00 00 08 and {' or '.join(map(str, dimensions))} "
                    "dimensions; give an IDX file of unsigned bytes."
                )
            sizes = tuple(np.frombuffer(file.read(4 * magic[3]), ">u4").tolist())
            if is_gzip:
                _copy(file, target, int(np.prod(sizes, dtype=object)), str(path))
                return sizes, target, 0
            return sizes, path, 4 + 4 * magic[3]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a complete gzip file ({error}); copy it again.") from error


def _copy(member: SupportsRead, target: Path, num_bytes: int, name: str) -> None:
    """Copies exactly `num_bytes` bytes to a file, block by block."""
    num_free = shutil.disk_usage(target.parent).free
    if num_bytes > num_free:
        raise StorageError(
            f"{name} states {num_bytes:,} bytes of pixels, but {target.parent} has {num_free:,} free; set TMPDIR to "
            "another folder, or check the file."
        )
    remaining = num_bytes
    with target.open("wb") as file:
        while remaining and (block := member.read(min(remaining, _BLOCK_BYTES))):
            file.write(block)
            remaining -= len(block)
    if remaining:
        raise DataError(f"{name} is truncated: {remaining:,} of {num_bytes:,} bytes are missing; copy it again.")
