"""The workers as the parent process sees them: started, asked one at a time, and idle in between."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
_REPOSITORY = Path(__file__).parent.parent
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}


@dataclasses.dataclass
class Turn:
    """What a contender did when it was asked.

    Attributes:
        images_per_sec: Its speed.
        cores: Cores that it used. Few, where nobody else used any, say that the machine was slow to wake its threads.
        waiting_cores: Cores that the contenders used which waited.
        foreign_cores: Cores that all other processes of the machine used.
    """

    images_per_sec: float
    cores: float
    waiting_cores: float
    foreign_cores: float


def busy_seconds() -> float:
    """Processor time that the whole machine has used so far; 0 where the system does not say."""
    statistics = Path("/proc/stat")
    if not statistics.exists():
        return 0.0
    user, nice, system, _, _, *interrupts = map(int, statistics.read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + sum(interrupts)) / _TICKS_PER_SEC


class Worker:
    """A contender's process, ready to be asked.

    Args:
        name: Of the contender.
        folder: Of the case; the worker's log goes there too.
        batch: Of the case.
        seconds: How long a round should take.
        num_steps: Of a round; 0: as many as `seconds` allow.

    Raises:
        RuntimeError: It died; with the end of its log.
    """

    def __init__(self, name: str, folder: Path, batch: int, seconds: float, num_steps: int = 0):
        self.name, self._batch = name, batch
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", name, str(folder)],
                cwd=_REPOSITORY,
                env=os.environ | _ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        ready = self._reply()
        self.label: str = ready["label"]
        self.num_parameters: list[int] = ready["num_parameters"]
        self.num_steps = num_steps or max(1, round(seconds * ready["images_per_sec"] / batch))
        self.turns: list[Turn] = []

    @property
    def speeds(self) -> list[float]:
        """Images a second of every turn."""
        return [turn.images_per_sec for turn in self.turns]

    def ask(self, **request: int) -> dict[str, Any]:
        """Sends a request and waits for its reply."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._reply()

    def take_turn(self, waiting: list["Worker"]) -> Turn:
        """Trains `num_steps` while the others wait."""
        reply, *cores = self.ask_watched(waiting, steps=self.num_steps)
        return Turn(self.num_steps * self._batch / reply["seconds"], *cores)

    def ask_watched(self, waiting: list["Worker"], **request: int) -> tuple[dict[str, Any], float, float, float]:
        """As `ask`, with the cores that it, those who waited and all other processes used meanwhile."""
        started, busy = time.monotonic(), busy_seconds()
        own, idle = self.cpu_seconds(), sum(other.cpu_seconds() for other in waiting)
        reply = self.ask(**request)
        seconds, busy = time.monotonic() - started, busy_seconds() - busy
        own, idle = self.cpu_seconds() - own, sum(other.cpu_seconds() for other in waiting) - idle
        return reply, own / seconds, idle / seconds, max(0.0, busy - own - idle) / seconds

    def cpu_seconds(self) -> float:
        """Processor time that the worker has used so far; 0 where the system does not say."""
        if not Path("/proc/self/stat").exists():
            return 0.0
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SEC

    def close(self) -> None:
        """Ends the worker."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
            raise RuntimeError(f"the worker of {self.name} ended with {self._process.wait()}:\n{tail}")
        return json.loads(line)
