"""Files of arrays whose names, types and shapes are known: `.npz` files without compression and without objects.

A file may be in somebody else's bucket. Its size is limited by that of the expected arrays, and nothing is read from it
but values.
"""

import io
import math
import re
import zipfile
from collections.abc import Mapping

import numpy as np

from trainer.errors import DocumentError, escape
from trainer.storage import Location
from trainer.storage.local import LocalLocation
from trainer.storage.local_files import remove_leftovers

Layout = Mapping[str, tuple[type[np.generic], tuple[int, ...]]]
"""Type and shape of each array by its name."""

_OVERHEAD_BYTES = 64 * 2**10
"""Maximum size of everything in a file except values."""
_MAX_VALUE = 1e30
"""Maximum absolute value. Cubes of inner products of such values are still finite in float64."""
_DIRECTORY_ENTRY = b"PK\1\2"
_MAX_DIRECTORY_ENTRIES = 1000
"""Maximum number of members. More than there are arrays, because values may look like an entry by chance."""


def write_arrays(file: Location, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a file completely or not at all.

    Raises:
        StorageError: If the file cannot be written.
    """
    if isinstance(file, LocalLocation):
        remove_leftovers(file.path.parent, re.escape(file.name))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type] # no array has the name of another argument
    file.write_bytes(buffer.getvalue())


def read_arrays(file: Location, layout: Layout) -> dict[str, np.ndarray]:
    """Returns the arrays of a file. They are read-only.

    Raises:
        MissingError: If the file does not exist.
        StorageError: If the file cannot be read, is larger than the arrays of the layout, does not have them, or has
            values that are too large or not finite.
    """
    num_bytes = sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in layout.values())
    content = file.read_bytes(max_bytes=num_bytes + _OVERHEAD_BYTES)
    try:
        if content.count(_DIRECTORY_ENTRY) > _MAX_DIRECTORY_ENTRIES:  # ZipFile creates a record of each
            raise ValueError("too many members")
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            return {name: _read_array(members, name, dtype, shape) for name, (dtype, shape) in layout.items()}
    except Exception as error:  # damaged archives and headers raise exceptions of many types
        raise DocumentError(
            f"{file} is damaged, or is not a file of statistics ({escape(error)[:80]}); delete it."
        ) from error


def _read_array(members: zipfile.ZipFile, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    member = members.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:  # it could have any size
        raise ValueError(f"{name} is compressed")
    content = members.read(member)
    stream = io.BytesIO(content)
    np.lib.format.read_magic(stream)
    if np.lib.format.read_array_header_1_0(stream) != (shape, False, np.dtype(dtype)):
        raise ValueError(f"{name} has another shape or type")
    array = np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape)
    if not (array.min() >= -_MAX_VALUE and array.max() <= _MAX_VALUE):  # also rejects NaN
        raise ValueError(f"{name} has values that are too large or not finite")
    return array
