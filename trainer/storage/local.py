"""Files and folders of this machine."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from trainer.errors import MissingError, StorageError
from trainer.storage.base import Location, StorageEntry
from trainer.storage.local_files import write_atomically
from trainer.storage.safe_names import check_relative_name


class LocalLocation(Location):
    """A path of this machine."""

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

    def entries(self, *, deep: bool = True) -> Iterator[StorageEntry]:
        for name in sorted(_names(self.path, deep)):
            num_bytes = _size(self.path, name, deep)
            if num_bytes is not None:
                yield StorageEntry(name, num_bytes)

    def read_bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise _explained(error, self.path, "read") from error

    def write_bytes(self, content: bytes, *, only_new: bool = False) -> None:
        if only_new and self.path.exists():
            raise StorageError(f"{self.path} exists already; give another name.")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, content)
        except OSError as error:
            raise _explained(error, self.path, "written") from error

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                (self.path / name).unlink(missing_ok=True)
            except OSError as error:
                raise _explained(error, self.path / name, "deleted") from error

    def download(self, files: Mapping[str, Path], *, check: Callable[[], object] | None = None) -> None:
        for name, target in files.items():
            if check is not None:
                check()
            _copy(self.path / check_relative_name(name, self), target)

    def upload(self, folder: Path, names: Sequence[str], *, only_new: bool = False) -> None:
        for name in names:
            if only_new and (self.path / name).exists():
                raise StorageError(f"{self.path / name} exists already; give another folder.")
            _copy(folder / name, self.path / name)


class GrowingFolder(LocalLocation):
    """A folder of files that only ever grow, as logs do: an upload appends what one lacks.

    Whoever has a file open, as TensorBoard has, would not notice that it is replaced. Nothing is ever overwritten, so
    that `only_new` has nothing to refuse.
    """

    def upload(self, folder: Path, names: Sequence[str], *, only_new: bool = False) -> None:
        for name in names:
            _extend(folder / name, self.path / name)


def _names(folder: Path, deep: bool) -> Iterator[str]:
    """Names of the files in a folder, links to none included."""
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        inside, above = waiting.pop()
        try:
            about = (folder / inside).stat()
            identity = about.st_dev, about.st_ino
            if identity in above:
                continue
            with os.scandir(folder / inside) as found:
                files = {f"{inside}{entry.name}": _is_folder(entry) for entry in found}
        except (FileNotFoundError, NotADirectoryError):
            continue  # there is none, or no more
        except OSError as error:
            if _is_hidden(inside):
                continue
            raise _explained(error, folder / inside, "read") from error
        yield from (name for name, is_folder in files.items() if not is_folder)
        if deep:
            waiting.extend((f"{name}/", above | {identity}) for name, is_folder in files.items() if is_folder)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _size(folder: Path, name: str, deep: bool) -> int | None:
    """Bytes of a file in a folder; None of one that is to be left out."""
    path = folder / name
    try:
        return path.stat().st_size
    except OSError as error:
        is_link, is_missing = path.is_symlink(), isinstance(error, FileNotFoundError)
        if _is_hidden(name) or (not deep if is_link else is_missing):
            return None
        if is_link:
            raise StorageError(f"{path} is a link that leads nowhere ({error.strerror}); mend or delete it.") from error
        raise _explained(error, path, "read") from error


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _copy(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, partial)
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        is_read = error.filename == str(source) and error.filename2 is None
        raise _explained(error, source if is_read else target, "read" if is_read else "written") from error


def _extend(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as here, target.open("ab") as there:
            here.seek(there.tell())
            shutil.copyfileobj(here, there)
    except OSError as error:
        raise _explained(error, target, "written") from error


def _explained(error: OSError, path: Path, done: str) -> StorageError:
    if isinstance(error, FileNotFoundError):
        return MissingError(f"{path} does not exist; correct the name.")
    cure = "free space on its disk" if error.errno == errno.ENOSPC else "check the disk and its permissions"
    return StorageError(f"{path} cannot be {done} ({error.strerror or error}); {cure}.")
