"""The manifest that makes a folder a checkpoint, and the digests that it holds."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.storage import file_sha256

MANIFEST = "MANIFEST.json"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """What makes a folder a checkpoint.

    Attributes:
        step: Number of steps taken.
        files: Size in bytes and SHA-256 of each file, by name.
        state_sha256: SHA-256 over names, types, shapes and values of all state.
        fingerprints: Of config and data, to refuse a resume under others.
        metrics: Evaluated at this step; empty where none was.
        versions: Of TensorFlow and Keras.
    """

    step: int
    files: dict[str, dict[str, Any]]
    state_sha256: str
    fingerprints: dict[str, str]
    metrics: dict[str, float]
    versions: dict[str, str]
    format_version: int = _FORMAT_VERSION

    def to_bytes(self) -> bytes:
        """JSON that ends in a SHA-256 of its own."""
        content = vars(self)
        own = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        return json.dumps(content | {"manifest_sha256": own}, indent=2).encode()

    @classmethod
    def from_bytes(cls, written: bytes) -> "Manifest":
        """The manifest that `to_bytes` wrote.

        Raises:
            ValueError: Any byte differs from what was written.
        """
        content = json.loads(written)
        content.pop("manifest_sha256")
        manifest = cls(**content)
        if manifest.to_bytes() != written:
            raise ValueError("the manifest is not what was written")
        return manifest


def verify(folder: Path) -> tuple[Manifest | None, str]:
    """The manifest of a checkpoint whose every file has its size and SHA-256, or what is wrong with it."""
    try:
        manifest = Manifest.from_bytes((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None, f"{folder.name} has no {MANIFEST}"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None, f"{folder.name}/{MANIFEST} is not what was written"
    if manifest.format_version != _FORMAT_VERSION:
        return None, f"{folder.name} has format {manifest.format_version} where {_FORMAT_VERSION} is known"
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return None, f"{folder.name}/{name} is missing"
        if path.stat().st_size != expected["num_bytes"]:
            return (
                None,
                f"{folder.name}/{name} has {path.stat().st_size} bytes where {expected['num_bytes']} were written",
            )
        if file_sha256(path) != expected["sha256"]:
            return None, f"{folder.name}/{name} has another SHA-256 than was written"
    return manifest, ""


def state_sha256(values: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(values):
        value = np.ascontiguousarray(values[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(value.data)
    return digest.hexdigest()
