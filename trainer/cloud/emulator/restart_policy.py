"""Vertex AI's rules for the end of a process: which outcomes end a job, and which restart it."""

import signal
from dataclasses import dataclass
from typing import Literal

from trainer.errors import ExitCode

GRACE_SECS = 15.0
"""Time between SIGTERM and SIGKILL that a job can rely on."""
MAX_RESTARTS = 6
"""Number of times that Vertex AI restarts a job after spot preemptions."""
MAX_CRASHES = 3
"""Number of times that Vertex AI restarts a job after SIGABRT or SIGSEGV."""
SIGNAL_OFFSET = 128
"""Difference between the exit code that a shell reports for a signal and the signal's number."""
_CRASH_CODES = (ExitCode.LOST_WORKER, SIGNAL_OFFSET + signal.SIGSEGV)
_LOSS_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

ProcessOutcome = Literal["lost", "crashed", "failed"]
"""Outcome of a process that did not succeed: its machine was lost, it crashed, or the user's code failed."""


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """When the replicas of a job are stopped and restarted."""

    timeout_secs: float | None = None
    """Time limit of the job. None: no limit."""
    restart_job: bool = False
    """True if the whole job restarts when one replica does."""
    disable_retries: bool = False
    max_restarts: int = MAX_RESTARTS
    """Largest number of restarts after lost machines, for each replica or for the whole job."""
    grace_secs: float = GRACE_SECS
    preempt_every_secs: float | None = None
    """Interval at which a random replica is preempted. None: never."""
    seed: int = 0
    """Seed of the choice of preempted replicas."""


def classify_exit(exit_code: int) -> ProcessOutcome:
    """Returns the outcome of a process with this exit code, which is not 0 and negative for a signal.

    SIGABRT and SIGSEGV are crashes that are worth another attempt. Signals from outside, and the exit code of a program
    that stopped in an orderly way on SIGTERM, mean that the machine was lost. All other codes and signals, including
    SIGILL and SIGFPE, are failures of the user's code.
    """
    if to_shell_code(exit_code) in _CRASH_CODES:
        return "crashed"
    return "lost" if -exit_code in _LOSS_SIGNALS or exit_code == ExitCode.PREEMPTED else "failed"


def describe_exit(exit_code: int) -> str:
    """Returns how a process ended: `exited with 1`, or `was killed by SIGKILL`."""
    if exit_code >= 0:
        return f"exited with {exit_code}"
    name = next((number.name for number in signal.Signals if number == -exit_code), f"signal {-exit_code}")
    return f"was killed by {name}"


def to_shell_code(exit_code: int) -> int:
    """Returns the exit code that a shell reports."""
    return SIGNAL_OFFSET - exit_code if exit_code < 0 else exit_code
