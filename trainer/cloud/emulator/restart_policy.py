"""Vertex AI's rules for the end of a process: which outcomes end a job, and which restart it."""

import signal
from dataclasses import dataclass
from typing import Literal

from trainer.errors import ExitCode

GRACE_SECS = 15.0
"""Time between SIGTERM and SIGKILL that a job can rely on."""
MAX_RESTARTS = 6
"""Number of times that Vertex AI restarts a job after spot preemptions."""
MAX_WORKER_RESTARTS = 5
"""Number of times that Vertex AI restarts a replica after uncommon errors before it retries the job."""
MAX_JOB_RETRIES = 3
"""Number of times that Vertex AI retries a job after SIGABRT, SIGSEGV, or too many restarts of a replica."""
SIGNAL_OFFSET = 128
"""Difference between the exit code that a shell reports for a signal and the signal's number."""
_CRASH_SIGNALS = (signal.SIGABRT, signal.SIGSEGV)
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

ProcessOutcome = Literal["preempted", "stopped", "crashed", "failed"]
"""Outcome of a process that did not succeed: its machine was taken away, it was stopped from outside without a known
preemption, it crashed, or the user's code failed."""


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """When the replicas of a job are stopped and restarted."""

    timeout_secs: float | None = None
    """Time limit of the job. None: no limit."""
    restart_job: bool = False
    """True if the whole job restarts when one replica does."""
    disable_retries: bool = False
    max_restarts: int = MAX_RESTARTS
    """Largest number of restarts after preemptions, for each replica or for the whole job."""
    grace_secs: float = GRACE_SECS
    preempt_every_secs: float | None = None
    """Interval at which a random replica is preempted. None: never."""
    seed: int = 0
    """Seed of the choice of preempted replicas."""


def classify_exit(exit_code: int, *, is_out_of_memory: bool = False) -> ProcessOutcome:
    """Returns the outcome of a process with this exit code, which is not 0 and negative for a signal.

    SIGABRT and SIGSEGV are crashes that are worth another attempt, also as the exit codes 6 and 11 of Google's images
    and 134 and 139 of others. SIGKILL means that the machine was taken away, unless the kernel has killed the process
    because the memory was full. All other codes and signals, including SIGILL and SIGFPE, are failures of the user's
    code, with one exception: Google does not document how an orderly exit after SIGTERM counts, 143. Like other signals
    from outside, it is treated as one of the errors that are not common, after which the replica restarts.

    Args:
        exit_code: Exit code of the process.
        is_out_of_memory: Whether the kernel has killed a process of this job because the memory was full.
    """
    if exit_code in _CRASH_SIGNALS or to_shell_code(exit_code) in [SIGNAL_OFFSET + number for number in _CRASH_SIGNALS]:
        return "crashed"
    if -exit_code in _STOP_SIGNALS or exit_code == ExitCode.PREEMPTED:
        return "stopped"
    return "preempted" if exit_code == -signal.SIGKILL and not is_out_of_memory else "failed"


def describe_exit(exit_code: int) -> str:
    """Returns how a process ended: `exited with 1`, or `was killed by SIGKILL`."""
    if exit_code >= 0:
        return f"exited with {exit_code}"
    name = next((number.name for number in signal.Signals if number == -exit_code), f"signal {-exit_code}")
    return f"was killed by {name}"


def to_shell_code(exit_code: int) -> int:
    """Returns the exit code that a shell reports."""
    return SIGNAL_OFFSET - exit_code if exit_code < 0 else exit_code
