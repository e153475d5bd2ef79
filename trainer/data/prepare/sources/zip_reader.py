"""Reads zip files, also .npz files, with little memory, whatever they contain.

The class `zipfile.ZipExtFile` unpacks bzip2 and LZMA without a limit, and `zipfile.ZipFile` creates a record of each
member, of which a file may have millions.
"""

import bz2
import io
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from trainer.data.prepare.sources.decompression import MAX_DICTIONARY_BYTES
from trainer.errors import DataError, TrainerError, escape
from trainer.storage.local_files import SYSTEM_REMEDIES

_BLOCK_BYTES = 2**20
_LOCAL_HEADER_BYTES = 30
_DIRECTORY_ENTRY = b"PK\1\2"
_ENCRYPTED = 0x1


class ZipReader:
    """An open zip file. Close it after use.

    Args:
        path: Zip file.
        max_members: Maximum number of members.
        max_directory_bytes: Maximum size of the directory, which contains the names of the members.

    Attributes:
        members: Members in the order of the directory.

    Raises:
        DataError: If the file is not a zip file, or exceeds a limit.
    """

    members: Sequence[zipfile.ZipInfo]

    def __init__(self, path: Path, max_members: int, max_directory_bytes: int):
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
        try:
            directory: Any = _Directory(self._file, path, max_members, max_directory_bytes)
            with zipfile.ZipFile(directory) as archive:
                self.members = archive.infolist()
        except Exception as error:  # damaged directories raise exceptions of several types
            self._file.close()
            if isinstance(error, TrainerError):
                raise
            raise DataError(
                f"{path} is not a readable {path.suffix} file ({escape(error)[:80]}); copy or save it again."
            ) from error

    def unpack(self, member: zipfile.ZipInfo) -> Iterator[bytes]:
        """Yields the content of a member in blocks, and never more bytes than the directory states.

        The checksum is verified before the last block is yielded.

        Raises:
            DataError: If the content is damaged, encrypted, or in an unknown format. The message completes a sentence
                that begins with the name of the member.
            OSError: If the system cannot read the file, which may be intact.
        """
        remaining, checksum = member.file_size, 0
        try:
            for block in _unpack(self._file.fileno(), member):
                remaining -= len(block)
                checksum = zlib.crc32(block, checksum)
                if not remaining and checksum != member.CRC:
                    break
                yield block
        except DataError:
            raise
        except Exception as error:  # the decompressors raise exceptions of several types
            if isinstance(error, OSError) and error.errno in SYSTEM_REMEDIES:
                raise  # the archive may be intact
            raise DataError(
                f"cannot be unpacked ({escape(error)[:80]}); the archive is damaged, encrypted or in an unknown format"
            ) from error
        if remaining or checksum != member.CRC:
            raise DataError("does not have the size and checksum that the archive states; copy the archive again")

    def open(self, member: zipfile.ZipInfo, name: str) -> "MemberReader":
        """Returns a file with the content of a member.

        Args:
            member: Member.
            name: Name of the member, for the messages of errors while it is read.
        """
        return MemberReader(self.unpack(member), member.file_size, name)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class MemberReader:
    """The unpacked content of a member of a zip file, which is read once from the beginning to the end.

    Args:
        blocks: Content.
        size: Size of the content in bytes that the directory states.
        name: Name of the member, for messages.

    Attributes:
        name: Name of the member.
        num_left: Number of bytes that are not read yet.
    """

    def __init__(self, blocks: Iterator[bytes], size: int, name: str):
        self._blocks, self._buffer = blocks, b""
        self.num_left, self.name = size, name

    def read(self, size: int, /) -> bytes:
        """Returns the next `size` bytes, or fewer at the end.

        Raises:
            DataError: If the member is damaged.
        """
        parts: list[bytes] = []
        missing = size
        while missing and (self._buffer or self._next_block()):
            parts.append(self._buffer[:missing])
            self._buffer = self._buffer[missing:]
            missing -= len(parts[-1])
        self.num_left -= size - missing
        return b"".join(parts)

    def _next_block(self) -> bool:
        try:
            self._buffer = next(filter(None, self._blocks), b"")
        except DataError as error:
            raise DataError(f"{self.name} {error}.") from error
        return bool(self._buffer)


class _Directory(io.RawIOBase):
    """A zip file for `zipfile.ZipFile`, which reads only the directory. The limits apply before records are made.

    Args:
        file: Zip file.
        path: Path of the file, for the message.
        max_members: Maximum number of members.
        max_bytes: Maximum size of the directory.
    """

    def __init__(self, file: BinaryIO, path: Path, max_members: int, max_bytes: int):
        self._file, self._path, self._max_members, self._max_bytes = file, path, max_members, max_bytes

    def read(self, size: int = -1, /) -> bytes:
        """Returns `size` bytes; all bytes up to the end if `size` is negative."""
        num_left = max(0, os.fstat(self._file.fileno()).st_size - self._file.tell())
        num_bytes = num_left if size < 0 else min(size, num_left)
        content = self._file.read(num_bytes) if num_bytes <= self._max_bytes else b""
        if num_bytes > self._max_bytes or content.count(_DIRECTORY_ENTRY) > self._max_members:
            raise DataError(
                f"{self._path} has more than {self._max_members:,} members, or a directory of more than "
                f"{self._max_bytes:,} bytes; divide or unpack it."
            )
        return content

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


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


def _unpack(descriptor: int, info: zipfile.ZipInfo) -> Iterator[bytes]:
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
            decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_DICTIONARY_BYTES)
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
