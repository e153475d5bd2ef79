"""Local files that are complete or absent, and their digests."""

import base64
import hashlib
import os
import tempfile
from pathlib import Path

import google_crc32c

_BLOCK_BYTES = 2**20


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that is complete or absent, even after a power failure."""
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
