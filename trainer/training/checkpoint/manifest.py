"""The manifest that commits a checkpoint: sizes, hashes, step and fingerprints."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.errors import CheckpointError, quote
from trainer.storage import check_relative_name, check_sha256, documents, file_sha256, parse_json, path_below

MANIFEST = "MANIFEST.json"
_FORMAT_VERSION = 1
_SCHEMA = documents.record(
    {
        "step": documents.whole(maximum=10**18 - 1),
        "files": documents.map_of(documents.record({"num_bytes": documents.whole(), "sha256": documents.anything})),
        "state_sha256": documents.text(),
        "fingerprints": documents.map_of(documents.text()),
        "metrics": documents.map_of(documents.number),
        "versions": documents.map_of(documents.text()),
        "format_version": documents.whole(),
    }
)


@dataclass(frozen=True)
class CheckpointManifest:
    """The manifest of a checkpoint.

    Attributes:
        step: Number of steps taken.
        files: Size in bytes and SHA-256 of each file, by name.
        state_sha256: SHA-256 over names, types, shapes and values of all state.
        fingerprints: Hashes of config and data. A resume with other values is rejected.
        metrics: Metrics at this step; empty if the run was not evaluated.
        versions: Versions of TensorFlow and Keras.
    """

    step: int
    files: dict[str, dict[str, Any]]
    state_sha256: str
    fingerprints: dict[str, str]
    metrics: dict[str, float]
    versions: dict[str, str]
    format_version: int = _FORMAT_VERSION

    def to_bytes(self) -> bytes:
        """Returns the manifest as JSON, followed by its own SHA-256."""
        content = vars(self)
        manifest_sha256 = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        return json.dumps(content | {"manifest_sha256": manifest_sha256}, indent=2).encode()

    @classmethod
    def from_bytes(cls, content: bytes, where: object = MANIFEST) -> "CheckpointManifest":
        """Parses a manifest that `to_bytes` wrote.

        Args:
            content: Content of the file.
            where: File or folder, for messages.

        Raises:
            CheckpointError: If a file name is not a plain relative name, or a hash is malformed.
            ValueError: If any byte differs from what was written.
        """
        try:
            fields = parse_json(content, where, _SCHEMA, remedy="restore it from a backup", allow_nan=True)
            fields.pop("manifest_sha256")
            manifest = cls(**fields)
            is_intact = manifest.to_bytes() == content
        except (TypeError, KeyError) as error:
            raise ValueError("the manifest is damaged") from error
        if not is_intact:
            raise ValueError("the manifest is damaged")
        for name, expected in manifest.files.items():
            check_relative_name(name, where, CheckpointError)
            check_sha256(expected["sha256"], where, CheckpointError)
        return manifest


def verify(folder: Path) -> tuple[CheckpointManifest | None, str]:
    """Compares every file of a checkpoint with its manifest.

    Returns:
        The manifest, or None and the reason why the checkpoint is not valid.

    Raises:
        CheckpointError: If a file name is not a plain relative name, a file is a link out of the folder, or a hash is
            malformed.
    """
    try:
        manifest = CheckpointManifest.from_bytes((folder / MANIFEST).read_bytes(), folder / MANIFEST)
    except FileNotFoundError:
        return None, f"{folder.name} has no {MANIFEST}"
    except (OSError, ValueError):
        return None, f"{folder.name}/{MANIFEST} is damaged"
    if manifest.format_version != _FORMAT_VERSION:
        return None, f"{folder.name} has format {quote(manifest.format_version)}, expected {_FORMAT_VERSION}"
    for name, expected in manifest.files.items():
        path = path_below(folder, name, folder / MANIFEST, CheckpointError)
        if not path.is_file():
            return None, f"{folder.name}/{name} is missing"
        if path.stat().st_size != expected["num_bytes"]:
            return (
                None,
                f"{folder.name}/{name} has {path.stat().st_size} bytes, expected {expected['num_bytes']}",
            )
        if file_sha256(path) != expected["sha256"]:
            return None, f"{folder.name}/{name} does not have the SHA-256 of its manifest"
    return manifest, ""


def state_sha256(values: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(values):
        value = np.ascontiguousarray(values[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(value.data)
    return digest.hexdigest()
