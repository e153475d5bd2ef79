"""Local files that are complete or absent, and their digests."""

import base64
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import google_crc32c

from trainer.errors import StorageError, TrainerError, escape

_BLOCK_BYTES = 2**20
_SCRATCH_PREFIX = "gan-trainer-scratch-"
_FREE_SPACE = "free space on its disk"
_CHECK_DISK = "check the disk and its permissions"
SYSTEM_REMEDIES = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: _FREE_SPACE,
    errno.EROFS: _CHECK_DISK,
    errno.EIO: _CHECK_DISK,
    errno.EACCES: _CHECK_DISK,
    errno.EPERM: _CHECK_DISK,
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs, because this machine has too many open files",
}
"""Remedies for errors of the system that are neither mistakes in the input nor in the program, by their number."""
_REMEDIES = SYSTEM_REMEDIES | dict.fromkeys(
    (errno.EEXIST, errno.EINVAL, errno.EISDIR, errno.ENOTDIR), "move it away, or give another name"
)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that is complete or absent, even after a power failure. Its mode follows the umask.

    Raises:
        OSError: If the file cannot be written, or a folder, a pipe or a device is in its place.
    """
    check_replaceable(path)
    descriptor, temporary = _create_beside(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)  # before the lock is released
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_replaceable(path: Path) -> None:
    """Rejects a path that a new file must not replace. A file, or a link to one, may be replaced.

    Raises:
        OSError: If a folder, a pipe, a socket or a device is there.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise _not_regular(path)


def open_regular(path: Path, mode: str, *, follow_links: bool = False) -> BinaryIO:
    """Opens a regular file without a buffer for writing, and never a device or a pipe, which may block or never end.

    Args:
        path: Path of the file.
        mode: `rb` or `ab`.
        follow_links: Whether the file may be a link to a regular file.

    Raises:
        OSError: If it is not a regular file or cannot be opened.
        ValueError: If the path has a NUL.
    """

    def open_descriptor(name: str, flags: int) -> int:
        return os.open(name, flags | (0 if follow_links else os.O_NOFOLLOW) | os.O_NONBLOCK, 0o666)

    file = open(path, mode, buffering=0 if mode == "ab" else -1, opener=open_descriptor)  # noqa: SIM115 - returned
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _not_regular(path)
    return cast(BinaryIO, file)


def describe_os_error(error: OSError, path: object, operation: str) -> str:
    """Returns the sentence, without its end, about a file or folder that cannot be used, with a remedy.

    Args:
        error: Error of the system.
        path: File or folder.
        operation: What cannot be done with it: such as `read` or `written`.
    """
    remedy = _REMEDIES.get(error.errno or 0, _CHECK_DISK)
    return f"{path} cannot be {operation} ({error.strerror or error}); {remedy}"


@contextlib.contextmanager
def explain_unwritable(name: str, error_type: type[TrainerError]) -> Iterator[None]:
    """Turns the errors of the system while a folder is created or written into one sentence.

    Args:
        name: Setting and folder, such as `job_dir=runs/a`.
        error_type: Type of the exception to raise.
    """
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        path = Path(error.filename)
        obstacle = next(each for each in (path, *path.parents) if os.path.lexists(each))
        is_movable = obstacle.is_file() or obstacle.is_symlink()  # a device stays where it is
        raise error_type(
            f"{name} cannot be used, because {escape(obstacle)} is not a folder; {'move it away, or ' * is_movable}"
            "give another folder."
        ) from error
    except OSError as error:
        raise error_type(
            f"{name} cannot be written ({escape(error.strerror)}); give a folder with write permission and free space."
        ) from error


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Deletes the temporary files that killed processes left in a folder. Files of running processes stay.

    Args:
        folder: Folder. It may be absent.
        pattern: Regular expression of the whole names of the files that were being written.
    """
    leftover = re.compile(rf"\.(?:{pattern})\.[a-z0-9_]{{8}}")
    with contextlib.suppress(OSError):  # leftovers only take space
        for path in [path for path in folder.iterdir() if leftover.fullmatch(path.name)]:
            _remove_if_abandoned(path, os.unlink)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Creates a folder for temporary files, and deletes it at the end of the context.

    Folders of killed processes are deleted first.

    Raises:
        StorageError: If no folder for temporary files is writable.
    """
    try:
        root = Path(tempfile.gettempdir())
        with contextlib.suppress(OSError):
            for path in list(root.glob(f"{_SCRATCH_PREFIX}*")):
                _remove_if_abandoned(path, shutil.rmtree)
        descriptor, folder = _create_scratch_folder(root)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
        raise StorageError(
            f"no folder for temporary files is writable ({escape(reason)}); set the environment variable TMPDIR to a "
            "writable folder with free space."
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def file_crc32c(path: Path) -> str:
    """Returns the CRC32C of a file in base64, as Cloud Storage reports it."""
    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            checksum.update(block)
    return base64.b64encode(checksum.digest()).decode()


def base64_crc32c(content: bytes) -> str:
    """Returns the CRC32C of bytes in base64, as Cloud Storage reports it."""
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def _not_regular(path: Path) -> OSError:
    return OSError(errno.EINVAL, "not a regular file", os.fspath(path))


def _create_beside(path: Path) -> tuple[int, Path]:
    """Creates and locks a hidden file with a new name. Returns its descriptor and path."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            if _lock_new(descriptor, temporary):
                return descriptor, temporary


def _create_scratch_folder(root: Path) -> tuple[int, Path]:
    """Creates and locks a folder with a new name. Returns its descriptor and path."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH_PREFIX, dir=root))
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _lock_new(descriptor, folder):
                return descriptor, folder


def _lock_new(descriptor: int, path: Path) -> bool:
    """Locks a new file or folder. Returns False, and closes it, if another process has just deleted it as abandoned."""
    with contextlib.suppress(OSError):  # some network file systems have no locks; nothing is deleted there
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    if path.exists():
        return True
    os.close(descriptor)
    return False


def _remove_if_abandoned(path: Path, remove: Callable[[Path], object]) -> None:
    """Removes a file or folder of this user that no running process has locked. The lock ends with its process."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # a link, or deleted meanwhile
    try:
        status = os.fstat(descriptor)
        if status.st_uid == os.geteuid() and (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(path)
    except OSError:
        return  # locked by a running process
    finally:
        os.close(descriptor)
