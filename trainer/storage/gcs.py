"""Locations in Cloud Storage, with verified checksums, retries, and explained errors.

TensorFlow's own `gs://` file system is not used: it uploads a whole file at each flush and verifies no checksums.
"""

import contextlib
import functools
import io
import mimetypes
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from trainer.errors import MISSING_CREDENTIALS, ConfigError, MissingError, StorageError
from trainer.storage.base import PLACEHOLDER_BUCKET, SCHEME, Location, StorageEntry, too_large
from trainer.storage.local_files import base64_crc32c, describe_os_error, file_crc32c
from trainer.storage.object_listing import list_objects
from trainer.storage.parallel import call_in_parallel
from trainer.storage.safe_names import check_relative_name

_TIMEOUT_SECS = 60
_SHORT_TIMEOUT_SECS = 5
_RETRY = DEFAULT_RETRY.with_timeout(120.0)
_Result = TypeVar("_Result")


class BucketLocation(Location):
    """An object in a bucket, or a prefix of objects.

    Args:
        bucket: Name of the bucket.
        path: Name of the object, or the prefix without the `/` at its end; empty for the whole bucket.
    """

    def __init__(self, bucket: str, path: str):
        self.bucket, self.path = bucket, path

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.path}".rstrip("/")

    @property
    def name(self) -> str:
        return (self.path or self.bucket).rpartition("/")[2]

    @property
    def parent(self) -> "BucketLocation":
        return BucketLocation(self.bucket, self.path.rpartition("/")[0])

    def __truediv__(self, name: str) -> "BucketLocation":
        return BucketLocation(self.bucket, f"{self.path}/{name}" if self.path else name)

    def exists(self) -> bool:
        def check() -> bool:
            if self.path and self._blob().exists(retry=_RETRY, timeout=_TIMEOUT_SECS):
                return True
            self._check_bucket()
            return False

        return self._call("read", check)

    def num_bytes(self) -> int:
        def read() -> int:
            blob = self._blob()
            blob.reload(retry=_RETRY, timeout=_TIMEOUT_SECS)
            return blob.size

        return self._call("read", read)

    def entries(self, *, recursive: bool = True) -> Iterator[StorageEntry]:
        def list_entries() -> list[list[StorageEntry]]:
            settings = {"delimiter": None if recursive else "/", "retry": _RETRY, "timeout": _TIMEOUT_SECS}
            list_blobs = functools.partial(client().list_blobs, self.bucket, **settings)
            return list_objects(list_blobs, f"{self.path}/" if self.path else "", str(self), in_parallel=recursive)

        pages = self._call("listed", list_entries)
        for page in pages:
            page[:] = [entry for entry in page if entry.name and not entry.name.endswith("/")]  # console "folders"
            for entry in page:
                check_relative_name(entry.name, self)
        pages.reverse()
        while pages:
            yield from pages.pop()  # a page of a list of millions is freed as soon as the caller has used it

    def read_bytes(self, max_bytes: int | None = None) -> bytes:
        content = io.BytesIO() if max_bytes is None else _LimitedBuffer(self, max_bytes)

        def read() -> bytes:
            self._blob().download_to_file(content, checksum="crc32c", retry=_RETRY, timeout=_TIMEOUT_SECS)
            return content.getvalue()

        return self._call("read", read)

    def write_bytes(self, content: bytes, *, only_new: bool = False) -> None:
        content_type = mimetypes.guess_type(self.name)[0] or "application/octet-stream"

        def write() -> None:
            self._blob().upload_from_string(content, content_type, **_upload_settings(only_new))

        self._put(write, only_new, lambda: (len(content), base64_crc32c(content)))

    def read_version(self, max_bytes: int) -> tuple[bytes, int]:
        """Returns the content, up to `max_bytes`, and the generation of this object; `(b"", 0)` if there is none."""

        def read() -> tuple[bytes, int]:
            blob, content = self._blob(), _LimitedBuffer(self, max_bytes)
            try:
                blob.download_to_file(content, checksum="crc32c", retry=None, timeout=_TIMEOUT_SECS)
            except api.NotFound:
                return b"", 0
            return content.getvalue(), blob.generation

        return self._call("read", _RETRY(read))  # the client does not repeat the request if a response 404 is cut

    def write_version(self, content: bytes, generation: int) -> int | None:
        """Replaces a version of this object.

        Args:
            content: New content.
            generation: Generation of the version to replace; 0 if the object must not exist.

        Returns:
            The new generation; None if the object has another generation, also because a response was lost.
        """

        def write() -> int | None:
            blob, settings = self._blob(), _upload_settings(only_new=False)
            try:
                blob.upload_from_string(content, "application/json", if_generation_match=generation, **settings)
            except api.PreconditionFailed:
                return None
            except api.NotFound:
                if not generation:
                    raise
                return None
            return blob.generation

        return self._call("written", write)

    def delete_version(self, generation: int) -> None:
        """Deletes a version of this object, unless it was replaced. It is tried for a few seconds."""

        def delete() -> None:
            retry = _RETRY.with_timeout(_SHORT_TIMEOUT_SECS)
            with contextlib.suppress(api.NotFound, api.PreconditionFailed):
                self._blob().delete(if_generation_match=generation, retry=retry, timeout=_SHORT_TIMEOUT_SECS)

        self._call("deleted", delete)

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            (self / name)._delete()

    def download(self, files: Mapping[str, Path], *, check: Callable[[], object] | None = None) -> None:
        def fetch(name: str) -> None:
            if check is not None:
                check()
            (self / check_relative_name(name, self))._download_to(files[name])

        call_in_parallel(fetch, list(files))

    def upload(self, folder: Path, names: Sequence[str], *, only_new: bool = False) -> None:
        call_in_parallel(lambda name: (self / name)._upload_from(folder / name, only_new), names)

    def missing_permissions(self, permissions: Sequence[str]) -> list[str]:
        """Returns those of the permissions on the bucket that this account does not have."""
        bucket = client().bucket(self.bucket)
        settings: dict[str, Any] = {"retry": _RETRY, "timeout": _TIMEOUT_SECS}
        owned = self._call("read", lambda: bucket.test_iam_permissions(permissions, **settings))
        return [permission for permission in permissions if permission not in owned]

    def _blob(self) -> storage.Blob:
        if not self.path:
            raise StorageError(f"{self} is a bucket, not a file in it; add the name of a file.")
        return client().bucket(self.bucket).blob(self.path)

    def _delete(self) -> None:
        def delete() -> None:
            try:
                self._blob().delete(retry=_RETRY, timeout=_TIMEOUT_SECS)
            except api.NotFound:
                self._check_bucket()

        self._call("deleted", delete)

    def _download_to(self, target: Path) -> None:
        partial = target.with_name(f".{uuid.uuid4().hex}.partial")  # another process may download the same file

        def download() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._blob().download_to_filename(str(partial), checksum="crc32c", retry=_RETRY, timeout=_TIMEOUT_SECS)
            os.replace(partial, target)

        try:
            self._call("read", download)
        except OSError as error:
            if isinstance(error, (FileExistsError, NotADirectoryError, IsADirectoryError)):
                raise StorageError(
                    f"{target} cannot be written ({error.strerror}), because a file and a folder have the same name in "
                    f"the bucket; delete one beside {self}."
                ) from error
            raise StorageError(f"{describe_os_error(error, target, 'written')}.") from error
        finally:
            with contextlib.suppress(NotADirectoryError):
                partial.unlink(missing_ok=True)

    def _upload_from(self, source: Path, only_new: bool) -> None:
        def upload() -> None:
            self._blob().upload_from_filename(str(source), **_upload_settings(only_new))

        self._put(upload, only_new, lambda: (source.stat().st_size, file_crc32c(source)))

    def _put(self, write: Callable[[], None], only_new: bool, expected: Callable[[], tuple[int, str]]) -> None:
        """Uploads an object. If the response to a first attempt was lost, the existing object is this upload's.

        Args:
            write: Function that uploads the object.
            only_new: Whether to refuse to overwrite an existing object.
            expected: Function that returns the size in bytes and the CRC32C of the content.
        """

        def put() -> None:
            try:
                write()
            except api.PreconditionFailed as error:
                existing = client().bucket(self.bucket).get_blob(self.path, retry=_RETRY, timeout=_TIMEOUT_SECS)
                if not only_new or existing is None or (existing.size, existing.crc32c) != expected():
                    raise StorageError(f"{self} already exists with other content; choose another name.") from error

        self._call("written", put)

    def _check_bucket(self) -> None:
        """Raises NotFound if the bucket does not exist. Listing needs no more permission than reading an object."""
        next(iter(client().list_blobs(self.bucket, max_results=1, retry=_RETRY, timeout=_TIMEOUT_SECS)), None)

    def _call(self, operation: str, call: Callable[[], _Result]) -> _Result:
        """Calls Cloud Storage and explains its errors.

        Args:
            operation: Past participle for the messages: `read`, `listed`, `written` or `deleted`.
            call: Function to call.

        Raises:
            ConfigError: If the bucket is the placeholder of the documentation.
            StorageError: If the call fails.
        """
        if self.bucket == PLACEHOLDER_BUCKET:
            raise ConfigError(f"{self} has the placeholder {self.bucket}; replace it with your bucket.")
        try:
            return call()
        except api.NotFound as error:
            raise self._missing() from error
        except api.Forbidden as error:
            role = {"read": "objectViewer", "listed": "objectViewer"}.get(operation, "objectUser")
            raise StorageError(
                f"{self} cannot be {operation}: {principal()} has no permission ({error.code}); grant it "
                f"roles/storage.{role} on the bucket {self.bucket}."
            ) from error
        except DataCorruption as error:
            raise StorageError(
                f"{self} arrived with a checksum other than the one that Cloud Storage reports; try again."
            ) from error
        except (api.Unauthorized, auth.DefaultCredentialsError, auth.RefreshError) as error:
            raise StorageError(f"{self} cannot be {operation}: {MISSING_CREDENTIALS}") from error
        except (api.GoogleAPICallError, api.RetryError, auth.TransportError, requests.RequestException) as error:
            raise StorageError(
                f"{self} cannot be {operation}: requests to Cloud Storage failed for {_RETRY.timeout:.0f} s "
                f"({_reason(error)}); check the network and try again."
            ) from error

    def _missing(self) -> StorageError:
        try:
            self._check_bucket()
        except api.NotFound:
            return StorageError(f"the bucket {SCHEME}{self.bucket} does not exist; create it, or correct its name.")
        except (api.GoogleAPICallError, api.RetryError, auth.GoogleAuthError, requests.RequestException):
            pass  # the bucket cannot be checked; the object is missing in any case
        return MissingError(f"{self} does not exist; correct the name.")


class _LimitedBuffer(io.BytesIO):
    """Memory for the content of an object, which raises DocumentError for more than a number of bytes.

    Args:
        location: Object, for the message.
        max_bytes: Maximum size in bytes.
    """

    def __init__(self, location: BucketLocation, max_bytes: int):
        super().__init__()
        self._location, self._max_bytes = location, max_bytes

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self._max_bytes:
            raise too_large(self._location, self._max_bytes)
        return super().write(data)


@functools.cache
def _make_client(process_id: int, emulator: str | None) -> storage.Client:
    return storage.Client(project=None)  # object requests need no project, and some credentials have none


_client_lock = threading.Lock()


def client() -> storage.Client:
    """Returns the client of this process. `STORAGE_EMULATOR_HOST` sets another server."""
    with _client_lock:
        return _make_client(os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST"))


def _upload_settings(only_new: bool) -> dict[str, object]:
    """Returns the settings of an upload, which writes a whole object and so can be retried safely."""
    condition = {"if_generation_match": 0} if only_new else {}
    return {"checksum": "crc32c", "retry": _RETRY, "timeout": _TIMEOUT_SECS, **condition}


def principal() -> str:
    """Returns the account that sends the requests, if it is known; never a token."""
    try:
        credentials = client()._credentials  # the client has no public attribute for them
    except auth.GoogleAuthError:
        return "this account"
    return getattr(credentials, "service_account_email", None) or "this account"


def _reason(error: Exception) -> str:
    """Returns the type of an error and its HTTP status, if any. Messages are left out: they may contain signed URLs."""
    error = getattr(error, "cause", None) or error  # the last error of a RetryError
    code = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
    return f"{type(error).__name__} {int(code)}" if isinstance(code, int) else type(error).__name__
