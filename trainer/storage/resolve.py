"""Resolves the text of a path to a location: local paths, `gs://`, and the bucket mount of Vertex AI.

Every path of a user, from a flag, an argument or a job file, passes through `parse_path`; of datasets such as
`inverted:FOLDER`, the path without the prefix.
"""

import os
import re
from pathlib import Path, PurePosixPath

from trainer.errors import UNSAFE, ConfigError, quote
from trainer.storage.base import PLACEHOLDER_BUCKET, SCHEME, Location, too_large
from trainer.storage.local import LocalLocation
from trainer.storage.safe_names import MAX_PART_BYTES

_MOUNT = "/gcs/"
_MAX_BYTES = 4000
"""Maximum length of a path. Linux allows 4,096 bytes, to which the names of files in a folder are added."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_MAX_BUCKET_PART = 63
_IP_ADDRESS = re.compile(r"\d+(?:\.\d+){3}")
_SCHEMES = r"gs|gcs|s3|s3a|az|abfss?|hdfs|file|https?|s?ftp"
_FOREIGN = re.compile(
    rf"//|[^/]*[:\uff1a][/\\]|(?:{_SCHEMES})(?::|//)|[a-z]:|[\w.-]+@[\w.-]+:|.*\\|[$`<'\"\u2018\u201c]", re.IGNORECASE
)
"""Beginning of a path that other programs understand: `//server`, `s3://`, `file:/`, `gs:`, `gs//`, `C:`,
`user@host:`, a backslash, `$`, a backquote, `<`, a quote."""
_ACCEPTED = "give a local path or gs://BUCKET/NAME"


def parse_path(path: str | os.PathLike[str]) -> str:
    """Returns a path of a user as a local path, in which `~` is the home directory, or as `gs://BUCKET/NAME`.

    A relative path that begins with `./` may have any other characters.

    Raises:
        ConfigError: If the path is no text, is empty, begins or ends with a space or an invisible character, has a
            control character, is not Unicode, or belongs to another storage service or operating system, or to a
            shell; if its bucket is missing or malformed; or if the home directory of its user is unknown.
    """
    text = path_text(path)
    if not text:
        raise ConfigError(f"a path is empty; {_ACCEPTED}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON documents of runs and datasets name the path
        raise ConfigError(f"the path {quote(text)} is not Unicode; rename it in UTF-8.") from error
    if text != text.strip() or UNSAFE.search(text) or not (text[0] + text[-1]).isprintable():
        raise ConfigError(
            f"the path {quote(text)} has a space or an invisible character at its ends, or a control character; remove "
            "it."
        )
    if len(os.fsencode(text)) > _MAX_BYTES or any(len(os.fsencode(part)) > MAX_PART_BYTES for part in text.split("/")):
        raise ConfigError(f"the path {quote(text)} is too long; {_ACCEPTED}.")
    if text.startswith(SCHEME):
        if ".." in text.split("/"):
            raise ConfigError(f"the path {quote(text)} contains '..', which a bucket does not have; {_ACCEPTED}.")
        if not has_bucket(text):
            raise ConfigError(
                f"the path {quote(text)} has no name of a bucket after gs://, which is 3 to {_MAX_BUCKET_PART} small "
                "letters, digits, and - _ . between them (with dots, 222 in all), and no IP address; write "
                "gs://BUCKET/NAME."
            )
        return text
    if text.startswith("~"):
        expanded = os.path.expanduser(text)
        if expanded == text:
            raise ConfigError(f"the path {quote(text)} names a user without a home directory; write the path in full.")
        return expanded
    if not re.match(r"/(?!/)|\.\.?/", text) and _FOREIGN.match(text):
        gs = " (gs:// has a colon, two slashes, and small letters)"
        hints = {"gs:": gs, "gs//": gs, "//": " (one slash begins a local path)"}
        hint = next((hint for start, hint in hints.items() if text.lower().startswith(start)), "")
        raise ConfigError(
            f"the path {quote(text)} is not on this machine or in Cloud Storage{hint}; {_ACCEPTED}, or ./NAME for a "
            "folder of that name."
        )
    return text


def path_text(path: str | os.PathLike[str]) -> str:
    """Returns a path of a user as text, without other checks.

    Raises:
        ConfigError: If it is neither text nor a path object of text.
    """
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise ConfigError(f"the path {quote(path)} is no text; {_ACCEPTED}.")
    return text


def locate(path: str | os.PathLike[str]) -> Location:
    """Returns the location of a local path or of a `gs://BUCKET/NAME`.

    Raises:
        ConfigError: If it is neither; see `parse_path`.
    """
    path = parse_path(path)
    if not is_remote(path):
        return LocalLocation(path)
    from trainer.storage.gcs import BucketLocation  # google-cloud-storage takes a second to import

    bucket, _, name = _without_scheme(path).partition("/")
    parts = PurePosixPath(name.lstrip("/")).parts  # without empty parts and "."
    return BucketLocation(bucket, "/".join(parts))


def read_named_file(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Returns the content of a file that the user names, local or in a bucket, or of a pipe such as `<(COMMAND)`.

    Raises:
        ConfigError: If the path is malformed; see `parse_path`.
        StorageError: If the file cannot be read or is larger than `max_bytes`.
    """
    location = locate(path)
    if not isinstance(location, LocalLocation) or not location.path.is_fifo():
        return location.read_bytes(max_bytes)
    with location.path.open("rb") as pipe:
        content = pipe.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise too_large(location, max_bytes)
    return content


def state_absence(folder: Location, absence: str) -> str:
    """Returns the reason why a folder does not have a file, as the predicate of a sentence.

    Args:
        folder: Folder in which the file is not. A bucket has no folders without files.
        absence: Reason if the folder exists, such as `has no run`.
    """
    if not isinstance(folder, LocalLocation) or folder.path.is_dir():
        return absence
    return "is not a folder" if os.path.lexists(folder.path) else "does not exist"


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is in a bucket: whether it begins with `gs://`."""
    return os.fspath(path).startswith(SCHEME)


def has_bucket(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path begins with `gs://` and a name that a bucket can have.

    Names with dots have longer limits in total, and the same per part.
    """
    name = _without_scheme(path).partition("/")[0] if is_remote(path) else ""
    is_valid = (
        _BUCKET.fullmatch(name) is not None
        and all(1 <= len(part) <= _MAX_BUCKET_PART for part in name.split("."))
        and not _IP_ADDRESS.fullmatch(name)
    )
    return is_valid or name == PLACEHOLDER_BUCKET


def without_mount(path: str) -> str:
    """Returns a path under `/gcs`, where Vertex AI mounts buckets, as `gs://BUCKET/NAME`, and other paths unchanged.

    The mount has no atomic rename and rewrites a whole object at every flush.
    """
    return SCHEME + path[len(_MOUNT) :] if path.startswith(_MOUNT) and path.strip("/") != "gcs" else path


def resolve_mount(path: str) -> str:
    """Returns `gs://BUCKET/NAME` for a path that is or leads, through links, under `/gcs`, and other paths unchanged.

    A folder in a bucket therefore has one name, whichever links lead to it.
    """
    resolved = path if is_remote(path) else without_mount(os.path.realpath(path))
    return resolved if is_remote(resolved) else path


def place_of(path: str | os.PathLike[str]) -> str:
    """Returns a path in the form that all spellings of one place have: without links, `.`, and slashes at its end.

    Raises:
        ConfigError: If the path is malformed; see `parse_path`.
    """
    text = without_mount(os.fspath(path))
    return (str(locate(text)) if is_remote(text) else os.path.realpath(parse_path(text))).rstrip("/")


def local_path(path: str | os.PathLike[str], advice: str = "give a local path") -> Path:
    """Returns a path on this machine.

    Args:
        path: Path of a user.
        advice: What to do about a path in a bucket.

    Raises:
        ConfigError: If the path is in a bucket or elsewhere; see `parse_path`.
    """
    path = parse_path(path)
    if is_remote(path):
        raise ConfigError(f"{path} is in a bucket, not on this machine; {advice}.")
    return Path(path)


def cache_folder(name: str) -> Path:
    """Returns a folder of this user's cache: `$XDG_CACHE_HOME/gan-trainer/NAME`, or below `~/.cache`.

    Args:
        name: Name of the folder, for the kind of files in it. The folder may not exist yet.

    Raises:
        ConfigError: If `XDG_CACHE_HOME` is not a local path, or is not set and the user has no home directory.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    if base and is_remote(base):
        raise ConfigError(
            f"XDG_CACHE_HOME={quote(base)} is in a bucket; set the environment variable to a local folder."
        )
    try:
        return (local_path(base) if base else Path.home() / ".cache") / "gan-trainer" / name
    except RuntimeError as error:  # a container whose user has no entry in /etc/passwd
        raise ConfigError(
            "this user has no home directory for the cache; set the environment variable XDG_CACHE_HOME to a folder."
        ) from error


def _without_scheme(path: str | os.PathLike[str]) -> str:
    return os.fspath(path)[len(SCHEME) :]
