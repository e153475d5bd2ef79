"""Sources for .npy and .npz files. Headers are checked before values are read, and no objects are unpickled."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

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
from trainer.errors import DataError, TrainerError, quote

_MAX_READ_BYTES = 2**20
"""Maximum number of bytes that one call reads: a block, the header of an array, or the directory of a .npz file."""
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
        try:
            with path.open("rb") as file, zipfile.ZipFile(_LimitedFile(file, path.name)) as archive:
                members = {_array_name(info): info for info in archive.infolist() if not info.is_dir()}
                if len(members) > MAX_ARRAYS:
                    raise DataError(f"{path} has {len(members):,} arrays, more than {MAX_ARRAYS:,}; divide it.")
                arrays = {name: _read_info(archive, info, path.name)[0] for name, info in members.items()}
                chosen = choose_fields(arrays, options, path.name)
                array = _unpack(archive, members[chosen.images], scratch / "images.npy", path.name)
                class_names, labels = None, None
                if chosen.class_names is not None:
                    values = _read_values(archive, members[chosen.class_names], path.name)
                    class_names = decode_texts(values, path.name).tolist()
                if chosen.labels is not None:
                    labels = _read_values(archive, members[chosen.labels], path.name, array.shape[0])
        except TrainerError:
            raise  # some are ValueErrors
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            raise DataError(f"{path} is not a readable .npz file ({error}); save it again.") from error
        labels = np.zeros(array.shape[0], np.int64) if labels is None else labels
        label_values, names = as_classes(labels, array.shape[0], class_names, path.name)
        super().__init__(array, label_values, names, options.image_range, chosen.notes)


class _LimitedFile(io.RawIOBase):
    """A file whose reads are limited, so that a false size in a header takes no memory.

    Args:
        file: File to read.
        name: Name of the file, for the message.
    """

    def __init__(self, file: IO[bytes], name: str):
        self._file, self._name = file, name

    def read(self, size: int = -1, /) -> bytes:
        """Returns at most `size` bytes."""
        content = self._file.read(_MAX_READ_BYTES + 1 if size < 0 else size) if size <= _MAX_READ_BYTES else None
        if content is None or len(content) > _MAX_READ_BYTES:
            raise DataError(
                f"{self._name} has a header or a directory of more than {_MAX_READ_BYTES:,} bytes, which no file of "
                "arrays needs; save it again."
            )
        return content

    def seekable(self) -> bool:
        return True

    def seek(self, *arguments: Any) -> int:
        return self._file.seek(*arguments)

    def tell(self) -> int:
        return self._file.tell()


def _array_name(info: zipfile.ZipInfo) -> str:
    return info.filename.removesuffix(_SUFFIX)


def _read_info(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: str) -> tuple[ArrayInfo, bool]:
    with _open(archive, info, source) as member:
        return _read_header(member, _member_name(info, source))


def _open(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: str) -> IO[bytes]:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a limit
        raise DataError(
            f"{_member_name(info, source)} is compressed by another method than deflate; save it with "
            "numpy.savez_compressed."
        )
    return archive.open(info)


def _member_name(info: zipfile.ZipInfo, source: str) -> str:
    return f"{quote(_array_name(info))} in {source}"


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, source: str) -> StoredArray:
    """Copies the values of an array of images to a file."""
    name = _member_name(member, source)
    with _open(archive, member, source) as file:
        info, fortran_order = _read_header(file, name)
        _check_order(fortran_order, info, name)
        check_images(info.shape, info.dtype, name)
        num_bytes = count_bytes(info.shape, info.dtype)
        check_size(num_bytes, member.file_size - file.tell(), name)
        copy_values(file, target, num_bytes, name)
    return StoredArray(target, 0, info.shape, info.dtype, source)


def _read_values(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: str, count: int | None = None
) -> np.ndarray:
    """Reads an array of labels for `count` images, or of class names."""
    name = _member_name(member, source)
    with _open(archive, member, source) as file:
        info, fortran_order = _read_header(file, name)
        _check_order(fortran_order and len(info.shape) > 1, info, name)
        check_labels(info, count, name)
        num_bytes = count_bytes(info.shape, info.dtype)
        check_size(num_bytes, member.file_size - file.tell(), name)
        blocks = []
        while block := file.read(_MAX_READ_BYTES):
            blocks.append(block)
    check_size(num_bytes, sum(map(len, blocks)), name)
    return np.frombuffer(b"".join(blocks), info.dtype).reshape(info.shape)


def _check_order(fortran_order: bool, info: ArrayInfo, name: str) -> None:
    if fortran_order or info.dtype.hasobject:
        raise DataError(
            f"{name} is stored in Fortran order or contains objects, which can run code; save it as a C-ordered array "
            "of numbers, such as numpy.ascontiguousarray(x)."
        )


def _read_header(file: IO[bytes], name: str) -> tuple[ArrayInfo, bool]:
    """Returns the shape and type of a .npy file, and True for Fortran order. The file is then at its first value."""
    readers: Mapping[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    limited: Any = _LimitedFile(file, name)
    try:
        version = np.lib.format.read_magic(limited)
        if version not in readers:
            raise ValueError(f"version {version}")
        shape, fortran_order, dtype = readers[version](limited, max_header_size=_MAX_HEADER_CHARACTERS)
        if any(type(size) is not int or size < 0 for size in shape) or dtype.itemsize == 0:
            raise ValueError(f"shape {quote(shape)}")
    except DataError:
        raise  # a DataError is a ValueError
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError, OverflowError) as error:
        raise DataError(f"{name} is not a readable .npy file ({quote(str(error))}); save it again.") from error
    return ArrayInfo(shape, dtype), fortran_order
