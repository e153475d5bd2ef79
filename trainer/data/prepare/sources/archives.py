"""Sources for zip and tar files. Members are read by position and never unpacked under their own names."""

import lzma
import shutil
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, cast

from trainer.data.prepare.sources.base import OneFileSource, Source, SourceOptions
from trainer.data.prepare.sources.listing import is_needed, list_images
from trainer.errors import DataError, StorageError, TrainerError
from trainer.storage import check_relative_name

MAX_MEMBER_BYTES = 2**28
"""Maximum unpacked size of a member in bytes, larger than 64 megapixels of RGB."""


class ZipSource(Source):
    """Images of a zip file. A backslash in a name, as some programs on Windows write it, is a separator.

    Args:
        path: Zip file.
        scratch: Not used.
        options: Options of the source.

    Raises:
        DataError: If the file is not a zip file, or a member is a link, has an unsafe name or is too large.
    """

    def __init__(self, path: Path, scratch: Path, options: SourceOptions):
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{path} is not a readable zip file ({error}); copy it again.") from error
        self._members = {info.orig_filename.replace("\\", "/"): info for info in self._archive.infolist()}
        for name, info in self._members.items():
            _check_name(path, name.removesuffix("/"))
            if is_needed(name):
                if (info.external_attr >> 28) == 0xA:
                    raise DataError(f"{name} in {path} is a link; add the file itself to the archive.")
                _check_size(path, name, info.file_size)
        self._lock = threading.Lock()
        listing = list_images(self._members, path.name, _stem(path), options, self._read)
        self.items, self.class_names = listing.items, listing.class_names
        self.notes = [*listing.notes, *_describe_repeated(info.orig_filename for info in self._archive.infolist())]

    def read(self, index: int) -> bytes:
        return self._read(self.items[index].name)

    def _read(self, name: str) -> bytes:
        try:
            with self._lock, self._archive.open(self._members[name]) as member:
                content = member.read(MAX_MEMBER_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise DataError(
                f"cannot be unpacked ({error}); the archive is damaged, encrypted or in an unknown format"
            ) from error
        if len(content) > MAX_MEMBER_BYTES:
            raise DataError(f"unpacks to more than {MAX_MEMBER_BYTES:,} bytes, which no image needs")
        return content

    def close(self) -> None:
        self._archive.close()


class TarSource(OneFileSource):
    """Images of a tar file. A compressed file has no index, so its images are copied to `scratch` in one pass.

    Args:
        path: Tar file.
        scratch: Local folder for the images of a compressed file.
        options: Options of the source.

    Raises:
        DataError: If the file is not a tar file, or a member is a link, has an unsafe name or is too large.
        StorageError: If the disk is too small for the unpacked images.
    """

    def __init__(self, path: Path, scratch: Path, options: SourceOptions):
        self._ranges = {}
        self._names: list[str] = []
        data_path = path if _is_uncompressed(path) else scratch / "members"
        try:
            if data_path == path:
                with tarfile.open(path, "r:", tarinfo=_Member) as archive:
                    self._list(path, archive, None)
            else:
                with tarfile.open(path, "r|*", tarinfo=_Member) as archive, data_path.open("wb") as target:
                    self._list(path, archive, target)
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise DataError(f"{path} is not a complete tar file ({error}); copy it again.") from error
        except OSError as error:
            raise StorageError(
                f"{path} cannot be unpacked in {data_path.parent} ({error}); free space there."
            ) from error
        self._file = data_path.open("rb")
        try:
            listing = list_images(dict.fromkeys(self._names), path.name, _stem(path), options, self._read)
        except TrainerError:
            self._file.close()
            raise
        self.items, self.class_names = listing.items, listing.class_names
        self.notes = [*listing.notes, *_describe_repeated(self._names)]

    def _list(self, path: Path, archive: tarfile.TarFile, target: BinaryIO | None) -> None:
        """Sets the range of each needed file: in `target`, to which it is copied, or in the archive if it is None."""
        for member in archive:
            _check_name(path, member.name)
            self._names.append(f"{member.name}/" if member.isdir() else member.name)
            if member.isdir() or not is_needed(member.name):
                continue
            if not member.isfile():
                raise DataError(f"{member.name} in {path} is a link; add the file itself to the archive.")
            _check_size(path, member.name, member.size)
            offset = member.offset_data
            if target is not None:
                offset = target.tell()
                shutil.copyfileobj(cast(BinaryIO, archive.extractfile(member)), target)
            self._ranges[member.name] = offset, member.size


class _Member(tarfile.TarInfo):
    """A member of a tar file whose damaged header is always an error.

    The class `tarfile.TarInfo` treats a damaged header after the first one as the end of the archive, so that the
    following members would be silently missing.
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


def _is_uncompressed(path: Path) -> bool:
    """Returns whether a file begins like an uncompressed tar file."""
    try:
        with tarfile.open(path, "r:"):
            return True
    except tarfile.ReadError:
        return False
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


def _describe_repeated(names: Iterable[str]) -> list[str]:
    files = [name for name in names if not name.endswith(("/", "\\"))]
    count = len(files) - len(set(files))
    return [f"Files of the archive that later ones of the same name replace: {count:,}."] if count else []


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def _check_name(path: Path, name: str) -> None:
    """Checks the name of a member. In an archive of `tar cf x.tar .`, names begin with `./`, and `.` is the folder."""
    if name != ".":
        check_relative_name(name.removeprefix("./"), path, DataError)


def _check_size(path: Path, name: str, num_bytes: int) -> None:
    if num_bytes > MAX_MEMBER_BYTES:
        raise DataError(
            f"{name} in {path} unpacks to {num_bytes:,} bytes, more than the allowed {MAX_MEMBER_BYTES:,}; "
            "remove it from the archive."
        )
