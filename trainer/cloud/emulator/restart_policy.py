"""Vertex AI's rules of what ends a job and what starts it again."""

import signal
from dataclasses import dataclass
from typing import Literal

GRACE_SECS = 15.0
"""Between SIGTERM and SIGKILL: what to count on."""
MAX_RESTARTS = 6
"""How often Vertex AI restarts after a spot preemption."""
MAX_CRASHES = 3
"""How often it restarts a job after SIGABRT or SIGSEGV."""
SHELL = 128
"""What a shell adds to a signal's number."""
_CRASHES = (signal.SIGABRT, signal.SIGSEGV)
_TAKEN_AWAY = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_PREEMPTED = SHELL + signal.SIGTERM

Fate = Literal["lost", "crashed", "failed"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When the replicas of a job are stopped and started again."""

    timeout_secs: float | None = None
    """None: never."""
    restart_job: bool = False
    """Whether all start again when one does."""
    disable_retries: bool = False
    max_restarts: int = MAX_RESTARTS
    """Of each replica, or of the whole job, after machines were lost, by a preemption or otherwise."""
    grace_secs: float = GRACE_SECS
    preempt_every_secs: float | None = None
    """Takes a random replica's machine away this often. None: never."""
    seed: int = 0
    """Decides which."""


def fate(exit_code: int) -> Fate:
    """What a replica's end other than 0 means for its job.

    SIGABRT and SIGSEGV are crashes that are worth another try. Signals that come from outside, and the exit code of a
    program that ended itself in an orderly way on SIGTERM, mean that its machine was lost. The rest, SIGILL and SIGFPE
    among it, is the user's code.
    """
    number = -exit_code if exit_code < 0 else exit_code - SHELL
    if number in _CRASHES:
        return "crashed"
    return "lost" if -exit_code in _TAKEN_AWAY or exit_code == _PREEMPTED else "failed"


def told(exit_code: int) -> str:
    """How a replica ended, in words."""
    if exit_code >= 0:
        return f"exited with {exit_code}"
    name = next((one.name for one in signal.Signals if one == -exit_code), f"signal {-exit_code}")
    return f"was killed by {name}"


def shell_code(exit_code: int) -> int:
    """The exit code that a shell shows."""
    return SHELL - exit_code if exit_code < 0 else exit_code
