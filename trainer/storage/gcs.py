"""`gs://` on google-cloud-storage: checksums compared, transient failures retried, every error one sentence.

TensorFlow's own `gs://` file system is not used: it re-uploads a whole file at each flush, and knows no checksums.
"""

import functools
import mimetypes
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from trainer.errors import MissingError, StorageError
from trainer.storage.base import Location, StorageEntry
from trainer.storage.local_files import base64_crc32c, file_crc32c
from trainer.storage.safe_names import check_relative_name

NUM_THREADS = 8
"""Transfers at a time; a client keeps ten connections open."""
_TIMEOUT_SECS = 60
_RETRY = DEFAULT_RETRY.with_timeout(120.0)
_Result = TypeVar("_Result")


class BucketLocation(Location):
    """An object, or a prefix of objects.

    Args:
        bucket: Its bucket.
        path: Its name, or the prefix without the `/` at its end; empty for the whole bucket.
    """

    def __init__(self, bucket: str, path: str):
        self.bucket, self.path = bucket, path

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.path}".rstrip("/")

    @property
    def name(self) -> str:
        return (self.path or self.bucket).rpartition("/")[2]

    @property
    def parent(self) -> "BucketLocation":
        return BucketLocation(self.bucket, self.path.rpartition("/")[0])

    def __truediv__(self, name: str) -> "BucketLocation":
        return BucketLocation(self.bucket, f"{self.path}/{name}" if self.path else name)

    def exists(self) -> bool:
        def look() -> bool:
            if self._blob().exists(retry=_RETRY, timeout=_TIMEOUT_SECS):
                return True
            self._check_bucket()
            return False

        return self._calling("read", look)

    def entries(self, *, deep: bool = True) -> Iterator[StorageEntry]:
        prefix = f"{self.path}/" if self.path else ""
        end = None if deep else "/"

        def listed() -> list[StorageEntry]:
            blobs = client().list_blobs(self.bucket, prefix=prefix, delimiter=end, retry=_RETRY, timeout=_TIMEOUT_SECS)
            found = [StorageEntry(blob.name[len(prefix) :], blob.size, blob.crc32c) for blob in blobs]
            return [entry for entry in found if entry.name and not entry.name.endswith("/")]  # "folders" of consoles

        found = self._calling("listed", listed)
        for entry in found:
            check_relative_name(entry.name, self)
        yield from found

    def read_bytes(self) -> bytes:
        return self._calling(
            "read", lambda: self._blob().download_as_bytes(checksum="crc32c", retry=_RETRY, timeout=_TIMEOUT_SECS)
        )

    def write_bytes(self, content: bytes, *, only_new: bool = False) -> None:
        kind = mimetypes.guess_type(self.name)[0] or "application/octet-stream"

        def write() -> None:
            self._blob().upload_from_string(content, kind, **_upload_settings(only_new))

        self._put(write, only_new, lambda: (len(content), base64_crc32c(content)))

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            (self / name)._delete()

    def download(self, files: Mapping[str, Path], *, check: Callable[[], object] | None = None) -> None:
        def fetch(name: str) -> None:
            if check is not None:
                check()
            (self / check_relative_name(name, self))._download_to(files[name])

        _each(fetch, list(files))

    def upload(self, folder: Path, names: Sequence[str], *, only_new: bool = False) -> None:
        _each(lambda name: (self / name)._upload_from(folder / name, only_new), names)

    def _blob(self) -> storage.Blob:
        return client().bucket(self.bucket).blob(self.path)

    def _delete(self) -> None:
        def delete() -> None:
            try:
                self._blob().delete(retry=_RETRY, timeout=_TIMEOUT_SECS)
            except api.NotFound:
                self._check_bucket()

        self._calling("deleted", delete)

    def _download_to(self, target: Path) -> None:
        partial = target.with_name(f".{uuid.uuid4().hex}.partial")  # others may fetch it, too

        def download() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._blob().download_to_filename(str(partial), checksum="crc32c", retry=_RETRY, timeout=_TIMEOUT_SECS)
            os.replace(partial, target)

        try:
            self._calling("read", download)
        except OSError as error:
            raise StorageError(
                f"{target} cannot be written ({error.strerror or error}); free space on the disk."
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def _upload_from(self, source: Path, only_new: bool) -> None:
        def upload() -> None:
            self._blob().upload_from_filename(str(source), **_upload_settings(only_new))

        self._put(upload, only_new, lambda: (source.stat().st_size, file_crc32c(source)))

    def _put(self, write: Callable[[], None], only_new: bool, wanted: Callable[[], tuple[int, str]]) -> None:
        """Uploads. Where the answer to a first try was lost, the object that a second one meets is our own."""

        def put() -> None:
            try:
                write()
            except api.PreconditionFailed as error:
                there = client().bucket(self.bucket).get_blob(self.path, retry=_RETRY, timeout=_TIMEOUT_SECS)
                if not only_new or there is None or (there.size, there.crc32c) != wanted():
                    raise StorageError(f"{self} exists already, with another content; give another name.") from error

        self._calling("written", put)

    def _check_bucket(self) -> None:
        """Raises NotFound where the bucket is missing. Listing needs no more permission than its objects do."""
        next(iter(client().list_blobs(self.bucket, max_results=1, retry=_RETRY, timeout=_TIMEOUT_SECS)), None)

    def _calling(self, done: str, call: Callable[[], _Result]) -> _Result:
        """The result of a call to Cloud Storage; its errors as sentences."""
        try:
            return call()
        except api.NotFound as error:
            raise self._missing() from error
        except api.Forbidden as error:
            role = {"read": "objectViewer", "listed": "objectViewer"}.get(done, "objectUser")
            raise StorageError(
                f"{self} cannot be {done}: {_principal()} has no permission ({error.code}); grant it "
                f"roles/storage.{role} on the bucket {self.bucket}."
            ) from error
        except DataCorruption as error:
            raise StorageError(
                f"{self} did not arrive with the checksum that Cloud Storage states; try again."
            ) from error
        except (api.Unauthorized, auth.DefaultCredentialsError, auth.RefreshError) as error:
            raise StorageError(
                f"{self} cannot be {done}: no Google credentials were found or they have expired; run gcloud auth "
                "application-default login."
            ) from error
        except (api.GoogleAPICallError, api.RetryError, auth.TransportError, requests.RequestException) as error:
            raise StorageError(
                f"{self} cannot be {done}: Cloud Storage did not answer as it should for {_RETRY.timeout:.0f} s "
                f"({_reason(error)}); check the network and try again."
            ) from error

    def _missing(self) -> StorageError:
        try:
            self._check_bucket()
        except api.NotFound:
            return StorageError(f"the bucket gs://{self.bucket} does not exist; create it, or correct its name.")
        except (api.GoogleAPICallError, api.RetryError, auth.GoogleAuthError, requests.RequestException):
            pass  # whether there is a bucket cannot be seen; the object is missing in any case
        return MissingError(f"{self} does not exist; correct the name.")


@functools.cache
def _client_of(process: int, emulator: str | None) -> storage.Client:
    return storage.Client(project=None)  # objects need none, and credentials may come without


_making = threading.Lock()


def client() -> storage.Client:
    """The client of this process; `STORAGE_EMULATOR_HOST` names another server."""
    with _making:
        return _client_of(os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST"))


def _upload_settings(only_new: bool) -> dict[str, object]:
    """An upload writes all of an object, so that to send it again does no harm."""
    condition = {"if_generation_match": 0} if only_new else {}
    return {"checksum": "crc32c", "retry": _RETRY, "timeout": _TIMEOUT_SECS, **condition}


def _each(act: Callable[[str], None], names: Sequence[str]) -> None:
    """Acts on every name in parallel; the first error is raised when those that run have ended."""
    with ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="bucket") as threads:
        futures = [threads.submit(act, name) for name in names]
        try:
            for future in futures:
                future.result()
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


def _principal() -> str:
    """Who asks, as far as it is known; never a token."""
    try:
        credentials = client()._credentials
    except auth.GoogleAuthError:
        return "this account"
    return getattr(credentials, "service_account_email", None) or "this account"


def _reason(error: Exception) -> str:
    """The kind of an error, and its HTTP status where there is one: messages may hold addresses with signatures."""
    error = getattr(error, "cause", None) or error  # of a RetryError, what happened last
    code = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
    return f"{type(error).__name__} {int(code)}" if isinstance(code, int) else type(error).__name__
