"""From the text of a path to a location: local paths, `gs://` and the mount of buckets on Vertex AI."""

import os
from pathlib import Path, PurePosixPath

from trainer.errors import ConfigError, StorageError
from trainer.storage.base import Location
from trainer.storage.local import LocalLocation

SCHEME = "gs://"
_MOUNT = "/gcs/"


def locate(path: str | os.PathLike[str]) -> Location:
    """The location of a path, or of a `gs://BUCKET/NAME`.

    Raises:
        StorageError: It begins with `gs://` and names no bucket.
    """
    if not is_remote(path):
        return LocalLocation(path)
    from trainer.storage.gcs import BucketLocation  # google-cloud-storage takes a second to load

    bucket, _, name = os.fspath(path)[len(SCHEME) :].partition("/")
    if not bucket:
        raise StorageError(f"{path} names no bucket; write gs://BUCKET/NAME.")
    return BucketLocation(bucket, str(PurePosixPath(name)) if name else "")


def without_mount(path: str) -> str:
    """A path under `/gcs`, where Vertex AI mounts buckets, as `gs://BUCKET/NAME`; any other as it is.

    The mount has no atomic rename and rewrites a whole object at every flush.
    """
    return SCHEME + path[len(_MOUNT) :] if path.startswith(_MOUNT) and path.strip("/") != "gcs" else path


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is in a bucket."""
    return os.fspath(path).startswith(SCHEME)


def local_path(path: str | os.PathLike[str]) -> Path:
    """A path of this machine.

    Raises:
        ConfigError: It is in a bucket.
    """
    if is_remote(path):
        raise ConfigError(
            f"{path} is in a bucket, and this writes on local disks; train from a recipe, whose --job_dir may be in a "
            "bucket."
        )
    return Path(path)
