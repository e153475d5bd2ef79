"""Decompression with little memory, whatever a file contains.

The classes `zipfile.ZipExtFile` and `tarfile.TarFile` unpack bzip2 and LZMA without a limit: a few bytes may become
gigabytes in memory.
"""

import bz2
import functools
import gzip
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, BinaryIO, Protocol, cast

from trainer.errors import DataError

_BLOCK_BYTES = 2**20
_MAX_DICTIONARY_BYTES = 2**27
_LOCAL_HEADER_BYTES = 30
_ENCRYPTED = 0x1


class _Decompressor(Protocol):
    """Interface of the decompressors of `bz2` and `lzma`."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Inflater:
    """A decompressor of `zlib` with this interface."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


def unpack_member(descriptor: int, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yields the content of a member of a zip file in blocks.

    Args:
        descriptor: Descriptor of the open file.
        info: Member. No more than its `file_size` bytes are unpacked.

    Raises:
        DataError: If the member is encrypted, misplaced, or has an unknown compression method.
        Exception: If the content is damaged.
    """
    header = os.pread(descriptor, _LOCAL_HEADER_BYTES, info.header_offset)
    if info.flag_bits & _ENCRYPTED or not header.startswith(b"PK\3\4"):
        raise DataError("is encrypted, or is not where the archive states; pack the archive again without a password")
    offset = info.header_offset + _LOCAL_HEADER_BYTES + sum(struct.unpack("<HH", header[26:30]))
    end, remaining, data = offset + info.compress_size, info.file_size, b""
    decompressor: _Decompressor | None
    match info.compress_type:
        case zipfile.ZIP_STORED:
            decompressor = None
        case zipfile.ZIP_DEFLATED:
            decompressor = _Inflater()
        case zipfile.ZIP_BZIP2:
            decompressor = bz2.BZ2Decompressor()
        case zipfile.ZIP_LZMA:
            decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MAX_DICTIONARY_BYTES)
            data = os.pread(descriptor, 9, offset)[4:] + struct.pack("<Q", info.file_size)  # the header of that format
            offset += 9
        case _:
            raise DataError(f"has the compression method {info.compress_type}; pack the archive again with deflate")
    while remaining and (decompressor is None or not decompressor.eof):
        if not data and (decompressor is None or decompressor.needs_input):
            data = os.pread(descriptor, max(0, min(_BLOCK_BYTES, end - offset)), offset)
            offset += len(data)
        limit = min(remaining, _BLOCK_BYTES)
        block = data[:limit] if decompressor is None else decompressor.decompress(data, limit)
        if not block and not data and (decompressor is None or decompressor.needs_input):
            return  # the member or the archive is truncated
        data, remaining = b"", remaining - len(block)
        yield block


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
    make_decompressor = functools.partial(lzma.LZMADecompressor, memlimit=_MAX_DICTIONARY_BYTES)
    return cast(IO[bytes], _UnpackedFile(file, make_decompressor))
