"""Source for HDF5 files. Only datasets that are stored in the file itself are read."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.prepare.sources.arrays import (
    ArraySource,
    StoredArray,
    check_disk,
    check_images,
)
from trainer.data.prepare.sources.base import SourceOptions, explain_errors
from trainer.data.prepare.sources.fields import (
    MAX_ARRAYS,
    ArrayInfo,
    as_classes,
    check_labels,
    choose_fields,
    count_bytes,
)
from trainer.errors import DataError, quote

_MAX_DEPTH = 16
_MAX_CHUNK_BYTES = 2**28
_BLOCK_BYTES = 2**26
_MAX_TEXT_SECS = 8
_MAX_TEXT_MEMORY_BYTES = 2**31
_READ_TEXTS = """
import json, resource, sys
import h5py
path, name, limit = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
with h5py.File(path) as file:
    sys.stdout.write(json.dumps(file[name].asstr("utf-8")[...].tolist()))
"""
"""Program that writes the texts of an array as JSON."""


class Hdf5Source(ArraySource):
    """Images and, optionally, labels of an HDF5 file. The images are copied to `scratch`.

    Args:
        path: HDF5 file.
        scratch: Local folder for the images.
        options: Options of the source.

    Raises:
        ConfigError: If several arrays may be the images or the labels.
        DataError: If the file is damaged, has no images, or refers to other files.
        StorageError: If the disk is too small for the images.
    """

    def __init__(self, path: Path, scratch: Path, options: SourceOptions):
        import h5py

        with explain_errors(f"{path} is not a readable HDF5 file", "copy or save it again"), h5py.File(path) as file:
            arrays: dict[str, Any] = {}
            _find_arrays(file, "", arrays, {hash(file.id)})
            chosen = choose_fields({name: _describe(array) for name, array in arrays.items()}, options, path.name)
            array = _copy_images(
                arrays[chosen.images], scratch / "images.hdf5", f"{quote(chosen.images)} in {path.name}"
            )
            num_images, labels, class_names = array.shape[0], np.zeros(array.shape[0], np.int64), None
            if chosen.class_names is not None:
                class_names = _read_values(arrays[chosen.class_names], chosen.class_names, path.name, None).tolist()
            if chosen.labels is not None:
                labels = _read_values(arrays[chosen.labels], chosen.labels, path.name, num_images)
        values, names = as_classes(labels, num_images, class_names, path.name)
        super().__init__(array, values, names, options.image_range, chosen.notes)


def _find_arrays(group: Any, prefix: str, arrays: dict[str, Any], visited: set[int]) -> None:
    """Collects the datasets of a group and of its subgroups by their paths. Soft and external links are ignored."""
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        member, path = group[name], f"{prefix}{name}"
        if isinstance(member, h5py.Dataset):
            arrays[path] = member
        elif isinstance(member, h5py.Group) and hash(member.id) not in visited and path.count("/") < _MAX_DEPTH:
            visited.add(hash(member.id))
            _find_arrays(member, f"{path}/", arrays, visited)
        if len(arrays) > MAX_ARRAYS:
            raise DataError(f"{group.file.filename} has more than {MAX_ARRAYS:,} arrays; give a file of images.")


def _describe(array: Any) -> ArrayInfo:
    return ArrayInfo(tuple(array.shape or ()), array.dtype)


def _copy_images(array: Any, target: Path, name: str) -> StoredArray:
    """Copies the images to a file in C order."""
    shape, dtype = tuple(array.shape), array.dtype
    check_images(shape, dtype, name)
    _check_stored(array, name)
    num_bytes = count_bytes(shape, dtype)
    check_disk(target, num_bytes, name)
    rows = max(1, _BLOCK_BYTES // count_bytes(shape[1:], dtype))
    if array.chunks and array.chunks[0] <= rows:
        rows -= rows % array.chunks[0]  # each chunk is unpacked once
    with target.open("wb") as file:
        for start in range(0, shape[0], rows):
            file.write(np.ascontiguousarray(array[start : start + rows]).tobytes())
    return StoredArray(target, 0, shape, dtype, name)


def _read_values(array: Any, name: str, source: str, count: int | None) -> np.ndarray:
    """Reads labels for `count` images, or class names."""
    import h5py

    check_labels(_describe(array), count, f"{quote(name)} in {source}")
    _check_stored(array, f"{quote(name)} in {source}")
    if array.dtype.kind == "O":
        return _read_texts(array, f"{quote(name)} in {source}")
    if h5py.check_string_dtype(array.dtype) is not None:
        return array.asstr("utf-8")[...].astype(str)
    return array[...]


def _read_texts(array: Any, name: str) -> np.ndarray:
    """Reads texts of variable length in a process of its own: the HDF5 library may loop endlessly in a damaged file."""
    command = [sys.executable, "-I", "-c", _READ_TEXTS, array.file.filename, array.name, str(_MAX_TEXT_MEMORY_BYTES)]
    try:
        result = subprocess.run(command, capture_output=True, timeout=_MAX_TEXT_SECS, check=False)
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"{name} cannot be read within {_MAX_TEXT_SECS} s; store integers, or save it again."
        ) from error
    if result.returncode:
        raise DataError(f"{name} has no readable texts; store integers, or save it again as UTF-8.")
    return np.array(json.loads(result.stdout), str)


def _check_stored(array: Any, name: str) -> None:
    """Checks that all values are stored in the file: in no other file, and not as a fill value of any size."""
    if array.is_virtual or array.external:
        raise DataError(f"{name} is stored in other files; copy it into one HDF5 file.")
    num_bytes = count_bytes(array.shape, array.dtype)
    if array.chunks is None:
        is_complete = array.id.get_storage_size() >= num_bytes
    else:
        if count_bytes(array.chunks, array.dtype) > _MAX_CHUNK_BYTES:
            raise DataError(
                f"{name} has chunks of {count_bytes(array.chunks, array.dtype):,} bytes, more than "
                f"{_MAX_CHUNK_BYTES:,}; save it with smaller chunks."
            )
        counts = [-(-size // chunk) for size, chunk in zip(array.shape, array.chunks, strict=True)]
        is_complete = array.id.get_num_chunks() >= int(np.prod(counts, dtype=object))
    if not is_complete:
        raise DataError(f"{name} states {num_bytes:,} bytes, but not all of them are in the file; save it again.")
