"""Replicas of a local job as processes, and their output with the name of the replica."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainer.cloud.emulator.replicas import Replica
from trainer.errors import DocumentError
from trainer.logging import IS_LOG_LEVEL_SET, LOG_LEVEL, discard_output, is_terminal, to_rfc3339
from trainer.storage import documents, parse_json

_JOB_PREFIXES = ("AIP_", "CLOUD_ML_")
_CLUSTER_VARIABLES = ("TF_CONFIG", "CLUSTER_SPEC")
_PYTHON_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
_COLORS = (36, 33, 32, 35, 34, 31)
_LAST_LINES_SECS = 1.0
_output_lock = threading.Lock()

StartProcess = Callable[[Replica], "subprocess.Popen[str]"]


def start_process(replica: Replica) -> "subprocess.Popen[str]":
    """Starts a replica as the leader of its own process group."""
    return subprocess.Popen(
        replica.command,
        env=build_environment(replica),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def build_environment(replica: Replica, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns this process's variables, without those of another job, overridden by the replica's variables."""
    excluded = (
        *_CLUSTER_VARIABLES,
        *(_PYTHON_VARIABLES if replica.package_uris else ()),
        *(() if IS_LOG_LEVEL_SET else (LOG_LEVEL,)),
    )
    inherited = {
        name: value for name, value in environ.items() if name not in excluded and not name.startswith(_JOB_PREFIXES)
    }
    return {"PYTHONUNBUFFERED": "1", **inherited, **replica.environment}


def _start_guard(group: int) -> "subprocess.Popen[bytes]":
    """Starts a process that kills a process group when this process ends, even by SIGKILL, which closes the pipe."""
    command = ["/bin/sh", "-c", 'read -r line; kill -s KILL -- "-$0"', str(group)]
    return subprocess.Popen(
        command,
        env={},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C and the end of the terminal do not reach it
    )


class ReplicaProcess:
    """The process of a replica. It starts with the object.

    Args:
        replica: Replica to start.
        start: Function that starts the process.
        write_line: Function that receives the replica's name and each line of its output.
        on_exit: Function that is called when the process and its whole process group have ended.
    """

    def __init__(
        self,
        replica: Replica,
        start: StartProcess,
        write_line: Callable[[str, str], None],
        on_exit: Callable[["ReplicaProcess"], None],
    ):
        self.replica = replica
        self.exit_code: int | None = None
        """Exit code; negative for a signal, as in `subprocess`. None: the process is running."""
        self._write_line, self._on_exit = write_line, on_exit
        self._ended = threading.Event()
        self._process = start(replica)
        self._guard = _start_guard(self._process.pid)
        self._reader = threading.Thread(target=self._read, name=f"{replica.name} output", daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, name=replica.name, daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """True until the process has ended and its output has been read."""
        return not self._ended.is_set()

    def terminate(self) -> None:
        """Sends SIGTERM to the program only, as to the first process of a container."""
        if self.exit_code is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kills the program and all processes that it started."""
        if self.exit_code is None:
            self._kill_group()

    def _kill_group(self) -> None:
        # macOS reports missing permission if all processes of the group have ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._write_line(self.replica.name, line.rstrip("\n"))

    def _wait(self) -> None:
        code = self._process.wait()
        self._kill_group()
        self._guard.kill()
        self._guard.communicate()
        self.exit_code = code
        self._reader.join(_LAST_LINES_SECS)
        self._ended.set()
        self._on_exit(self)


class ReplicaOutput:
    """Copies the output of replicas to standard output, each line with the replica's name.

    On a terminal, the name comes before the line, in a color unless `NO_COLOR` is set. Elsewhere, each line is a JSON
    object: a log entry of the replica, or an entry with the line as its message, and the key `replica`.

    Args:
        names: Names of all replicas.
        label: Text before each name.
        on_error: Function that receives the error if standard output cannot be written, because nothing reads it any
            longer or a disk is full. Later lines are discarded.
    """

    def __init__(self, names: Sequence[str], label: str = "", on_error: Callable[[OSError], None] = lambda error: None):
        self._label = label
        self._width = max(map(len, names), default=0)
        self._colors = {name: _COLORS[index % len(_COLORS)] for index, name in enumerate(names)}
        self._on_error = on_error

    def write_line(self, name: str, line: str) -> None:
        """Writes a line of a replica."""
        text = self._to_terminal(name, line) if is_terminal() else _to_json(f"{self._label}{name}", line)
        with _output_lock:
            try:
                sys.stdout.write(f"{text}\n")
                sys.stdout.flush()
            except OSError as error:
                discard_output()
                self._on_error(error)

    def _to_terminal(self, name: str, line: str) -> str:
        """Returns a line for a terminal. A JSON log entry appears as severity and message."""
        entry = _parse_object(line)
        if isinstance(entry.get("severity"), str) and isinstance(entry.get("message"), str):
            line = f"{entry['severity']} {entry['message']}"
        prefix = f"{self._label}{name:<{self._width}} |"
        return f"{prefix} {line}" if os.environ.get("NO_COLOR") else f"\x1b[{self._colors[name]}m{prefix}\x1b[0m {line}"


def _to_json(replica: str, line: str) -> str:
    """Returns a line of a replica as a JSON log entry."""
    entry = _parse_object(line)
    if not entry:
        entry = {"severity": "DEFAULT", "message": line, "time": to_rfc3339(time.time())}
    return json.dumps(entry | {"replica": replica})


def _parse_object(line: str) -> dict[str, Any]:
    """Returns the JSON object in a line. Empty: the line is something else."""
    if not line.startswith("{"):
        return {}
    try:
        return parse_json(line, "the line", documents.record({}), remedy="", allow_nan=True)
    except DocumentError:
        return {}
