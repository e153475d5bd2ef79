"""Sources for .npy and .npz files. Headers are checked before values are read, and no objects are unpickled."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from trainer.data.prepare.sources.arrays import (
    ArraySource,
    StoredArray,
    check_images,
    check_size,
    copy_values,
)
from trainer.data.prepare.sources.base import SourceOptions
from trainer.data.prepare.sources.fields import (
    MAX_ARRAYS,
    ArrayInfo,
    as_classes,
    check_labels,
    choose_fields,
    count_bytes,
    decode_texts,
)
from trainer.data.prepare.sources.zip_reader import MemberReader, ZipReader
from trainer.data.record_files import SupportsRead
from trainer.errors import DataError, quote

_MAX_DIRECTORY_BYTES = 2**20
"""Maximum size of the directory of a .npz file, far more than `MAX_ARRAYS` names need."""
_MAX_HEADER_BYTES = 2**20
_MAX_HEADER_CHARACTERS = 10_000
_SUFFIX = ".npy"


class NpySource(ArraySource):
    """Images of a .npy file. They have no labels.

    Args:
        path: .npy file.
        scratch: Not used.
        options: Options of the source.

    Raises:
        DataError: If the file is not a .npy file of images.
    """

    def __init__(self, path: Path, scratch: Path, options: SourceOptions):
        with path.open("rb") as file:
            info, fortran_order = _read_header(file, path.name)
            offset = file.tell()
        _check_order(fortran_order, info, path.name)
        check_images(info.shape, info.dtype, path.name)
        array = StoredArray(path, offset, info.shape, info.dtype, path.name)
        check_size(array.num_bytes, path.stat().st_size - offset, path.name)
        labels, class_names = as_classes(np.zeros(info.shape[0], np.int64), info.shape[0], None, path.name)
        super().__init__(array, labels, class_names, options.image_range)


class NpzSource(ArraySource):
    """Images and, optionally, labels of a .npz file.

    Args:
        path: .npz file.
        scratch: Local folder for the unpacked images.
        options: Options of the source.

    Raises:
        ConfigError: If several arrays may be the images or the labels.
        DataError: If the file is not a .npz file, has no images, or has arrays whose shape or type does not fit images.
        StorageError: If the disk is too small for the unpacked images.
    """

    def __init__(self, path: Path, scratch: Path, options: SourceOptions):
        with contextlib.closing(ZipReader(path, MAX_ARRAYS, _MAX_DIRECTORY_BYTES)) as archive:
            members = {info.filename.removesuffix(_SUFFIX): info for info in archive.members}

            def open_member(name: str) -> MemberReader:
                return archive.open(members[name], f"{quote(name)} in {path.name}")

            def read_info(name: str) -> ArrayInfo:
                file = open_member(name)  # it has an unpacked block, and is not kept
                return _read_header(file, file.name)[0]

            chosen = choose_fields({name: read_info(name) for name in members}, options, path.name)
            array = _unpack(open_member(chosen.images), scratch / "images.npy", path.name)
            class_names, labels = None, np.zeros(array.shape[0], np.int64)
            if chosen.class_names is not None:
                class_names = decode_texts(_read_values(open_member(chosen.class_names)), path.name).tolist()
            if chosen.labels is not None:
                labels = _read_values(open_member(chosen.labels), array.shape[0])
        label_values, names = as_classes(labels, array.shape[0], class_names, path.name)
        super().__init__(array, label_values, names, options.image_range, chosen.notes)


def _unpack(file: MemberReader, target: Path, source: str) -> StoredArray:
    """Copies the values of an array of images to another file."""
    info, fortran_order = _read_header(file, file.name)
    _check_order(fortran_order, info, file.name)
    check_images(info.shape, info.dtype, file.name)
    num_bytes = count_bytes(info.shape, info.dtype)
    check_size(num_bytes, file.num_left, file.name)
    copy_values(file, target, num_bytes, file.name)
    return StoredArray(target, 0, info.shape, info.dtype, source)


def _read_values(file: MemberReader, count: int | None = None) -> np.ndarray:
    """Reads an array of labels for `count` images, or of class names."""
    info, fortran_order = _read_header(file, file.name)
    _check_order(fortran_order and len(info.shape) > 1, info, file.name)
    check_labels(info, count, file.name)
    num_bytes = count_bytes(info.shape, info.dtype)
    check_size(num_bytes, file.num_left, file.name)
    return np.frombuffer(file.read(num_bytes), info.dtype).reshape(info.shape)


def _check_order(fortran_order: bool, info: ArrayInfo, name: str) -> None:
    if fortran_order or info.dtype.hasobject:
        raise DataError(
            f"{name} is stored in Fortran order or contains objects, which can run code; save it as a C-ordered array "
            "of numbers, such as numpy.ascontiguousarray(x)."
        )


class _Header:
    """A file of which only the header is read: a false length of the header takes no memory.

    Args:
        file: File.
    """

    def __init__(self, file: SupportsRead):
        self._file = file

    def read(self, size: int) -> bytes:
        """Returns at most `size` bytes."""
        if size > _MAX_HEADER_BYTES:
            raise ValueError(f"a header of {size:,} bytes")
        return self._file.read(size)


def _read_header(file: SupportsRead, name: str) -> tuple[ArrayInfo, bool]:
    """Returns the shape and type of a .npy file, and True for Fortran order. The file is then at its first value."""
    readers: Mapping[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    header: Any = _Header(file)
    try:
        version = np.lib.format.read_magic(header)
        if version not in readers:
            raise ValueError(f"version {version}")
        shape, fortran_order, dtype = readers[version](header, max_header_size=_MAX_HEADER_CHARACTERS)
        if any(type(size) is not int or size < 0 for size in shape) or dtype.itemsize == 0:
            raise ValueError(f"shape {quote(shape)}")
    except DataError:
        raise  # a DataError is a ValueError
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError, OverflowError) as error:
        raise DataError(f"{name} is not a readable .npy file ({quote(str(error))}); save it again.") from error
    return ArrayInfo(shape, dtype), fortran_order
