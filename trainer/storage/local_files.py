"""Local files that are whole or absent, and their digests."""

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c

_BLOCK = 2**20


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that is either whole or not there, even after a power cut."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def file_crc32c(path: Path) -> str:
    """CRC32C of a file in base64, as Cloud Storage states it."""
    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum.update(block)
    return base64.b64encode(checksum.digest()).decode()


def base64_crc32c(content: bytes) -> str:
    """CRC32C of bytes in base64, as Cloud Storage states it."""
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; a last line that was cut short by a kill is left out."""
    if not path.exists():
        return
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            if number + 1 < len(lines):
                raise
