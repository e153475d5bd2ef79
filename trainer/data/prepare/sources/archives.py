"""Sources for zip and tar files. Members are read by position and never unpacked under their own names."""

import contextlib
import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

import numpy as np

from trainer.data.prepare.contents import MAX_FILE_BYTES
from trainer.data.prepare.sources.base import OneFileSource, Source, SourceOptions
from trainer.data.prepare.sources.decompression import unpack_stream
from trainer.data.prepare.sources.listing import is_needed, list_images
from trainer.data.prepare.sources.zip_reader import ZipReader
from trainer.errors import DataError, StorageError, TrainerError, escape
from trainer.storage import check_relative_name

MAX_MEMBERS = 500_000
"""Maximum number of members. Python keeps a record of each of them in memory."""
MAX_RATIO = 200
"""Maximum ratio of the unpacked size to the size of an archive, which compressed images are far below."""
_FREE_BYTES = 2**28
"""Unpacked size that is allowed for any archive."""
_MAX_HEADER_BYTES = 2**20
"""Maximum size of a header of a tar file that contains a long name or further attributes."""
_BLOCK_BYTES = 2**20
_MAX_DIRECTORY_BYTES = 2**28
"""Maximum size of the directory of a zip file, far more than `MAX_MEMBERS` names need."""
_HEADER_TYPES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class ZipSource(Source):
    """Images of a zip file. A backslash in a name, as some programs on Windows write it, is a separator.

    Args:
        path: Zip file.
        scratch: Not used.
        options: Options of the source.

    Raises:
        DataError: If the file is not a zip file, has too many members, or a member is a link, has an unsafe name or is
            too large.
    """

    has_files = True

    def __init__(self, path: Path, scratch: Path, options: SourceOptions):
        self._archive = ZipReader(path, MAX_MEMBERS, _MAX_DIRECTORY_BYTES)
        self._members = {_name_of(info): info for info in self._archive.members}
        try:
            for name, info in self._members.items():
                _check_name(path, name.removesuffix("/"))
                if is_needed(name):
                    if (info.external_attr >> 28) == 0xA:
                        raise DataError(f"{name} in {path} is a link; add the file itself to the archive.")
                    _check_size(path, name, info.file_size)
            _check_ratio(path, sum(info.file_size for name, info in self._members.items() if is_needed(name)))
            listing = list_images(self._members, path.name, _stem(path), options, self._read)
        except TrainerError:
            self.close()
            raise
        self.items, self.class_names, self.class_notes = listing.items, listing.class_names, listing.class_notes
        checksums = (self._members[item.name].CRC for item in self.items)
        self.content_digest = hashlib.sha256(np.fromiter(checksums, "<u4").tobytes()).hexdigest()
        self.notes = [*listing.notes, *_describe_repeated(map(_name_of, self._archive.members))]

    def num_bytes(self, index: int) -> int:
        return self._members[self.items[index].name].file_size

    def read(self, index: int) -> bytes:
        return self._read(self.items[index].name)

    def copy(self, index: int, target: Path) -> None:
        with target.open("wb") as file:
            file.writelines(self._archive.unpack(self._members[self.items[index].name]))

    def _read(self, name: str) -> bytes:
        return b"".join(self._archive.unpack(self._members[name]))

    def close(self) -> None:
        self._archive.close()


class TarSource(OneFileSource):
    """Images of a tar file. A compressed file has no index, so its images are copied to `scratch` in one pass.

    Args:
        path: Tar file.
        scratch: Local folder for the images of a compressed file.
        options: Options of the source.

    Raises:
        DataError: If the file is not a tar file, has too many members, or a member is a link, has an unsafe name or is
            too large.
        StorageError: If the disk is too small for the unpacked images.
    """

    def __init__(self, path: Path, scratch: Path, options: SourceOptions):
        self._ranges = {}
        names: list[str] = []
        data_path = path if is_uncompressed(path) else scratch / "members"
        with contextlib.ExitStack() as stack:
            stack.enter_context(explain_tar_errors(path, data_path.parent))
            target = None if data_path == path else stack.enter_context(data_path.open("wb"))
            for archive, member in read_tar(path, is_needed):
                names.append(f"{member.name}/" if member.isdir() else member.name)
                if member.isdir() or not is_needed(member.name):
                    continue
                offset = member.offset_data
                if target is not None:
                    offset = target.tell()
                    shutil.copyfileobj(cast(BinaryIO, archive.extractfile(member)), target)
                self._ranges[member.name] = offset, member.size
        self._file = data_path.open("rb")
        try:
            listing = list_images(dict.fromkeys(names), path.name, _stem(path), options, self._read)
        except TrainerError:
            self._file.close()
            raise
        self.items, self.class_names, self.class_notes = listing.items, listing.class_names, listing.class_notes
        self.notes = [*listing.notes, *_describe_repeated(names)]


def read_tar(
    path: Path, is_used: Callable[[str], bool]
) -> Generator[tuple[tarfile.TarFile, tarfile.TarInfo], None, None]:
    """Yields the members of a tar file in order, each with the archive, from which it can be extracted at this time.

    Use it in the context of `explain_tar_errors`.

    Args:
        path: Tar file, with or without compression.
        is_used: Function that returns whether the content of a file is used, by its name. Such a file is checked.

    Raises:
        DataError: If the file has too many members, or a member is a link, has an unsafe name or is too large.
    """
    if is_uncompressed(path):
        with tarfile.open(path, "r:", tarinfo=_Member) as archive:
            yield from _checked_members(path, archive, is_used, is_compressed=False)
        return
    with path.open("rb") as file:
        stream = unpack_stream(file)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive:
            yield from _checked_members(path, archive, is_used, is_compressed=True)
        _read_to_end(path, stream, archive.offset)


def _checked_members(
    path: Path, archive: tarfile.TarFile, is_used: Callable[[str], bool], *, is_compressed: bool
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    for number, member in enumerate(archive, 1):
        archive.members = []  # type: ignore[attr-defined]  # forgets the previous members
        if number > MAX_MEMBERS:
            raise DataError(f"{path} has more than {MAX_MEMBERS:,} members; unpack it and give the folder.")
        _check_name(path, member.name)
        if is_compressed:
            _check_ratio(path, member.offset_data + member.size)
        if not member.isdir() and is_used(member.name):
            if not member.isfile():
                raise DataError(f"{member.name} in {path} is a link; add the file itself to the archive.")
            _check_size(path, member.name, member.size)
        yield archive, member


@contextlib.contextmanager
def explain_tar_errors(path: Path, scratch: Path) -> Iterator[None]:
    """Converts the errors of reading a tar file, and of writing its content to a folder.

    Raises:
        DataError: If the file is not a complete tar file.
        StorageError: If the disk is too small for the unpacked files.
    """
    try:
        yield
    except TrainerError:
        raise
    except Exception as error:  # damaged headers and streams raise exceptions of several types
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError(f"{path} cannot be unpacked in {scratch} ({error}); free space there.") from error
        raise DataError(f"{path} is not a complete tar file ({escape(error)[:80]}); copy it again.") from error


class _Member(tarfile.TarInfo):
    """A member of a tar file whose damaged header is always an error.

    The class `tarfile.TarInfo` treats a damaged header after the first one as the end of the archive, so that the
    following members would be silently missing. It also reads headers of any size into memory.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"{error} at byte {archive.offset:,}") from error
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            if cast(BinaryIO, archive.fileobj).read(tarfile.BLOCKSIZE).strip(b"\0"):  # two empty blocks mark the end
                raise tarfile.ReadError(f"empty header at byte {archive.offset:,}") from None
            raise

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        is_header = member.type in _HEADER_TYPES
        if member.size < 0 or (is_header and member.size > _MAX_HEADER_BYTES):
            raise tarfile.ReadError(f"a header states {member.size:,} bytes")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("it contains a sparse file")
        return member


def is_uncompressed(path: Path) -> bool:
    """Returns whether a file begins like an uncompressed tar file."""
    try:
        with tarfile.open(path, "r:", tarinfo=_Member):
            return True
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    except Exception:  # a file that is not a tar file raises exceptions of several types
        return False


def _describe_repeated(names: Iterable[str]) -> list[str]:
    files = [name for name in names if not name.endswith("/")]
    count = len(files) - len(set(files))
    return [f"Files of the archive that later ones of the same name replace: {count:,}."] if count else []


def _name_of(info: zipfile.ZipInfo) -> str:
    return info.orig_filename.replace("\\", "/")


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def _check_name(path: Path, name: str) -> None:
    """Checks the name of a member. In an archive of `tar cf x.tar .`, names begin with `./`, and `.` is the folder."""
    if name != ".":
        check_relative_name(name.removeprefix("./"), path, DataError)


def _check_size(path: Path, name: str, num_bytes: int) -> None:
    if num_bytes > MAX_FILE_BYTES:
        raise DataError(
            f"{name} in {path} unpacks to {num_bytes:,} bytes, more than the allowed {MAX_FILE_BYTES:,}; "
            "remove it from the archive."
        )


def _check_ratio(path: Path, num_bytes: int) -> None:
    """Checks the unpacked size of all members."""
    if num_bytes > _FREE_BYTES + MAX_RATIO * path.stat().st_size:
        raise DataError(
            f"{path} unpacks to {num_bytes:,} bytes, more than {MAX_RATIO} times its size, as images never do; if you "
            "trust it, unpack it yourself and give the folder."
        )


def _read_to_end(path: Path, stream: IO[bytes], num_bytes: int) -> None:
    """Reads the end of a compressed file, where its checksum is."""
    while block := stream.read(_BLOCK_BYTES):
        num_bytes += len(block)
        _check_ratio(path, num_bytes)
