"""Small programs that replace the trainer in tests: replicas that record each start, and a check for leftovers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from trainer.cloud.emulator.replicas import Replica

CHIEF, WORKER = "workerpool0-0", "workerpool1-0"
_PREAMBLE = """
import os, signal, subprocess, sys, time
folder, name = sys.argv[1:]
def note(file, text):
    with open(os.path.join(folder, file), "a") as out:
        out.write(text + "\\n")
def noted(file):
    path = os.path.join(folder, file)
    return open(path).read().split() if os.path.exists(path) else []
def until(condition):
    while not condition():
        time.sleep(0.005)
def die(number):
    os.kill(os.getpid(), number)
    signal.pause()
note("pids", str(os.getpid()))
note("starts", name)
starts = noted("starts").count(name)
"""
_EXIT_SECS = 2.0  # a killed process may be visible for a moment
WAIT = "signal.pause()"
"""Program that runs until a signal stops it."""
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); note('ready', name)"
ORDERLY = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))"


def replica(folder: Path, source: str, name: str = CHIEF) -> Replica:
    command = (sys.executable, "-S", "-c", _PREAMBLE + source, str(folder), name)
    return Replica(name=name, command=command, environment={})


def starts(folder: Path) -> list[str]:
    """Names of the replicas in the order of their starts."""
    return (folder / "starts").read_text().split()


def leftovers(folder: Path) -> list[int]:
    """Kills the processes that are still running, and returns their IDs."""
    pids = (folder / "pids").read_text().split() if (folder / "pids").exists() else []
    deadline = time.monotonic() + _EXIT_SECS
    while (running := [pid for pid in map(int, pids) if _is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    return running


def _is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")
