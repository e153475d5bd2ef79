"""Runs a job's replicas on this machine as Vertex AI would: starts, watches, restarts and stops their processes."""

import contextlib
import logging
import math
import queue
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from trainer.cloud.emulator.processes import ReplicaOutput, ReplicaProcess, StartProcess, start_process
from trainer.cloud.emulator.replicas import Replica
from trainer.cloud.emulator.restart_policy import (
    MAX_CRASHES,
    SIGNAL_OFFSET,
    ProcessOutcome,
    RestartPolicy,
    classify_exit,
    describe_exit,
    to_shell_code,
)
from trainer.errors import JobError, JobStopped
from trainer.logging import log_fields

_logger = logging.getLogger(__name__)

_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOP_POLL_SECS = 0.5
"""Interval at which the caller's `stop` event is checked."""


@dataclass
class PreemptionStats:
    """Number and cost of the simulated spot preemptions."""

    count: int = 0
    lost_secs: float = 0.0
    """Total time from each SIGTERM to the restart of the stopped processes."""


def run(
    replicas: Sequence[Replica],
    policy: RestartPolicy,
    *,
    label: str = "",
    stop: threading.Event | None = None,
    start: StartProcess = start_process,
    clock: Callable[[], float] = time.monotonic,
) -> PreemptionStats:
    """Runs a job until its chief ends. No process is left when this function returns or raises.

    Args:
        replicas: Replicas of the job.
        policy: When to stop and to restart replicas.
        label: Text before the name of a replica in its output.
        stop: Event that ends the job early, like SIGTERM to this process.
        start: Function that starts a process.
        clock: Function that returns the time in seconds.

    Returns:
        Statistics of the simulated preemptions.

    Raises:
        JobError: If the job failed or exceeded its time limit.
        JobStopped: If the job was stopped by SIGTERM, by `stop`, or because nothing reads its output any longer.
        KeyboardInterrupt: If the user pressed Ctrl-C.
    """
    job = _JobRunner(replicas, policy, label, stop or threading.Event(), start, clock)
    try:
        job.run()
    finally:
        if policy.preempt_every_secs is not None:
            stats = job.preemptions
            _logger.info(
                f"Simulated {stats.count} preemptions{label and f' of {label.strip()}'}; {stats.lost_secs:.1f} s were "
                "lost between their signals and the restarts.",
                extra=log_fields({"preemptions": stats.count, "lost_secs": stats.lost_secs}),
            )
    return job.preemptions


class _JobRunner:
    def __init__(
        self,
        replicas: Sequence[Replica],
        policy: RestartPolicy,
        label: str,
        stop: threading.Event,
        start: StartProcess,
        clock: Callable[[], float],
    ):
        self.preemptions = PreemptionStats()
        self._replicas, self._policy, self._start_process, self._clock = replicas, policy, start, clock
        # A signal handler may write to a SimpleQueue.
        self._events: queue.SimpleQueue[ReplicaProcess | signal.Signals] = queue.SimpleQueue()
        names = [replica.name for replica in replicas]
        self._output = ReplicaOutput(names, label, lambda: self._events.put(signal.SIGPIPE))
        self._label, self._stop_event = label, stop
        self._processes: dict[str, ReplicaProcess] = {}
        self._num_restarts: Counter[str] = Counter()
        self._interruption: signal.Signals | None = None
        self._random = random.Random(policy.seed)
        self._preempted: ReplicaProcess | None = None
        self._preempted_at = 0.0
        self._kill_at = self._preempt_at = self._timeout_at = math.inf

    def run(self) -> None:
        """Runs the job until it ends."""
        now, policy = self._clock(), self._policy
        self._timeout_at = now + (math.inf if policy.timeout_secs is None else policy.timeout_secs)
        self._preempt_at = now + (math.inf if policy.preempt_every_secs is None else policy.preempt_every_secs)
        with _forward_signals(self._events.put):
            try:
                self._start(self._replicas)
                while not self._handle_next_event():
                    pass
            finally:
                self._stop(self._processes.values())

    def _handle_next_event(self) -> bool:
        """Waits for an event or a deadline and handles it. Returns whether the chief has succeeded."""
        event = self._next_event(min(self._kill_at, self._preempt_at, self._timeout_at))
        if isinstance(event, signal.Signals):
            self._interruption = event
        elif event is not None and self._processes.get(event.replica.name) is event and self._handle_exit(event):
            return True
        if self._interruption is not None:
            self._stop(self._processes.values())
            _raise_interruption(self._interruption)
        self._handle_deadlines()
        return False

    def _next_event(self, deadline: float) -> ReplicaProcess | signal.Signals | None:
        """Returns the next event. None: the deadline has passed."""
        while True:
            remaining = max(0.0, deadline - self._clock())
            with contextlib.suppress(queue.Empty):
                return self._events.get(timeout=min(remaining, _STOP_POLL_SECS))
            if self._interruption is None and self._stop_event.is_set():
                return signal.SIGTERM
            if remaining <= _STOP_POLL_SECS:
                return None

    def _handle_exit(self, process: ReplicaProcess) -> bool:
        """Restarts what the end of a replica requires. Returns whether the job has succeeded."""
        assert process.exit_code is not None
        if process.exit_code == 0:
            if self._preempted is process:
                self._preempted, self._kill_at = None, math.inf
            return process.replica.is_chief
        was_preempted = self._preempted is process
        match "lost" if was_preempted else classify_exit(process.exit_code):
            case "failed":
                self._handle_failure(process)
            case "crashed":
                self._restart(process, "crashed", "a crash", True, MAX_CRASHES, "correct the program")
            case "lost":
                cause = "a preemption" if was_preempted else "the loss of its machine"
                advice = "raise --max_restarts"
                self._restart(process, "lost", cause, self._policy.restart_job, self._policy.max_restarts, advice)
        return False

    def _handle_failure(self, process: ReplicaProcess) -> None:
        """Raises JobError, unless the whole job is about to restart: replicas may fail when they lose another one."""
        others = (other for other in self._processes.values() if other is not process)
        has_loss = any(other.exit_code and classify_exit(other.exit_code) == "lost" for other in others)
        if not (has_loss and self._policy.restart_job):
            name, code = process.replica.name, process.exit_code or 0
            message = f"{name} {describe_exit(code)}, which ends the job; see the last lines of its output."
            raise JobError(message, to_shell_code(code))

    def _restart(
        self,
        process: ReplicaProcess,
        outcome: ProcessOutcome,
        cause: str,
        whole_job: bool,
        max_restarts: int,
        advice: str,
    ) -> None:
        """Restarts a replica or the whole job, or raises JobError if it may not restart."""
        name, exit_description = process.replica.name, describe_exit(process.exit_code or 0)
        key = outcome if whole_job else name
        self._num_restarts[key] += 1
        code = to_shell_code(process.exit_code or 0)
        if self._policy.disable_retries:
            raise JobError(f"{name} {exit_description}, and scheduling.disableRetries prevents a restart.", code)
        if self._num_restarts[key] > max_restarts:
            raise JobError(
                f"{name} {exit_description} after {max_restarts} restarts, the most allowed; {advice}.", code
            )
        target = "the whole job" if whole_job else name
        count = f"{self._num_restarts[key]} of {max_restarts}"
        _logger.warning(f"{self._label}{name} {exit_description}: {cause}; restarting {target} ({count}).")
        if whole_job:
            self._stop(self._processes.values())
        if self._interruption is not None:
            return
        self._start(self._replicas if whole_job else [process.replica])
        if self._preempted is not None and (whole_job or self._preempted is process):
            self.preemptions.lost_secs += self._clock() - self._preempted_at
            self._preempted, self._kill_at = None, math.inf

    def _start(self, replicas: Iterable[Replica]) -> None:
        for replica in replicas:
            self._processes[replica.name] = ReplicaProcess(
                replica, self._start_process, self._output.write_line, self._events.put
            )

    def _handle_deadlines(self) -> None:
        """Does what is due: the end of the job, the kill after the grace period, the next preemption."""
        now = self._clock()
        if now >= self._timeout_at:
            raise JobError(
                f"the job ran longer than scheduling.timeout={self._policy.timeout_secs:g}s; raise it, or run the "
                "same command again to resume from the last checkpoint."
            )
        if self._preempted is not None and now >= self._kill_at:
            self._preempted.kill()
            self._kill_at = math.inf
        if now >= self._preempt_at:
            assert self._policy.preempt_every_secs is not None
            self._preempt_at = now + self._policy.preempt_every_secs
            if self._preempted is None:
                self._preempt(now)

    def _preempt(self, now: float) -> None:
        alive = [process for process in self._processes.values() if process.is_alive]
        if not alive:
            return
        self._preempted = self._random.choice(alive)
        self._preempted_at, self._kill_at = now, now + self._policy.grace_secs
        self.preemptions.count += 1
        _logger.warning(f"Preempting {self._label}{self._preempted.replica.name}.")
        self._preempted.terminate()

    def _stop(self, processes: Iterable[ReplicaProcess]) -> None:
        """Stops processes by SIGTERM, and by SIGKILL after the grace period or on a second interruption."""
        processes = [process for process in processes if process.is_alive]
        for process in processes:
            process.terminate()
        deadline = self._clock() + self._policy.grace_secs
        while any(process.is_alive for process in processes):
            event = self._next_event(deadline)
            is_second_interruption = isinstance(event, signal.Signals) and self._interruption is not None
            if isinstance(event, signal.Signals):
                self._interruption = event
            if event is None or is_second_interruption:
                for process in processes:
                    process.kill()
                deadline = math.inf


@contextlib.contextmanager
def _forward_signals(handle: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Passes Ctrl-C, SIGTERM and SIGHUP to `handle`, so that none of them ends this program and orphans a child."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in _INTERRUPTIONS}
    replaced = {number: handler for number, handler in previous.items() if handler != signal.SIG_IGN}  # keeps nohup
    for number in replaced:
        signal.signal(number, lambda received, _: handle(signal.Signals(received)))
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _raise_interruption(interruption: signal.Signals) -> None:
    if interruption == signal.SIGINT:
        raise KeyboardInterrupt
    raise JobStopped(f"the job was stopped by {interruption.name}.", SIGNAL_OFFSET + interruption)
