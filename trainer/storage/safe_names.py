"""Checks of untrusted names: listings of buckets, dataset.json, manifests, archives, CSV files, configs.

An untrusted name must be a relative path without special parts, and must stay inside its folder.
"""

import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path

from trainer.errors import UNSAFE, StorageError, TrainerError, escape, quote

MAX_PART_BYTES = 255
"""Maximum length of a part of a name in bytes of UTF-8, as in common file systems."""
MAX_NAME_BYTES = 1024
"""Maximum length of a name in bytes of UTF-8, as in Cloud Storage."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DRIVE = re.compile(r"[A-Za-z]:")


def check_relative_name(name: object, origin: object, error: type[TrainerError] = StorageError) -> str:
    """Checks an untrusted name without accessing the disk.

    Args:
        name: Name with `/` as the separator.
        origin: Bucket, file or folder that contains the name, for the message.
        error: Type of the exception to raise.

    Returns:
        The same name.

    Raises:
        TrainerError: If the name is unsafe; an exception of type `error`.
    """
    problem = "is not a string" if not isinstance(name, str) else _problem(name)
    if problem:
        raise error(
            f"{escape(origin)} names {quote(name)}, which {problem}; only relative names inside the folder are "
            "allowed. Correct or delete the name, and do not use files from a source that you do not trust."
        )
    assert isinstance(name, str)
    return name


def path_below(folder: Path, name: object, origin: object = None, error: type[TrainerError] = StorageError) -> Path:
    """Returns the path of an untrusted name in its folder.

    Args:
        folder: Folder. It may be a link, or be inside a linked folder.
        name: Name with `/` as the separator.
        origin: Bucket, file or folder that contains the name, for the message. None: `folder`.
        error: Type of the exception to raise.

    Raises:
        TrainerError: If the name is unsafe or leads out of the folder through a link; an exception of type `error`.
    """
    return paths_below(folder, [name], origin, error)[0]


def paths_below(
    folder: Path, names: Iterable[object], origin: object = None, error: type[TrainerError] = StorageError
) -> list[Path]:
    """Returns the path of each of several untrusted names in their folder, which is resolved only once.

    The arguments and errors are those of `path_below`.
    """
    origin = folder if origin is None else origin
    root = os.path.realpath(folder)
    paths = []
    for name in names:
        relative = check_relative_name(name, origin, error)
        if _has_link(root, relative) and os.path.commonpath([root, os.path.realpath(f"{root}/{relative}")]) != root:
            raise error(
                f"{escape(origin)} names {quote(name)}, which is a link that leads out of {escape(folder)}; "
                "replace the link by the file or folder itself."
            )
        paths.append(folder / relative)
    return paths


def _has_link(root: str, name: str) -> bool:
    """Returns whether a part of a safe name is a link. Without one, its path stays below the root."""
    prefixes = itertools.accumulate(name.split("/"), lambda prefix, part: f"{prefix}/{part}", initial=root)
    return any(map(os.path.islink, itertools.islice(prefixes, 1, None)))


def check_sha256(digest: object, origin: object, error: type[TrainerError] = StorageError) -> str:
    """Checks an untrusted SHA-256: 64 lowercase hexadecimal digits.

    Args:
        digest: Digest.
        origin: File that contains the digest, for the message.
        error: Type of the exception to raise.

    Returns:
        The same digest.

    Raises:
        TrainerError: If the digest has another form; an exception of type `error`.
    """
    if isinstance(digest, str) and _SHA256.fullmatch(digest):
        return digest
    raise error(
        f"{escape(origin)} has the SHA-256 {quote(digest)}, expected 64 lowercase hexadecimal digits; create "
        "the file again."
    )


def _problem(name: str) -> str:
    """Returns the reason why a name is unsafe; an empty string for a safe name."""
    try:
        encoded = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "is not Unicode"
    parts = name.split("/")
    reasons = {
        "is empty": not name,
        "contains a control character": UNSAFE.search(name) is not None,
        "contains a backslash": "\\" in name,
        "is a URL": "://" in name,
        "is an absolute path": name.startswith("/"),
        "begins with a drive letter": _DRIVE.match(name) is not None,
        "contains '..', which leads out of the folder": ".." in parts,
        "contains a part '.'": "." in parts,
        "contains an empty part ('//', or '/' at the end)": "" in parts,
        f"has a part of more than {MAX_PART_BYTES} bytes": any(
            len(part) > MAX_PART_BYTES for part in encoded.split(b"/")
        ),
        f"has more than {MAX_NAME_BYTES:,} bytes": len(encoded) > MAX_NAME_BYTES,
    }
    return next((reason for reason, applies in reasons.items() if applies), "")
