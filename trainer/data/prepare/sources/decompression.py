"""Decompression of .gz, .bz2 and .xz files with little memory, whatever they contain.

The class `tarfile.TarFile` unpacks bzip2 and LZMA without a limit: a few bytes may become gigabytes in memory.
"""

import bz2
import functools
import gzip
import lzma
from collections.abc import Callable
from typing import IO, BinaryIO, cast

_BLOCK_BYTES = 2**20
MAX_DICTIONARY_BYTES = 2**27
"""Maximum memory for the dictionary of an LZMA decompressor in bytes."""


class _UnpackedFile:
    """A .bz2 or .xz file that is unpacked while it is read.

    Args:
        file: File, which may contain several streams.
        make_decompressor: Function that returns a decompressor for one stream.
    """

    def __init__(self, file: BinaryIO, make_decompressor: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]):
        self._file, self._make_decompressor = file, make_decompressor
        self._decompressor = make_decompressor()

    def read(self, size: int) -> bytes:
        """Returns at most `size` bytes; no bytes at the end of the file."""
        while True:
            data = b""
            if self._decompressor.eof:
                data = self._decompressor.unused_data.lstrip(b"\0") or self._file.read(_BLOCK_BYTES)
                if not data.strip(b"\0"):
                    return b""
                self._decompressor = self._make_decompressor()
            elif self._decompressor.needs_input and not (data := self._file.read(_BLOCK_BYTES)):
                raise EOFError("the file is truncated")
            if block := self._decompressor.decompress(data, size):
                return block


def unpack_stream(file: BinaryIO) -> IO[bytes]:
    """Returns a file with the unpacked content of a .gz, .bz2 or .xz file. Reading from it takes little memory."""
    magic = file.read(3)
    file.seek(0)
    if magic == b"\x1f\x8b\x08":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if magic == b"BZh":
        return cast(IO[bytes], _UnpackedFile(file, bz2.BZ2Decompressor))
    make_decompressor = functools.partial(lzma.LZMADecompressor, memlimit=MAX_DICTIONARY_BYTES)
    return cast(IO[bytes], _UnpackedFile(file, make_decompressor))
