"""The manifest that makes a folder a checkpoint, and the digests that it holds."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.errors import CheckpointError, quote
from trainer.storage import check_relative_name, check_sha256, file_sha256, path_below

MANIFEST = "MANIFEST.json"
_FORMAT_VERSION = 1
_STEP_FOLDER = re.compile(r"step-([0-9]{8}|[1-9][0-9]{8,17})")


@dataclass(frozen=True)
class CheckpointManifest:
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
    def from_bytes(cls, written: bytes, where: object = MANIFEST) -> "CheckpointManifest":
        """The manifest that `to_bytes` wrote.

        Args:
            written: Content of the file.
            where: The file or its folder, for messages.

        Raises:
            CheckpointError: A file has a name that is no plain relative one, or a SHA-256 that is none.
            ValueError: Any byte differs from what was written.
        """
        try:
            content = json.loads(written)
            content.pop("manifest_sha256")
            manifest = cls(**content)
            is_same = manifest.to_bytes() == written and manifest._has_right_types()
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError("the manifest is not what was written") from error
        if not is_same:
            raise ValueError("the manifest is not what was written")
        for name, expected in manifest.files.items():
            check_relative_name(name, where, CheckpointError)
            check_sha256(expected["sha256"], where, CheckpointError)
        return manifest

    def _has_right_types(self) -> bool:
        return (
            isinstance(self.step, int)
            and self.step >= 0
            and all(isinstance(expected["num_bytes"], int) and "sha256" in expected for expected in self.files.values())
            and all(isinstance(value, int | float) for value in self.metrics.values())
            and isinstance(self.fingerprints, dict)
        )


def step_of(folder_name: str) -> int | None:
    """The step of a checkpoint's folder by its name, such as `step-00001000`; None for any other name."""
    found = _STEP_FOLDER.fullmatch(folder_name)
    return int(found[1]) if found else None


def verify(folder: Path) -> tuple[CheckpointManifest | None, str]:
    """The manifest of a checkpoint whose every file has its size and SHA-256, or what is wrong with it.

    Raises:
        CheckpointError: A file has a name that is no plain relative one, is a link that leads out of the folder, or has
            a SHA-256 that is none.
    """
    try:
        manifest = CheckpointManifest.from_bytes((folder / MANIFEST).read_bytes(), folder / MANIFEST)
    except FileNotFoundError:
        return None, f"{folder.name} has no {MANIFEST}"
    except (OSError, ValueError):
        return None, f"{folder.name}/{MANIFEST} is not what was written"
    if manifest.format_version != _FORMAT_VERSION:
        return None, f"{folder.name} has format {quote(manifest.format_version)} where {_FORMAT_VERSION} is known"
    for name, expected in manifest.files.items():
        path = path_below(folder, name, folder / MANIFEST, CheckpointError)
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
