"""Processes of the recipe benchmark: starts, times, stops and resumes the run of a row."""

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import budget, recipe_records
from benchmarks.contenders import busy_seconds
from benchmarks.recipe_records import Part, Record, Row
from trainer.errors import DIVERGENCE_ADVICE, ExitCode, TrainerError
from trainer.storage import RunDirectory, write_atomically

_ROOT = Path(__file__).parent.parent
_POLL_SECS = 1.0
_SAMPLES_WITH_NEIGHBORS = 8


class Run:
    """The run of a row with its current settings: a run directory, and next to it a log and a list of parts.

    The number of steps of a row with a budget follows from two short runs, and is kept in a file.
    """

    def __init__(self, row: Row, runs: Path):
        self.row = row
        name = f"{row.name}-{row.key}"
        self.directory = RunDirectory(runs.absolute() / name)
        self.log = self.directory.root.with_name(f"{name}.log")
        self._parts_path = self.directory.root.with_name(f"{name}.parts.json")
        self._steps_path = self.directory.root.with_name(f"{name}.steps.json")

    def parts(self) -> list[Part]:
        """Returns the processes of the run so far."""
        if not self._parts_path.exists():
            return []
        return [Part(**part) for part in json.loads(self._parts_path.read_text())]

    def save_parts(self, parts: list[Part]) -> None:
        """Writes the list of parts."""
        written = json.dumps([dataclasses.asdict(part) for part in parts], indent=1)
        write_atomically(self._parts_path, written.encode())

    def command(self) -> list[str]:
        """Returns the command line of a part."""
        return self._command(self._row_with_steps(), self.directory.root)

    def _command(self, row: Row, job_dir: Path, *more: str) -> list[str]:
        program = [sys.executable, "-m", "trainer.task", f"--recipe={row.recipe}"]
        return [*program, *row.all_flags, *more, f"--job_dir={job_dir}"]

    def _row_with_steps(self) -> Row:
        """Returns the row with the number of steps that fits its budget.

        Raises:
            TrainerError: If a short run failed.
        """
        if self.row.core_minutes is None:
            return self.row
        if not self._steps_path.exists():
            cost = budget.calibrate(
                lambda steps, job_dir: self._command(self.row, job_dir, f"--steps={steps}", *budget.TRAINING_ONLY),
                self.log.with_suffix(".calibration.log"),
                "processor",
            )
            steps = cost.num_steps(60 * self.row.core_minutes)
            write_atomically(self._steps_path, json.dumps({"steps": steps, **dataclasses.asdict(cost)}).encode())
        return self.row.with_steps(json.loads(self._steps_path.read_text())["steps"])

    def resume(self, is_over: Callable[[], bool]) -> Record:
        """Runs one more part, until the run ends or `is_over` returns True.

        Returns:
            The record of all parts.

        Raises:
            TrainerError: If another process runs the row, or the command failed.
        """
        with self._locked_log() as log:
            offset = os.fstat(log).st_size
            row = self._row_with_steps()
            parts = [*self.parts(), Part()]
            code = self._run_part(parts, log, is_over)
        last = self.log.read_bytes()[offset:].decode(errors="replace").splitlines()
        error = next((line.removeprefix("error: ") for line in last[::-1] if line.startswith("error: ")), "")
        make = functools.partial(recipe_records.make, row, self.directory, parts, core_minutes=self.row.core_minutes)
        if code == ExitCode.DONE:
            return make("finished")
        if is_divergence(error) and code == ExitCode.ERROR:
            return make("diverged", error)
        if code == ExitCode.PREEMPTED or code < 0:
            return make("interrupted")
        raise TrainerError(f"{self.row.name} exited with code {code}: {error or (last or [''])[-1]} See {self.log}.")

    def compare(self, picture: Path) -> dict[str, Any]:
        """Evaluates the best checkpoint of a finished run again, and writes a picture of nearest training images.

        Returns:
            The output of `python -m trainer evaluate`: `metrics`, `real_vs_real`, `neighbors` and more.

        Raises:
            TrainerError: If the command failed.
        """
        program = [sys.executable, "-m", "trainer", "evaluate", f"--job_dir={self.directory.root}"]
        picture.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile() as output, self.log.open("ab") as log:
            flags = [f"--neighbors={_SAMPLES_WITH_NEIGHBORS}", f"--out={picture}"]
            code = budget.run([*program, *flags], output, errors=log).exit_code
            output.seek(0)
            if code != ExitCode.DONE:
                raise TrainerError(f"evaluate of {self.row.name} exited with code {code}; see {self.log}.")
            return json.loads(output.read())

    @contextlib.contextmanager
    def _locked_log(self) -> Iterator[int]:
        """Opens and locks the log. The run inherits the lock, which therefore outlives this process."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TrainerError(f"{self.row.name} is being run by another process; wait until it ends.") from error
            yield log.fileno()

    def _run_part(self, parts: list[Part], log: int, is_over: Callable[[], bool]) -> int:
        """Runs the last of `parts`, updates its measurements while it runs, and returns its exit code."""
        part, started, busy, own = parts[-1], time.monotonic(), busy_seconds(), _children_seconds()
        load = os.getloadavg()[0]
        part.load_1min, part.started = (load, load), time.time()
        self.save_parts(parts)
        # In a new session, Ctrl-C reaches only this process, which sends SIGTERM to the run.
        process = subprocess.Popen(
            self.command(), cwd=_ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        is_stopping = False
        while part.exit_code is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                part.exit_code = process.wait(_POLL_SECS)
                used = busy_seconds() - busy - (_children_seconds() - own)
                part.other_cores = round(max(0.0, used) / (time.monotonic() - started), 2) if busy else None
            part.seconds = round(time.monotonic() - started, 1)
            part.processor_seconds = round(_children_seconds() - own, 1)
            part.peak_memory_mib = max(_peak_memory_mib(process.pid), part.peak_memory_mib or 0.0) or None
            part.load_1min = (load, os.getloadavg()[0])
            self.save_parts(parts)
            if part.exit_code is None and not is_stopping and is_over():
                process.terminate()
                is_stopping = True
        return part.exit_code


def is_divergence(sentence: str) -> bool:
    """Returns whether an error message is that of a `DivergenceError`."""
    return DIVERGENCE_ADVICE in sentence.lower()


def _peak_memory_mib(pid: int) -> float:
    """Returns the largest resident memory of a process until now; 0 if it has ended or the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmHWM:")), 0.0)


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
