"""Locations on the local disk."""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from trainer.errors import MissingError, StorageError
from trainer.storage.base import Location, StorageEntry, too_large
from trainer.storage.local_files import check_replaceable, describe_os_error, open_regular, write_atomically
from trainer.storage.safe_names import check_relative_name

_BLOCK_BYTES = 2**20


class LocalLocation(Location):
    """A path on this machine."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def parent(self) -> "LocalLocation":
        return LocalLocation(self.path.parent)

    def __truediv__(self, name: str) -> "LocalLocation":
        return LocalLocation(self.path / name)

    def exists(self) -> bool:
        return self.path.is_file()

    def num_bytes(self) -> int:
        try:
            status = self.path.stat()
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        except (OSError, ValueError) as error:
            raise _explain(error, self.path, "read") from error
        return status.st_size

    def entries(self, *, recursive: bool = True) -> Iterator[StorageEntry]:
        for name in sorted(_list_names(self.path, recursive)):
            num_bytes = _file_size(self.path, name, recursive)
            if num_bytes is not None:
                yield StorageEntry(name, num_bytes)

    def read_bytes(self, max_bytes: int | None = None) -> bytes:
        try:
            with open_regular(self.path, "rb", follow_links=True) as file:
                content = file.read(-1 if max_bytes is None else max_bytes + 1)
        except (OSError, ValueError) as error:  # ValueError: the name has a NUL
            raise _explain(error, self.path, "read") from error
        if max_bytes is not None and len(content) > max_bytes:
            raise too_large(self, max_bytes)
        return content

    def write_bytes(self, content: bytes, *, only_new: bool = False) -> None:
        if only_new and self.path.exists():
            raise StorageError(f"{self.path} already exists; choose another name.")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, content)
        except OSError as error:
            raise _explain(error, self.path, "written") from error

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                (self.path / name).unlink(missing_ok=True)
            except OSError as error:
                raise _explain(error, self.path / name, "deleted") from error

    def download(self, files: Mapping[str, Path], *, check: Callable[[], object] | None = None) -> None:
        for name, target in files.items():
            if check is not None:
                check()
            _copy(self.path / check_relative_name(name, self), target)

    def upload(self, folder: Path, names: Sequence[str], *, only_new: bool = False) -> None:
        for name in names:
            if only_new and (self.path / name).exists():
                raise StorageError(f"{self.path / name} already exists; choose another folder.")
            _copy(folder / name, self.path / name)


def check_new_file(file: Location) -> None:
    """Rejects a location that cannot become a file, before the work whose result it gets.

    Raises:
        StorageError: If it is a local folder, pipe, socket or device.
    """
    if isinstance(file, LocalLocation):
        try:
            check_replaceable(file.path)
        except OSError as error:
            raise _explain(error, file.path, "written") from error


class AppendOnlyFolder(LocalLocation):
    """A folder of files that only grow, such as logs: an upload appends the missing bytes.

    A program that has a file open, such as TensorBoard, would not notice that the file was replaced. Nothing is
    overwritten, so `only_new` has no effect.
    """

    def upload(self, folder: Path, names: Sequence[str], *, only_new: bool = False) -> None:
        for name in names:
            _append(folder / name, self.path / name)


def _list_names(folder: Path, recursive: bool) -> Iterator[str]:
    """Yields the names of the files in a folder, including broken links."""
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while pending:
        prefix, ancestors = pending.pop()
        try:
            status = (folder / prefix).stat()
            identity = status.st_dev, status.st_ino
            if identity in ancestors:
                continue
            with os.scandir(folder / prefix) as entries:
                names = {f"{prefix}{entry.name}": _is_folder(entry) for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            continue  # the folder does not exist, or was deleted meanwhile
        except OSError as error:
            if _is_hidden(prefix):
                continue
            raise _explain(error, folder / prefix, "read") from error
        yield from (name for name, is_folder in names.items() if not is_folder)
        if recursive:
            pending.extend((f"{name}/", ancestors | {identity}) for name, is_folder in names.items() if is_folder)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _file_size(folder: Path, name: str, recursive: bool) -> int | None:
    """Returns the size in bytes of a file in a folder, or None if the listing skips the file."""
    path = folder / name
    try:
        return path.stat().st_size
    except OSError as error:
        is_link, is_missing = path.is_symlink(), isinstance(error, FileNotFoundError)
        if _is_hidden(name) or (not recursive if is_link else is_missing):
            return None
        if is_link:
            raise StorageError(f"{path} is a broken link ({error.strerror}); repair or delete it.") from error
        raise _explain(error, path, "read") from error


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _copy(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        check_replaceable(target)
        with open_regular(source, "rb", follow_links=True) as reader, partial.open("wb") as writer:
            shutil.copyfileobj(reader, writer, _BLOCK_BYTES)
        os.replace(partial, target)
    except OSError as error:
        with contextlib.suppress(OSError):  # its folder is a file
            partial.unlink(missing_ok=True)
        is_read_error = error.filename == str(source) and error.filename2 is None
        path, operation = (source, "read") if is_read_error else (target, "written")
        raise _explain(error, path, operation) from error


def _append(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as reader, target.open("ab") as writer:
            reader.seek(writer.tell())
            shutil.copyfileobj(reader, writer)
    except OSError as error:
        raise _explain(error, target, "written") from error


def _explain(error: OSError | ValueError, path: Path, operation: str) -> StorageError:
    if isinstance(error, FileNotFoundError):
        return MissingError(f"{path} does not exist; correct the name.")
    if isinstance(error, ValueError):
        return StorageError(f"{path} cannot be {operation} ({error}); correct the name.")
    return StorageError(f"{describe_os_error(error, path, operation)}.")
