"""The manifest that commits a checkpoint: sizes, hashes, step and fingerprints."""

import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainer.errors import CheckpointError, count_of
from trainer.storage import check_json, check_relative_name, check_sha256, documents, file_sha256, parse_json

MANIFEST = "MANIFEST.json"
IMAGE_RANGE = "image_range/low", "image_range/high"
"""Names of the range of the images among the settings."""
_FORMAT_VERSION = 2
_READABLE_VERSIONS = (1, 2)
_REMEDY = "restore it from a backup"
_VERSIONED = documents.record({"format_version": documents.whole(1)})
_SCHEMA = documents.record(
    {
        "step": documents.whole(maximum=10**18 - 1),
        "files": documents.map_of(documents.record({"num_bytes": documents.whole(), "sha256": documents.anything})),
        "state_sha256": documents.text(),
        "fingerprints": documents.map_of(documents.text()),
        "metrics": documents.map_of(documents.number),
        "versions": documents.map_of(documents.text()),
        "format_version": documents.whole(),
        "settings": documents.optional(documents.map_of(documents.anything)),
        "callbacks": documents.optional(documents.map_of(documents.map_of(documents.number))),
    }
)


class NewerFormatError(CheckpointError, ValueError):
    """A manifest of a later version of the package. The message completes a sentence that begins with its name."""


@dataclass(frozen=True)
class CheckpointManifest:
    """The manifest of a checkpoint.

    Attributes:
        step: Number of steps taken.
        files: Size in bytes and SHA-256 of each file, by name.
        state_sha256: SHA-256 over names, types, shapes and values of all state.
        fingerprints: Hashes of config and data. `RunHistory` compares them with those of the run.
        metrics: Metrics at this step; empty if the run was not evaluated.
        versions: Versions of TensorFlow and Keras.
        format_version: Version of this format.
        settings: Settings that the state also contains, before training changed them: `GAN.optimizer_settings` of the
            first step; and the range of the images, which manifests of earlier versions do not have.
            Manifests of version 1 have none.
        callbacks: Numbers that callbacks continue from, by callback and name; left out of the file if there are none.
    """

    step: int
    files: dict[str, dict[str, Any]]
    state_sha256: str
    fingerprints: dict[str, str]
    metrics: dict[str, float]
    versions: dict[str, str]
    format_version: int = _FORMAT_VERSION
    settings: dict[str, str | float] = field(default_factory=dict)
    callbacks: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def image_range(self) -> tuple[float, float] | None:
        """Range (low, high) of the images; None if an earlier version of the package wrote the manifest."""
        low, high = (self.settings.get(name) for name in IMAGE_RANGE)
        return None if low is None or high is None else (float(low), float(high))

    def to_bytes(self) -> bytes:
        """Returns the manifest as JSON, followed by its own SHA-256."""
        content = dict(vars(self))
        if self.format_version == 1:
            del content["settings"]
        if not self.callbacks:
            del content["callbacks"]
        manifest_sha256 = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        return json.dumps(content | {"manifest_sha256": manifest_sha256}, indent=2).encode()

    @classmethod
    def from_bytes(cls, content: bytes, where: object = MANIFEST) -> "CheckpointManifest":
        """Parses a manifest that `to_bytes` wrote.

        Args:
            content: Content of the file.
            where: File or folder, for messages.

        Raises:
            NewerFormatError: If a newer version of the package wrote it.
            CheckpointError: If a file name is not a plain relative name, or a hash is malformed.
            ValueError: If any byte differs from what was written.
        """
        try:
            fields = parse_json(content, where, _VERSIONED, remedy=_REMEDY, allow_nan=True)
            if fields["format_version"] not in _READABLE_VERSIONS:
                raise NewerFormatError(
                    f"was written by a newer version of gan-trainer (format {fields['format_version']}, but this one "
                    f"reads up to {_FORMAT_VERSION})"
                )
            check_json(fields, where, _SCHEMA, remedy=_REMEDY)
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


def read_manifest(folder: Path) -> CheckpointManifest:
    """Returns the manifest of a checkpoint.

    Raises:
        CheckpointError: If a file name is not a plain relative name, or a hash is malformed.
        OSError: If the file cannot be read.
        ValueError: If the file is damaged, or is a link or not a regular file.
    """
    path = folder / MANIFEST
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > documents.MAX_DOCUMENT_BYTES:
        raise ValueError("the manifest is not a small regular file")
    return CheckpointManifest.from_bytes(path.read_bytes(), path)


def is_own_path(path: Path, folder: Path) -> bool:
    """Returns whether no part of a path in a folder is a link."""
    parts = [path, *path.parents]
    return not any(part.is_symlink() for part in parts[: len(path.relative_to(folder).parts)])


def verify(folder: Path) -> tuple[CheckpointManifest | None, str]:
    """Compares every file of a checkpoint with its manifest.

    Returns:
        The manifest, or None and the reason why the checkpoint is not valid.

    Raises:
        CheckpointError: If a file name is not a plain relative name, or a hash is malformed.
    """
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return None, f"{folder.name} has no {MANIFEST}"
    except NewerFormatError as error:
        return None, f"{folder.name} {error}"
    except (OSError, ValueError):
        return None, f"{folder.name}/{MANIFEST} is damaged"
    for name, expected in manifest.files.items():
        path = folder / check_relative_name(name, folder / MANIFEST, CheckpointError)
        if not is_own_path(path, folder):
            return None, f"{folder.name}/{name} is a link"
        if not path.is_file():
            return None, f"{folder.name}/{name} is missing"
        if path.stat().st_size != expected["num_bytes"]:
            return (
                None,
                f"{folder.name}/{name} has {count_of(path.stat().st_size, 'byte')}, expected {expected['num_bytes']}",
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
