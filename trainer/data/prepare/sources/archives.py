"""Images in a zip or tar file, read where they lie: nothing is unpacked under a name that the archive chose."""

import lzma
import shutil
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from trainer.data.prepare.sources.base import OneFileSource, Source, by_class, image_names
from trainer.errors import DataError, StorageError
from trainer.storage import check_relative_name

MAX_MEMBER_BYTES = 2**28
"""Bytes that a member may have when it is unpacked: more than 64 megapixels of RGB need."""


class ZipSource(Source):
    """The images of a zip file.

    Raises:
        DataError: It is no zip file, or a member has a name outside of it or too many bytes.
    """

    def __init__(self, path: Path, scratch: Path):
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{path} is not a zip file that can be read ({error}); copy it again.") from error
        infos = {info.filename: info for info in self._archive.infolist() if not info.is_dir()}
        names = image_names(infos)
        for info in infos.values():
            _check_name(path, info.orig_filename)
        for name in names:
            if (infos[name].external_attr >> 28) == 0xA:
                raise DataError(f"{name} in {path} is a link; put the file itself into the archive.")
            _check_size(path, name, infos[name].file_size)
        self._lock = threading.Lock()
        self.items, self.class_names = by_class(names, _stem(path))

    def read(self, index: int) -> bytes:
        try:
            with self._lock, self._archive.open(self.items[index].name) as member:
                content = member.read(MAX_MEMBER_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise DataError(
                f"cannot be unpacked ({error}); the archive is damaged, encrypted or of an unknown kind"
            ) from error
        if len(content) > MAX_MEMBER_BYTES:
            raise DataError(f"unpacks to more than {MAX_MEMBER_BYTES:,} bytes; it is no image")
        return content

    def close(self) -> None:
        self._archive.close()


class TarSource(OneFileSource):
    """The images of a tar file. Those of a compressed one are copied to `scratch` in one pass, for it has no index.

    Raises:
        DataError: It is no tar file, or a member is a link, has a name outside of it or too many bytes.
        StorageError: The disk has no room for what is in it.
    """

    def __init__(self, path: Path, scratch: Path):
        self._places = {}
        held = path if _is_plain(path) else scratch / "members"
        try:
            if held == path:
                with tarfile.open(path, "r:", tarinfo=_Member) as archive:
                    self._list(path, archive, None)
            else:
                with tarfile.open(path, "r|*", tarinfo=_Member) as archive, held.open("wb") as target:
                    self._list(path, archive, target)
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise DataError(
                f"{path} is not a tar file that can be read to its end ({error}); copy it again."
            ) from error
        except OSError as error:
            raise StorageError(f"{path} cannot be unpacked in {held.parent} ({error}); free space there.") from error
        self._file = held.open("rb")
        self.items, self.class_names = by_class(list(self._places), _stem(path))

    def _list(self, path: Path, archive: tarfile.TarFile, target: BinaryIO | None) -> None:
        """Notes where each image lies in `target`, which it is copied to, or else in the archive itself."""
        for member in archive:
            _check_name(path, member.name)
            if not image_names([member.name]) or member.isdir():
                continue
            if not member.isfile():
                raise DataError(f"{member.name} in {path} is a link; put the file itself into the archive.")
            _check_size(path, member.name, member.size)
            offset = member.offset_data
            if target is not None:
                offset = target.tell()
                shutil.copyfileobj(cast(BinaryIO, archive.extractfile(member)), target)
            self._places[member.name] = offset, member.size


class _Member(tarfile.TarInfo):
    """A member of a tar file. A damaged header is an error, wherever it lies: tarfile takes any but the first for the
    archive's end, and what follows would be missing without a word."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"{error} at byte {archive.offset:,}") from error
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            if cast(BinaryIO, archive.fileobj).read(tarfile.BLOCKSIZE).strip(b"\0"):  # an end is two empty blocks
                raise tarfile.ReadError(f"an empty header at byte {archive.offset:,}") from None
            raise


def _is_plain(path: Path) -> bool:
    """Whether a tar file is one that is not compressed, by how it begins."""
    try:
        with tarfile.open(path, "r:"):
            return True
    except tarfile.ReadError:
        return False
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def _check_name(path: Path, name: str) -> None:
    """Checks the name of a member; one of `tar cf x.tar .` begins with `./`, and `.` is the folder itself."""
    if name != ".":
        check_relative_name(name.removeprefix("./"), path, DataError)


def _check_size(path: Path, name: str, num_bytes: int) -> None:
    if num_bytes > MAX_MEMBER_BYTES:
        raise DataError(
            f"{name} in {path} unpacks to {num_bytes:,} bytes, more than the {MAX_MEMBER_BYTES:,} of any image "
            "that is taken; leave it out."
        )
