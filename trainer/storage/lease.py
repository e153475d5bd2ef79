"""Leases: one process at a time writes a folder, on this machine or in a bucket.

A local lease is a lock on a file in the folder, which the system releases when the process ends. A lease in a bucket is
an object that its owner renews. Every write of the object requires the generation that was read before, so that of
several processes exactly one gets the lease.
"""

import abc
import contextlib
import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from trainer.errors import LeaseError, MissingError, StorageError, TrainerError
from trainer.storage.base import Location
from trainer.storage.lease_owner import LeaseOwner, parse_owner
from trainer.storage.local import LocalLocation
from trainer.storage.local_files import explain_unwritable

if TYPE_CHECKING:
    from trainer.storage.gcs import BucketLocation  # google-cloud-storage takes a second to import

LEASE = "lease.json"
"""Name of the file or the object in the folder. It is deleted at the end of a lease."""
RENEWAL_SECS = 30.0
"""Interval at which the owner of a lease in a bucket renews it."""
EXPIRY_SECS = 120.0
"""Time without a renewal after which another process may take over a lease in a bucket."""
_OBSERVATION_SECS = 45.0
"""Time in which an expired lease must not be renewed before it is taken over, in case clocks differ."""
BY_PRODUCT_AGE_SECS = 60.0
"""Age of a confirmation that is accepted for by-products, which are small files that are written often."""
_LOCAL_POLL_SECS, _BUCKET_POLL_SECS = 0.5, 5.0
_MAX_BYTES = 16 * 2**10
_MAX_ATTEMPTS = 100
_NO_LOCKS = errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP

_logger = logging.getLogger(__name__)


class Lease(abc.ABC):
    """The right of this process to write a folder."""

    @abc.abstractmethod
    def verify(self, max_age_secs: float = 0.0) -> None:
        """Checks that this process still has the lease, before it writes.

        Args:
            max_age_secs: Largest accepted age of the last confirmation by a bucket. If it is older, the bucket is read.
                Infinity: the bucket is never read. Local leases are always checked.

        Raises:
            LeaseError: If another process has the lease.
            StorageError: If the bucket cannot be read.
        """


@contextlib.contextmanager
def hold(
    folder: Location,
    name: str,
    *,
    replica: str = "",
    waits: bool = False,
    advice: str = "wait until it ends, or use another folder",
    error: type[TrainerError] = StorageError,
) -> Iterator[Lease]:
    """Holds the lease of a folder while the context is active.

    A local folder is created, and deleted at the end if nothing is in it.

    Args:
        folder: Folder, local or in a bucket.
        name: Setting and folder, for messages.
        replica: Job, trial and machine on Vertex AI. Its next process takes over the lease at once.
        waits: Whether to wait until another owner ends.
        advice: What the user can do if there is another owner.
        error: Type of the exception if a local folder cannot be written.

    Raises:
        LeaseError: If another process has the lease and `waits` is False.
        StorageError: If the bucket cannot be read or written.
        TrainerError: If a local folder cannot be written; an exception of type `error`.
    """
    with LeaseOwner.current(replica) as owner:
        if isinstance(folder, LocalLocation):
            with contextlib.ExitStack() as stack:
                with explain_unwritable(name, error):
                    local_lease = stack.enter_context(_hold_locally(folder.path, name, owner, waits, advice))
                yield local_lease
            return
        location = cast("BucketLocation", folder / LEASE)
        lease = _BucketLease(location, name, owner, _acquire(location, name, owner, waits, advice))
        try:
            yield lease
        finally:
            lease.release()


def describe_owner(folder: Location) -> str | None:
    """Returns the description of the process that holds the lease of a folder; None if none is known to hold it.

    In a bucket, it has renewed the lease in the last `EXPIRY_SECS`. Of local leases, only those of processes of this
    machine are known.

    Raises:
        StorageError: If the folder cannot be read.
    """
    try:
        owner, age = parse_owner((folder / LEASE).read_bytes(_MAX_BYTES), folder)
    except MissingError:
        return None
    is_held = owner is not None and owner.is_running() if isinstance(folder, LocalLocation) else age < EXPIRY_SECS
    return str(owner or "another process") if is_held else None


class _LocalLease(Lease):
    def __init__(self, path: Path, name: str, descriptor: int):
        self._path, self._name, self._descriptor = path, name, descriptor

    def verify(self, max_age_secs: float = 0.0) -> None:
        if not _is_same_file(self._descriptor, self._path):
            raise LeaseError(
                f"{self._name} has lost its lease, because {self._path} was deleted or replaced; this process stops "
                "and writes nothing more. Run the same command again to resume."
            )


@contextlib.contextmanager
def _hold_locally(folder: Path, name: str, owner: LeaseOwner, waits: bool, advice: str) -> Iterator[Lease]:
    path, is_logged = folder / LEASE, False
    new_folders = [new_folder for new_folder in (folder, *folder.parents) if not new_folder.exists()]
    try:
        while (descriptor := _lock(path)) is None:
            other = _read_owner(path)
            problem = f"{name} is being written by {other or 'another process'}"
            if not waits:
                raise LeaseError(f"{problem}; {advice}.")
            if not is_logged:
                _logger.info(f"{problem}; waiting until it ends.")
            is_logged = True
            time.sleep(_LOCAL_POLL_SECS)
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, owner.to_bytes(), 0)
            yield _LocalLease(path, name, descriptor)
        finally:
            with contextlib.suppress(OSError):  # without a lock, a file is no lease
                if _is_same_file(descriptor, path):
                    path.unlink()  # before the lock is released
            os.close(descriptor)
    finally:
        with contextlib.suppress(OSError):  # a folder that is not empty stays
            for new_folder in new_folders:
                new_folder.rmdir()


def _lock(path: Path) -> int | None:
    """Creates and locks a file. Returns its descriptor; None if another process has locked it."""
    num_attempts = 0
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        num_attempts += 1
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise OSError(errno.EINVAL, f"{path} is not a regular file", str(path))
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            if num_attempts == _MAX_ATTEMPTS:
                raise
            continue  # another process has just deleted the empty folder
        try:
            _lock_descriptor(descriptor, path)
            if _is_same_file(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the previous owner has just deleted the file


def _lock_descriptor(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _logger.warning(
            f"The file system of {path.parent} has no file locks ({error.strerror}); make sure that no other process "
            "writes to this folder."
        )


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _read_owner(path: Path) -> LeaseOwner | None:
    """Returns the owner that a local file names; None if it names none yet."""
    try:
        return parse_owner(LocalLocation(path).read_bytes(_MAX_BYTES), path)[0]
    except StorageError:  # also a file that is just being written
        return None


class _BucketLease(Lease):
    """A lease in a bucket, which a thread renews.

    Args:
        location: Object of the lease.
        name: Setting and folder, for messages.
        owner: This process.
        generation: Generation of the object that this process has written.
    """

    def __init__(self, location: "BucketLocation", name: str, owner: LeaseOwner, generation: int):
        self._location, self._name, self._owner, self._generation = location, name, owner, generation
        self._confirmed_at = _now()
        self._problem = ""
        self._is_warned = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def verify(self, max_age_secs: float = 0.0) -> None:
        self._raise_if_lost()
        if _now() - self._confirmed_at >= max_age_secs:
            self._read()

    def release(self) -> None:
        """Ends the renewals and deletes the object. If that fails, the lease expires."""
        self._stop.set()
        self._thread.join(_BUCKET_POLL_SECS)
        try:
            self.verify(BY_PRODUCT_AGE_SECS)
            self._location.delete_version(self._generation)
        except StorageError as error:
            if not self._problem:
                _logger.warning(f"The lease of {self._name} expires after {EXPIRY_SECS:.0f} s: {error}")

    def _run(self) -> None:
        while not self._stop.wait(RENEWAL_SECS):
            try:
                self._renew()
            except LeaseError:
                return  # `verify` raises it
            except StorageError as error:
                if not self._is_warned:
                    _logger.warning(f"The lease of {self._name} is not renewed, and is tried again later: {error}")
                self._is_warned = True

    def _renew(self) -> None:
        started = _now()
        generation = self._location.write_version(self._owner.to_bytes(), self._generation)
        if generation is None:  # another owner, or the response to an earlier attempt was lost
            generation = self._read()
        self._generation, self._confirmed_at = generation, started

    def _read(self) -> int:
        """Returns the generation of the object, and raises LeaseError from now on if it has another owner."""
        self._raise_if_lost()
        started = _now()
        content, generation = self._location.read_version(_MAX_BYTES)
        owner, _ = parse_owner(content, self._location)
        if owner is None or owner.token != self._owner.token:
            reason = f"{owner} has taken it over" if owner else f"{self._location} was deleted or replaced"
            self._problem = (
                f"{self._name} has lost its lease, because {reason}; this process stops and writes nothing more. Run "
                "the same command again to resume when no other process writes there."
            )
            self._raise_if_lost()
        self._confirmed_at = started
        return generation

    def _raise_if_lost(self) -> None:
        if self._problem:
            raise LeaseError(self._problem)


def _acquire(location: "BucketLocation", name: str, owner: LeaseOwner, waits: bool, advice: str) -> int:
    """Writes the object as soon as it has no other owner. Returns its generation."""
    seen, expires_at, is_logged = 0, 0.0, False
    while True:
        content, generation = location.read_version(_MAX_BYTES)
        other, age = parse_owner(content, location)
        if other is not None and other.token == owner.token:
            return generation  # the response to the write was lost
        is_renewed = seen not in (0, generation)
        if generation != seen:
            seen, expires_at = generation, time.monotonic() + max(_OBSERVATION_SECS, EXPIRY_SECS - age)
        if not generation or time.monotonic() >= expires_at or (other is not None and other.has_ended(owner)):
            written = location.write_version(owner.to_bytes(), generation)
            if written is not None:
                return written
            continue  # another process was faster
        problem = f"{name} is being written by {other or 'another process'}"
        if not waits and (age < EXPIRY_SECS or is_renewed):
            raise LeaseError(
                f"{problem}, which renewed its lease {min(age, EXPIRY_SECS):.0f} s ago (without renewals, it expires "
                f"after {EXPIRY_SECS:.0f} s); {advice}."
            )
        if not is_logged:
            _logger.info(f"{problem}; waiting until it ends, or until its lease has expired.")
        is_logged = True
        time.sleep(min(_BUCKET_POLL_SECS, max(0.0, expires_at - time.monotonic())))


def _now() -> float:
    """Returns a time in seconds that also passes while the machine is paused."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
