"""Processes of the recipe benchmark: starts, times, stops and resumes the run of a row."""

import contextlib
import dataclasses
import fcntl
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import recipe_records
from benchmarks.contenders import busy_seconds
from benchmarks.recipe_records import Part, Record, Row
from trainer.errors import DIVERGENCE_ADVICE, ExitCode, TrainerError
from trainer.storage import RunDirectory, write_atomically

_ROOT = Path(__file__).parent.parent
_POLL_SECS = 1.0


class Run:
    """The run of a row with its current settings: a run directory, and next to it a log and a list of parts."""

    def __init__(self, row: Row, runs: Path):
        self.row = row
        name = f"{row.name}-{row.key}"
        self.directory = RunDirectory(runs.absolute() / name)
        self.log = self.directory.root.with_name(f"{name}.log")
        self._parts_path = self.directory.root.with_name(f"{name}.parts.json")

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
        program = [sys.executable, "-m", "trainer.task", f"--recipe={self.row.recipe}"]
        return [*program, *self.row.flags, f"--job_dir={self.directory.root}"]

    def resume(self, is_over: Callable[[], bool]) -> Record:
        """Runs one more part, until the run ends or `is_over` returns True.

        Returns:
            The record of all parts.

        Raises:
            TrainerError: If another process runs the row, or the command failed.
        """
        with self._locked_log() as log:
            offset = os.fstat(log).st_size
            parts = [*self.parts(), Part()]
            code = self._run_part(parts, log, is_over)
        last = self.log.read_bytes()[offset:].decode(errors="replace").splitlines()
        error = next((line.removeprefix("error: ") for line in last[::-1] if line.startswith("error: ")), "")
        if code == ExitCode.DONE:
            return recipe_records.make(self.row, self.directory, parts, "finished")
        if is_divergence(error) and code == ExitCode.ERROR:
            return recipe_records.make(self.row, self.directory, parts, "diverged", error)
        if code == ExitCode.PREEMPTED or code < 0:
            return recipe_records.make(self.row, self.directory, parts, "interrupted")
        raise TrainerError(f"{self.row.name} exited with code {code}: {error or (last or [''])[-1]} See {self.log}.")

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
            part.load_1min = (load, os.getloadavg()[0])
            self.save_parts(parts)
            if part.exit_code is None and not is_stopping and is_over():
                process.terminate()
                is_stopping = True
        return part.exit_code


def is_divergence(sentence: str) -> bool:
    """Returns whether an error message is that of a `DivergenceError`."""
    return DIVERGENCE_ADVICE in sentence.lower()


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
