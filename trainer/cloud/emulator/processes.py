"""A replica of a local job as a running process, and its output, line by line under its name."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence

from trainer.cloud.emulator.replicas import Replica
from trainer.logging import discard_output, is_terminal

_FROM_VERTEX = ("AIP_", "CLOUD_ML_")
_CLUSTER = ("TF_CONFIG", "CLUSTER_SPEC")
_OF_THIS_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
_COLORS = (36, 33, 32, 35, 34, 31)
_LAST_LINES_SECS = 1.0
_PRINTING = threading.Lock()

Start = Callable[[Replica], "subprocess.Popen[str]"]


def start(replica: Replica) -> "subprocess.Popen[str]":
    """Starts a replica at the head of a process group of its own."""
    return subprocess.Popen(
        replica.command,
        env=environment(replica),
        cwd=replica.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def environment(replica: Replica, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """This process's variables without those of another job, and the replica's own on top."""
    left_out = (*_CLUSTER, *(_OF_THIS_PYTHON if replica.package_uris else ()))
    kept = {
        name: value for name, value in environ.items() if name not in left_out and not name.startswith(_FROM_VERTEX)
    }
    return {"PYTHONUNBUFFERED": "1", **kept, **replica.environment}


class Running:
    """A replica that was started.

    Args:
        replica: What to start.
        start: Starts it.
        show: Takes each line that it writes.
        ended: Told once it has ended, and all of its process group with it.
    """

    def __init__(
        self, replica: Replica, start: Start, show: Callable[[str, str], None], ended: Callable[["Running"], None]
    ):
        self.replica = replica
        self.exit_code: int | None = None
        """As `subprocess` has it: minus the signal's number where one killed it. None: it runs."""
        self._show, self._told = show, ended
        self._done = threading.Event()
        self._process = start(replica)
        self._reader = threading.Thread(target=self._read, name=f"{replica.name} output", daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, name=replica.name, daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return not self._done.is_set()

    def terminate(self) -> None:
        """Asks it to end: SIGTERM to the program alone, as a container's first process gets it."""
        if self.exit_code is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and whatever it started."""
        if self.exit_code is None:
            self._kill_group()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: no permission where all have ended
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._show(self.replica.name, line.rstrip("\n"))

    def _wait(self) -> None:
        code = self._process.wait()
        self._kill_group()
        self.exit_code = code
        self._reader.join(_LAST_LINES_SECS)
        self._done.set()
        self._told(self)


class Log:
    """What the replicas say, each line whole, under its replica's name.

    Args:
        names: All that will say something.
        label: What comes before the name.
        broken: Told where nobody reads any more.
    """

    def __init__(self, names: Sequence[str], label: str = "", broken: Callable[[], None] = lambda: None):
        self._label = label
        self._width = max(map(len, names), default=0)
        self._colors = {name: _COLORS[index % len(_COLORS)] for index, name in enumerate(names)}
        self._broken = broken

    def show(self, name: str, line: str) -> None:
        """Prints a line; the trainer's JSON lines on a terminal as severity and message."""
        prefix = f"{self._label}{name:<{self._width}} |"
        if is_terminal():
            prefix, line = f"\x1b[{self._colors[name]}m{prefix}\x1b[0m", _plain(line)
        with _PRINTING:
            try:
                print(f"{prefix} {line}", flush=True)
            except BrokenPipeError:
                discard_output()
                self._broken()


def _plain(line: str) -> str:
    """A structured log entry as its severity and message; any other line as it is."""
    if not line.startswith("{"):
        return line
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or not {"severity", "message"} <= entry.keys():
        return line
    return f"{entry['severity']} {entry['message']}"
