"""Small programs in place of the trainer: replicas that note each start, and what is left of them."""

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
_DYING_SECS = 2.0  # a process may be seen for a moment after it was killed
WAIT = "signal.pause()"
"""Runs until it is stopped."""
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); note('ready', name)"
ORDERLY = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))"


def replica(folder: Path, source: str, name: str = CHIEF) -> Replica:
    command = (sys.executable, "-S", "-c", _PREAMBLE + source, str(folder), name)
    return Replica(name=name, command=command, environment={})


def starts(folder: Path) -> list[str]:
    """The name of each replica that was started, in order."""
    return (folder / "starts").read_text().split()


def left(folder: Path) -> list[int]:
    """The processes that still run, stopped here so that no other test meets them."""
    pids = (folder / "pids").read_text().split() if (folder / "pids").exists() else []
    deadline = time.monotonic() + _DYING_SECS
    while (found := [pid for pid in map(int, pids) if _runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return found


def _runs(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")
