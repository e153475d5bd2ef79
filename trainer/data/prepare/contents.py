"""Contents of images before they are decoded: bytes, files, or pixels; and their digests."""

import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from trainer.errors import DataError, StorageError
from trainer.storage.local_files import SYSTEM_REMEDIES, describe_os_error, open_regular

MAX_FILE_BYTES = 2**28
"""Maximum size of an image file in bytes, larger than 64 megapixels of RGB."""
NUM_DIGITS = 32
"""Number of hexadecimal digits of the digest of an example: 128 bits."""
_BLOCK_BYTES = 2**20


class TemporaryCopy(NamedTuple):
    """A local copy of an image file, which is deleted when it is opened."""

    path: Path


Content = bytes | Path | TemporaryCopy | np.ndarray
"""Image as the bytes of a file, the path of a file, or pixels uint8 [H, W, C]."""


def check_file_size(num_bytes: int) -> None:
    """Checks the size of an image file before its content is read.

    Raises:
        DataError: If the file is empty or too large. The message completes a sentence that begins with its name.
    """
    if not num_bytes:
        raise DataError("is empty; delete it or copy it again")
    if num_bytes > MAX_FILE_BYTES:
        raise DataError(f"has {num_bytes:,} bytes, more than the allowed {MAX_FILE_BYTES:,}; make it smaller")


def open_content(content: bytes | Path | TemporaryCopy) -> BinaryIO:
    """Opens an image file for reading, and deletes it if it is a temporary copy.

    Raises:
        DataError: If the file does not exist, is not a regular file, is empty, or is too large. The message completes a
            sentence that begins with its name.
        StorageError: If the system cannot read the file, which may be intact.
    """
    if isinstance(content, bytes):
        check_file_size(len(content))
        return io.BytesIO(content)
    path = content if isinstance(content, Path) else content.path
    try:
        file = open_regular(path, "rb", follow_links=True)
    except (OSError, ValueError) as error:  # a ValueError for a name with a NUL
        check_system(error, path)
        raise DataError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if isinstance(content, TemporaryCopy):
        path.unlink()
    try:
        check_file_size(os.fstat(file.fileno()).st_size)
    except DataError:
        file.close()
        raise
    return file


def check_system(error: Exception, path: object) -> None:
    """Checks that an error is not one of the disk, of permissions, or of limits, which may concern intact images.

    Raises:
        StorageError: If it is.
    """
    if isinstance(error, OSError) and error.errno in SYSTEM_REMEDIES:
        raise StorageError(f"{describe_os_error(error, path, 'read')}.") from error


def digest_content(content: Content) -> bytes:
    """Returns the SHA-256 of an image file, or of the shape and the pixels of an array.

    Raises:
        DataError, StorageError: As `open_content`.
    """
    if isinstance(content, np.ndarray):
        return hashlib.sha256(f"{content.shape}".encode() + content.tobytes()).digest()
    with open_content(content) as file:
        try:
            return digest_file(file)
        except OSError as error:
            check_system(error, getattr(content, "path", content))
            raise DataError(f"cannot be read ({error.strerror or error})") from error


def digest_file(file: BinaryIO) -> bytes:
    """Returns the SHA-256 of a file, and sets its position to the beginning."""
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(_BLOCK_BYTES), b""):
        digest.update(block)
    file.seek(0)
    return digest.digest()


def join_digests(digests: list[bytes]) -> bytes:
    """Returns the digest of an example from those of its image and of its input; empty if one of them is empty."""
    return hashlib.sha256(b"".join(digests)).hexdigest()[:NUM_DIGITS].encode() if all(digests) else b""
