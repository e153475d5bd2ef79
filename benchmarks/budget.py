"""Training runs with a budget of time: measured processes, and the number of steps that fit. Linux only.

A budget counts the seconds of a whole command, with its start, on one of two clocks:

- `processor`: processor time of all threads. It hardly changes if other programs use the machine, so that contenders
  can be measured one by one, pinned to a core of a busy machine.
- `wall`: time that passes. Use it on a quiet machine, for programs that do not keep all cores busy.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from trainer.errors import ConfigError, TrainerError

CLOCKS = ("processor", "wall")
TRAINING_ONLY = (
    *("--metrics=none", "--export_model=false"),
    *("--evaluate_every_steps=0", "--sample_every_steps=0", "--checkpoint_every_steps=0"),
)
"""Flags that leave out everything that does not train, except for a checkpoint and sample grids at the end."""

_CALIBRATION_STEPS = (40, 160)
_ROOT = Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Usage:
    """Cost of a process.

    Attributes:
        exit_code: Exit code; negative for a signal.
        wall_seconds: Time from start to end.
        processor_seconds: Processor time of its threads and of the processes that it waited for.
        peak_memory_mib: Largest resident memory of the process.
    """

    exit_code: int
    wall_seconds: float
    processor_seconds: float
    peak_memory_mib: float

    def seconds(self, clock: str) -> float:
        """Returns the time on a clock of `CLOCKS`."""
        return self.wall_seconds if clock == "wall" else self.processor_seconds


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of a training command of any length, in seconds: `start` + `step` * number of steps."""

    start: float
    step: float

    def num_steps(self, seconds: float) -> int:
        """Returns the number of steps that fit into a time, at least 1."""
        return max(1, int((seconds - self.start) / self.step))


def run(command: Sequence[str], output: IO[bytes], cores: Sequence[int] = (), errors: IO[bytes] | None = None) -> Usage:
    """Runs a command in the repository until its end. SIGTERM and Ctrl-C end it, too.

    Args:
        command: Program and arguments.
        output: File for its output.
        cores: Numbers of the cores that it may use; empty for all.
        errors: File for its error stream; None for that of its output.
    """
    started = time.monotonic()
    stderr = subprocess.STDOUT if errors is None else errors
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with subprocess.Popen([*pinned(cores), *command], cwd=_ROOT, stdout=output, stderr=stderr) as process:
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            raise
        finally:
            signal.signal(signal.SIGTERM, previous)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    return Usage(process.returncode, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def pinned(cores: Sequence[int]) -> list[str]:
    """Returns the prefix of a command line that pins a program to cores; empty for all cores."""
    return ["taskset", "--cpu-list", ",".join(map(str, cores))] if cores else []


def run_checked(command: Sequence[str], log_path: Path, cores: Sequence[int] = ()) -> Usage:
    """Runs a command as `run` does.

    Raises:
        TrainerError: If it failed; with the end of its log.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        usage = run(command, log, cores)
    if usage.exit_code:
        lines = log_path.read_text(errors="replace").splitlines() or [""]
        error = next((line for line in lines[::-1] if line.startswith("error: ")), lines[-1])
        raise TrainerError(f"{' '.join(command[:4])} exited with code {usage.exit_code}: {error} See {log_path}.")
    return usage


def calibrate(
    command_of: Callable[[int, Path], Sequence[str]], log_path: Path, clock: str, cores: Sequence[int] = ()
) -> Cost:
    """Measures the cost of a training command from two short runs.

    Args:
        command_of: Function from a number of steps and a new run directory to a command line.
        log_path: File that the output of the runs is appended to.
        clock: Clock of `CLOCKS`.
        cores: Cores to run on.

    Raises:
        TrainerError: If a run failed.
    """
    seconds = []
    for num_steps in _CALIBRATION_STEPS:
        with tempfile.TemporaryDirectory() as folder:
            usage = run_checked(command_of(num_steps, Path(folder) / "run"), log_path, cores)
        seconds.append(usage.seconds(clock))
    few, many = _CALIBRATION_STEPS
    step = max(1e-6, (seconds[1] - seconds[0]) / (many - few))
    return Cost(max(0.0, seconds[0] - few * step), step)


def available_cores() -> tuple[int, ...]:
    """Returns the numbers of the cores that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


def parse_cores(values: Sequence[str]) -> tuple[int, ...]:
    """Returns the numbers of cores, such as those of `--cores=0,1`.

    Raises:
        ConfigError: If a core does not exist or may not be used.
    """
    allowed = available_cores()
    cores = []
    for value in values:
        core = -1
        with contextlib.suppress(ValueError):
            core = int(value)
        if core not in allowed:
            raise ConfigError(f"cores={value} is not available; choose from {', '.join(map(str, allowed))}.")
        cores.append(core)
    return tuple(cores)
