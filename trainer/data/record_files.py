"""Reads TFRecord files without TensorFlow, whose reader ends the process if a length is damaged."""

import itertools
from collections.abc import Iterator
from typing import Protocol

import google_crc32c

from trainer.errors import DataError

_HEADER_BYTES = 12
_LENGTH_BYTES = 8
_CRC_BYTES = 4
_MASK_DELTA = 0xA282EAD8


class SupportsRead(Protocol):
    """A file that is read from the beginning to the end."""

    def read(self, size: int, /) -> bytes:
        """Returns at most `size` bytes; no bytes at the end of the file."""


def split_records(file: SupportsRead, max_bytes: int) -> Iterator[bytes]:
    """Yields the records of a TFRecord file.

    A record is its length (uint64), the CRC of the length (uint32), the data, and the CRC of the data (uint32), all
    little-endian.

    Args:
        file: File.
        max_bytes: Maximum size of a record in bytes. Larger records are damaged.

    Raises:
        DataError: If a record is not complete, or a CRC does not match. The message completes a sentence that begins
            with the name of the file.
    """
    for number in itertools.count():
        header = file.read(_HEADER_BYTES)
        if not header:
            return
        length = int.from_bytes(header[:_LENGTH_BYTES], "little")
        is_intact = masked_crc(header[:_LENGTH_BYTES]) == header[_LENGTH_BYTES:] and length <= max_bytes
        record = file.read(length) if is_intact else b""
        if not is_intact or masked_crc(record) != file.read(_CRC_BYTES):
            raise DataError(f"is truncated or corrupt at record {number}")
        yield record


def masked_crc(content: bytes) -> bytes:
    """Returns the CRC32C of some bytes in the form that a TFRecord file stores."""
    crc = google_crc32c.value(content)
    return (((crc >> 15 | crc << 17) + _MASK_DELTA) % 2**32).to_bytes(_CRC_BYTES, "little")
