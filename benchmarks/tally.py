"""Counts of disturbed runs, and the digests that show whether runs end with the same bits."""

import json
from dataclasses import dataclass
from pathlib import Path

from trainer.storage import locate
from trainer.storage.run_directory import CHECKPOINTS
from trainer.training.checkpoint.manifest import MANIFEST


@dataclass
class Tally:
    """Counts of disturbances, such as kills, and of finished runs.

    Attributes:
        disturbances: Number of signals or preemptions.
        runs: Number of finished runs.
        mismatches: Number of runs that ended with other bits than an undisturbed run.
        leftovers: Number of files that an undisturbed run does not have.
    """

    disturbances: int = 0
    runs: int = 0
    mismatches: int = 0
    leftovers: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def digest(job_dir: str | Path) -> str:
    """Returns the SHA-256 over all state in the newest checkpoint of a run."""
    checkpoints = locate(job_dir) / CHECKPOINTS
    newest = max(entry.name for entry in checkpoints.entries() if entry.name.endswith(f"/{MANIFEST}"))
    return json.loads((checkpoints / newest).read_bytes())["state_sha256"]
