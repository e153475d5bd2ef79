"""Checks of names that come from outside: listings of buckets, manifests, archives, tables, configs.

Such a name may only be a plain relative one, below the folder that it is meant for.
"""

import os
import re
from pathlib import Path

from trainer.errors import UNSAFE, StorageError, TrainerError, escape, quote

MAX_PART_BYTES = 255
"""Bytes of UTF-8 in a part of a name, as file systems have it."""
MAX_NAME_BYTES = 1024
"""Bytes of UTF-8 in a whole name, as Cloud Storage has it."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DRIVE = re.compile(r"[A-Za-z]:")


def check_relative_name(name: object, where: object, error: type[TrainerError] = StorageError) -> str:
    """Checks a name that came from outside, without a look at the disk.

    Args:
        name: The name, with `/` between the parts.
        where: The bucket, file or folder that the name came from, for the message.
        error: Exception to raise.

    Returns:
        The same name.

    Raises:
        TrainerError: `error`, if the name is not a plain relative one.
    """
    problem = "is not a text" if not isinstance(name, str) else _problem(name)
    if problem:
        raise error(
            f"{escape(where)} names {quote(name)}, which {problem}; only plain names below its folder are taken, so "
            "correct or delete this one, and use nothing of a source that you do not trust."
        )
    assert isinstance(name, str)
    return name


def path_below(folder: Path, name: object, where: object = None, error: type[TrainerError] = StorageError) -> Path:
    """The path of a name that came from outside, in the folder that it is meant for.

    Args:
        folder: The folder. It may be a link, or lie below one.
        name: The name, with `/` between the parts.
        where: The bucket, file or folder that the name came from, for the message. None: `folder`.
        error: Exception to raise.

    Raises:
        TrainerError: `error`, if the name is not a plain relative one, or a link leads it out of the folder.
    """
    where = folder if where is None else where
    path = folder / check_relative_name(name, where, error)
    root = os.path.realpath(folder)
    if os.path.commonpath([root, os.path.realpath(path)]) != root:
        raise error(
            f"{escape(where)} names {quote(name)}, which is a link that leads out of {escape(folder)}; put the file or "
            "folder itself there."
        )
    return path


def check_sha256(digest: object, where: object, error: type[TrainerError] = StorageError) -> str:
    """Checks a SHA-256 that came from outside: 64 lowercase hexadecimal digits.

    Args:
        digest: The digest.
        where: The file that it came from, for the message.
        error: Exception to raise.

    Returns:
        The same digest.

    Raises:
        TrainerError: `error`, if it is anything else.
    """
    if isinstance(digest, str) and _SHA256.fullmatch(digest):
        return digest
    raise error(
        f"{escape(where)} has the SHA-256 {quote(digest)}, expected 64 lowercase hexadecimal digits; make the file "
        "again."
    )


def _problem(name: str) -> str:
    """The reason why a name is refused; empty for a plain relative one."""
    try:
        encoded = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "is not Unicode"
    parts = name.split("/")
    reasons = {
        "is empty": not name,
        "has a control character": UNSAFE.search(name) is not None,
        "has a backslash": "\\" in name,
        "is an absolute path": name.startswith("/"),
        "begins with a drive letter": _DRIVE.match(name) is not None,
        "leads out of the folder by '..'": ".." in parts,
        "has a part '.'": "." in parts,
        "has an empty part ('//', or '/' at the end)": "" in parts,
        f"has a part of more than {MAX_PART_BYTES} bytes": any(
            len(part) > MAX_PART_BYTES for part in encoded.split(b"/")
        ),
        f"has more than {MAX_NAME_BYTES:,} bytes": len(encoded) > MAX_NAME_BYTES,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")
