"""Images in arrays: .npz files, and the IDX files that MNIST comes in. Headers are checked before a pixel is read."""

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

_IMAGES = ("x", "x_train", "images", "arr_0")
_LABELS = ("y", "y_train", "labels", "arr_1")
_IDX_UINT8 = 0x08
_BLOCK = 2**20


class SupportsRead(Protocol):
    """What can be read from, block by block."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


class _ArraySource(Source):
    """Images that lie one after the other in a file from `offset` on.

    Args:
        path: The file.
        offset: Bytes before the first pixel.
        shape: (N, H, W) or (N, H, W, C).
        dtype: uint8, or floats in [0, 1] or [-1, 1].
        labels: Integers [N], or None.
        name: What a sentence calls it.

    Raises:
        DataError: Shape, type, range or labels are not those of images.
    """

    def __init__(
        self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype, labels: np.ndarray | None, name: str
    ) -> None:
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or 0 in shape[1:]:
            raise DataError(f"{name} has images of shape {list(shape)}, expected [N, H, W] or [N, H, W, 1 or 3].")
        if dtype != np.uint8 and dtype.kind != "f":
            raise DataError(f"{name} has images of type {dtype}, expected uint8, or floats in [0, 1] or [-1, 1].")
        if labels is not None and (labels.shape != shape[:1] or labels.dtype.kind not in "iu"):
            raise DataError(
                f"{name} has labels {labels.dtype} {list(labels.shape)} for {shape[0]} images; give an integer each."
            )
        if labels is not None and labels.size and labels.min() < 0:
            raise DataError(f"{name} has the label {labels.min()}, expected 0 or more.")
        self._lowest = 0.0 if dtype == np.uint8 else _lowest(path, offset, shape, dtype, name)
        self._file = path.open("rb")
        self._offset, self._shape, self._dtype = offset, (*shape[1:3], shape[3] if len(shape) == 4 else 1), dtype
        self._bytes_each = int(np.prod(self._shape)) * dtype.itemsize
        given = np.zeros(shape[0], np.int64) if labels is None else labels
        classes, numbers = np.unique(given, return_inverse=True)
        self.class_names = tuple(str(label) for label in classes)
        self.items = [Item(f"image {index} of {name}", int(label)) for index, label in enumerate(numbers)]

    def read(self, index: int) -> np.ndarray:
        content = os.pread(self._file.fileno(), self._bytes_each, self._offset + index * self._bytes_each)
        if len(content) < self._bytes_each:
            raise DataError("is cut short; copy the file again")
        values = np.frombuffer(content, self._dtype).reshape(self._shape)
        if values.dtype == np.uint8:
            return values
        if not np.isfinite(values).all():
            raise DataError("holds NaN or infinite pixels; mend it or leave it out")
        return np.rint((values - self._lowest) * (255.0 / (1.0 - self._lowest))).astype(np.uint8)

    def close(self) -> None:
        self._file.close()


class NpzSource(_ArraySource):
    """Images `x` (or `images`, `x_train`, `arr_0`) and labels `y` (or `labels`, `y_train`, `arr_1`) of a .npz file.

    Raises:
        DataError: It is no such file, has no images, or arrays of a shape or type that cannot be images.
        StorageError: The disk has no room for what is in it.
    """

    looked_for = f"looked for an array called {', '.join(_IMAGES)}."

    def __init__(self, path: Path, scratch: Path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = {name.removesuffix(".npy"): name for name in archive.namelist()}
                images = next((name for name in _IMAGES if name in names), None)
                if images is None:
                    raise DataError(f"{path} holds {', '.join(names) or 'nothing'}; {self.looked_for}")
                labels = next((name for name in _LABELS if name in names), None)
                held = scratch / "images.npy"
                shape, dtype, offset = _unpack(archive, names[images], path, held)
                of = None if labels is None else _labels(archive, names[labels], path, shape[0])
        except DataError:
            raise  # a ValueError, and a sentence already
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
            raise DataError(f"{path} is not a .npz file that can be read ({error}); save it again.") from error
        super().__init__(held, offset, shape, dtype, of, path.name)


class IdxSource(_ArraySource):
    """Images of an IDX file, gzipped or not, and labels of another, or none.

    Source: the format of MNIST's files: 0, 0, type, number of dimensions, then each size as 4 bytes, big-endian.

    Raises:
        DataError: It is not such a file, or of another type than unsigned bytes.
        StorageError: The disk has no room for what is in it.
    """

    def __init__(self, path: Path, labels: Path | None, scratch: Path):
        shape, held, offset = _unpack_idx(path, scratch / "images.idx", dimensions=(3, 4))
        of = None
        if labels is not None:
            sizes, labels_held, start = _unpack_idx(labels, scratch / "labels.idx", dimensions=(1,))
            of = np.fromfile(labels_held, np.uint8, sizes[0], offset=start)
        super().__init__(held, offset, shape, np.dtype(np.uint8), of, path.name)


def labels_beside(name: str) -> str:
    """The name of the labels that belong to an IDX file of images, as MNIST's files have it."""
    return name.replace("images", "labels").replace("idx3", "idx1")


def _lowest(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype, name: str) -> float:
    """0 where all floats are in [0, 1], -1 where they are in [-1, 1]."""
    low, high = np.inf, -np.inf
    for image in np.memmap(path, dtype, "r", offset, shape):
        finite = image[np.isfinite(image)]
        low, high = min(low, float(finite.min(initial=np.inf))), max(high, float(finite.max(initial=-np.inf)))
    if low < -1.0 or high > 1.0:
        raise DataError(f"{name} has floats from {low:g} to {high:g}, expected [0, 1] or [-1, 1]; scale them.")
    return -1.0 if low < 0.0 else 0.0


def _unpack(archive: zipfile.ZipFile, name: str, path: Path, held: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    """Copies an array to a file of its own, as many bytes as its header states: shape, type, and where it begins."""
    with archive.open(name) as member:
        shape, fortran_order, dtype = _header(member)
        if fortran_order or dtype.hasobject:
            raise DataError(f"{name} in {path} is stored column by column or holds objects; save it as a plain array.")
        num_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
        _copy(member, held, num_bytes, f"{name} in {path}")
    return shape, dtype, 0


def _labels(archive: zipfile.ZipFile, name: str, path: Path, count: int) -> np.ndarray:
    with archive.open(name) as member:
        shape, _, dtype = _header(member)
        if len(shape) == 2 and shape[1] == 1:  # as Keras's CIFAR-10 has them
            shape = shape[:1]
        if shape != (count,) or dtype.hasobject:
            raise DataError(f"{name} in {path} has shape {list(shape)} for {count} images, expected an integer each.")
        return np.frombuffer(member.read(count * dtype.itemsize), dtype)


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    return read[version](member)


def _unpack_idx(path: Path, held: Path, dimensions: tuple[int, ...]) -> tuple[tuple[int, ...], Path, int]:
    """Sizes, the plain file, and where its values begin."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    if path.name.endswith(".gz") and not zipped:
        raise DataError(f"{path} is not gzip, as its name says; rename it without .gz.")
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != _IDX_UINT8 or magic[3] not in dimensions:
                raise DataError(
                    f"{path} begins with {magic.hex(' ')}, expected 00 00 08 and {' or '.join(map(str, dimensions))} "
                    "dimensions: an IDX file of unsigned bytes."
                )
            sizes = tuple(np.frombuffer(file.read(4 * magic[3]), ">u4").tolist())
            if zipped:
                _copy(file, held, int(np.prod(sizes, dtype=object)), str(path))
                return sizes, held, 0
            return sizes, path, 4 + 4 * magic[3]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a gzip file that can be read to its end ({error}); copy it again.") from error


def _copy(member: SupportsRead, held: Path, num_bytes: int, name: str) -> None:
    """Copies so many bytes and no more, block by block."""
    free = shutil.disk_usage(held.parent).free
    if num_bytes > free:
        raise StorageError(
            f"{name} states {num_bytes:,} bytes of pixels, and {held.parent} has {free:,} free; name another folder in "
            "TMPDIR, or check the file."
        )
    left = num_bytes
    with held.open("wb") as target:
        while left and (block := member.read(min(left, _BLOCK))):
            target.write(block)
            left -= len(block)
    if left:
        raise DataError(f"{name} is cut short: {left:,} of {num_bytes:,} bytes are missing; copy it again.")
