"""Worker processes of the throughput benchmark, each with one contender. They train in turn and are idle in between."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
_REPOSITORY = Path(__file__).parent.parent
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}


@dataclasses.dataclass
class Turn:
    """The measurements of one turn.

    Attributes:
        images_per_sec: Speed of the contender.
        cores: Mean number of cores that the contender used. A small number without foreign processes means that the
            machine was slow to wake its threads.
        waiting_cores: Mean number of cores that waiting contenders used.
        foreign_cores: Mean number of cores that all other processes of the machine used.
    """

    images_per_sec: float
    cores: float
    waiting_cores: float
    foreign_cores: float


def busy_seconds() -> float:
    """Returns the processor time of the whole machine so far; 0 if the system does not report it."""
    statistics = Path("/proc/stat")
    if not statistics.exists():
        return 0.0
    user, nice, system, _, _, *interrupts = map(int, statistics.read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + sum(interrupts)) / _TICKS_PER_SEC


def whole_cycles(num_steps: float, cycle: int) -> int:
    """Returns the number of steps that is a positive multiple of `cycle` and at least `num_steps`, which is rounded."""
    return max(1, math.ceil(round(num_steps) / cycle)) * cycle


class Worker:
    """A process with a contender that is ready to train.

    Args:
        name: Name of the contender.
        folder: Folder of the case, and for the log of the process.
        batch_size: Batch size of the case.
        precisions: Precisions to choose from: float32, bfloat16, or both.
        seconds: Intended length of a turn.
        num_steps: Number of steps of a turn; 0 for as many as fit into `seconds`.
        cycle: Number of steps after which lazy penalties repeat. Turns of `seconds` are rounded up to whole cycles, so
            that each contender has its share of penalties.

    Raises:
        RuntimeError: If the process died. The message has the end of its log.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        batch_size: int,
        precisions: Sequence[str],
        seconds: float,
        num_steps: int = 0,
        cycle: int = 1,
    ):
        self.name, self._batch_size = name, batch_size
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", name, str(folder), ",".join(precisions)],
                cwd=_REPOSITORY,
                env=os.environ | _ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        ready = self._read_reply()
        self.label: str = ready["label"]
        self.precision: str = ready["precision"]
        self.trials: dict[str, float] = ready["trials"]
        self.omitted: dict[str, str] = ready["omitted"]
        self.num_parameters: list[int] = ready["num_parameters"]
        self.num_steps = num_steps or whole_cycles(seconds * ready["images_per_sec"] / batch_size, cycle)
        self.turns: list[Turn] = []

    @property
    def speeds(self) -> list[float]:
        """Images per second of every turn."""
        return [turn.images_per_sec for turn in self.turns]

    def request(self, **message: int) -> dict[str, Any]:
        """Sends a request and waits for its reply."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        return self._read_reply()

    def take_turn(self, waiting: list["Worker"]) -> Turn:
        """Trains `num_steps` steps while the other workers wait."""
        reply, *cores = self.measured_request(waiting, steps=self.num_steps)
        return Turn(self.num_steps * self._batch_size / reply["seconds"], *cores)

    def measured_request(self, waiting: list["Worker"], **message: int) -> tuple[dict[str, Any], float, float, float]:
        """Sends a request and measures the use of the processor until the reply.

        Returns:
            The reply, and the mean number of cores that this worker, waiting workers and all other processes used.
        """
        started, busy = time.monotonic(), busy_seconds()
        own, idle = self.cpu_seconds(), sum(other.cpu_seconds() for other in waiting)
        reply = self.request(**message)
        seconds, busy = time.monotonic() - started, busy_seconds() - busy
        own, idle = self.cpu_seconds() - own, sum(other.cpu_seconds() for other in waiting) - idle
        return reply, own / seconds, idle / seconds, max(0.0, busy - own - idle) / seconds

    def cpu_seconds(self) -> float:
        """Returns the processor time of the worker so far; 0 if the system does not report it."""
        if not Path("/proc/self/stat").exists():
            return 0.0
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SEC

    def close(self) -> None:
        """Stops the worker."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read_reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
            raise RuntimeError(f"the worker {self.name} exited with code {self._process.wait()}:\n{tail}")
        return json.loads(line)
