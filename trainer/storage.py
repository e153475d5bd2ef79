"""Paths of a run directory, and writes that are whole or absent."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.errors import CheckpointError


class RunDirectory:
    """The one place that knows a run's file names. Nothing is made until `create`."""

    def __init__(self, root: str | os.PathLike[str]):
        self.root = Path(root)
        self.config = self.root / "config.json"
        self.metrics = self.root / "metrics.jsonl"
        self.checkpoints = self.root / "checkpoints"
        self.logs = self.root / "logs"
        self.samples = self.root / "samples"

    def create(self) -> None:
        """Makes the folders.

        Raises:
            CheckpointError: The directory cannot be written.
        """
        try:
            for folder in (self.root, self.checkpoints, self.logs, self.samples):
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise CheckpointError(
                f"job_dir={self.root} cannot be written ({error.strerror}); give a directory that you may write to."
            ) from error


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
