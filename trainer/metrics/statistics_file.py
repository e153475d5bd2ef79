"""Files of arrays: `.npz` files of known names, shapes and types, without compression and without objects.

A file of somebody else's bucket is data from outside: its size is limited by the arrays that are expected, and nothing
in it is trusted before it is compared with them.
"""

import io
import zipfile
from collections.abc import Mapping

import numpy as np

from trainer.errors import DocumentError
from trainer.storage import Location

Layout = Mapping[str, tuple[type[np.generic], tuple[int, ...]]]
"""Type and shape of each array by its name."""

_OVERHEAD_BYTES = 64 * 2**10
"""Maximum size of everything in a file except values."""


def write_arrays(file: Location, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a file completely or not at all.

    Raises:
        StorageError: If the file cannot be written.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type] # the names are not those of other arguments
    file.write_bytes(buffer.getvalue())


def read_arrays(file: Location, layout: Layout) -> dict[str, np.ndarray]:
    """Returns the arrays in a file, as read-only views of its content.

    Raises:
        MissingError: If the file does not exist.
        StorageError: If the file cannot be read, is too large, or does not have exactly these arrays, or if a value is
            not finite.
    """
    num_bytes = sum(np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in layout.values())
    content = file.read_bytes(max_bytes=num_bytes + _OVERHEAD_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            return {name: _read_array(members, name, dtype, shape) for name, (dtype, shape) in layout.items()}
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DocumentError(f"{file} is damaged or has other content than expected ({error}).") from error


def _read_array(members: zipfile.ZipFile, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    member = members.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:  # its size is then that of its content
        raise ValueError(f"array {name} is compressed")
    stream = io.BytesIO(members.read(member))
    np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0(stream)
    if header != (shape, False, np.dtype(dtype)):
        raise ValueError(f"array {name} has another shape or type")
    array = np.frombuffer(stream.getbuffer()[stream.tell() :], dtype)
    if array.size != np.prod(shape) or not np.isfinite(array).all():
        raise ValueError(f"array {name} has missing values, or values that are not finite")
    return array.reshape(shape)
