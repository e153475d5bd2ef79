"""Opens local files that may have been put in place by somebody else."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from trainer.errors import DataError


def open_regular_file(path: Path, max_bytes: int) -> BinaryIO:
    """Opens a regular file for reading. Devices and named pipes, which may block or never end, are rejected.

    Args:
        path: File, or a link to it.
        max_bytes: Maximum size in bytes.

    Returns:
        The open file, which is not empty.

    Raises:
        DataError: If the file cannot be used. The message completes a sentence that begins with the file's name.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # a ValueError for a name with a NUL
        raise DataError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    status = os.fstat(descriptor)
    try:
        if not stat.S_ISREG(status.st_mode):
            raise DataError("is not a regular file; remove it")
        check_file_size(status.st_size, max_bytes)
    except DataError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def check_file_size(num_bytes: int, max_bytes: int) -> None:
    """Checks the size of a file before its content is read.

    Raises:
        DataError: If the file is empty or too large. The message completes a sentence that begins with its name.
    """
    if not num_bytes:
        raise DataError("is empty; delete it or copy it again")
    if num_bytes > max_bytes:
        raise DataError(f"has {num_bytes:,} bytes, more than the allowed {max_bytes:,}; make it smaller")
