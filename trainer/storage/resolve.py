"""Resolves the text of a path to a location: local paths, `gs://`, and the bucket mount of Vertex AI."""

import os
from pathlib import Path, PurePosixPath

from trainer.errors import ConfigError, StorageError
from trainer.storage.base import SCHEME, Location
from trainer.storage.local import LocalLocation

__all__ = ["has_bucket", "is_remote", "local_path", "locate", "without_mount"]

_MOUNT = "/gcs/"


def locate(path: str | os.PathLike[str]) -> Location:
    """Returns the location of a local path or of a `gs://BUCKET/NAME`.

    Raises:
        StorageError: If the path begins with `gs://` but has no bucket.
    """
    if not is_remote(path):
        return LocalLocation(path)
    from trainer.storage.gcs import BucketLocation  # google-cloud-storage takes a second to import

    if not has_bucket(path):
        raise StorageError(f"{path} has no bucket; write gs://BUCKET/NAME.")
    bucket, _, name = _without_scheme(path).partition("/")
    return BucketLocation(bucket, str(PurePosixPath(name)) if name else "")


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is in a bucket: whether it begins with `gs://`."""
    return os.fspath(path).startswith(SCHEME)


def has_bucket(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path begins with `gs://` and the name of a bucket."""
    return is_remote(path) and _without_scheme(path).partition("/")[0] != ""


def without_mount(path: str) -> str:
    """Returns a path under `/gcs`, where Vertex AI mounts buckets, as `gs://BUCKET/NAME`, and other paths unchanged.

    The mount has no atomic rename and rewrites a whole object at every flush.
    """
    return SCHEME + path[len(_MOUNT) :] if path.startswith(_MOUNT) and path.strip("/") != "gcs" else path


def local_path(path: str | os.PathLike[str]) -> Path:
    """Returns a path on this machine.

    Raises:
        ConfigError: If the path is in a bucket.
    """
    if is_remote(path):
        raise ConfigError(
            f"{path} is in a bucket, and this callback writes to local disks; give a local path, or train from a "
            "recipe, whose --job_dir may be in a bucket."
        )
    return Path(path)


def _without_scheme(path: str | os.PathLike[str]) -> str:
    return os.fspath(path)[len(SCHEME) :]
