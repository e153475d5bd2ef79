"""Weights of the networks that ship with the package: an `.npz` file next to a `.json` file that describes it."""

import hashlib
import io
import pathlib

import numpy as np

from trainer.errors import DataError, MissingError
from trainer.storage import documents, local_path, locate, read_json

_METADATA = documents.record({"sha256": documents.text("[0-9a-f]{64}", "64 hexadecimal digits")})


def load(path: str | pathlib.Path, suite: str) -> tuple[str, dict[str, np.ndarray]]:
    """Reads and verifies weights.

    Args:
        path: Path of the `.npz` file.
        suite: Name of the metric suite that needs the weights, for errors.

    Returns:
        SHA-256 of the `.npz` file as 64 hexadecimal digits, and the arrays by name.

    Raises:
        DataError: If a file is missing or the weights do not have the SHA-256 in the `.json` file.
    """
    path = local_path(path)
    try:
        content = locate(path).read_bytes()
        file = locate(path.with_suffix(".json"))
        expected = read_json(file, _METADATA, remedy="reinstall the package", error=DataError)["sha256"]
    except MissingError as error:
        raise DataError(f"the {suite} metrics need {path} and its .json file; reinstall the package.") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != expected:
        raise DataError(f"{path} has SHA-256 {sha256[:12]}…, expected {expected[:12]}…; reinstall the package.")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return sha256, {name: arrays[name] for name in arrays.files}
