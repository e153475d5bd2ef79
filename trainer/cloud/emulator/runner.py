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

from trainer.cloud.emulator.oom_counter import OomCounter
from trainer.cloud.emulator.processes import ReplicaOutput, ReplicaProcess, StartProcess, start_process
from trainer.cloud.emulator.replicas import Replica
from trainer.cloud.emulator.restart_policy import (
    MAX_JOB_RETRIES,
    MAX_WORKER_RESTARTS,
    SIGNAL_OFFSET,
    RestartPolicy,
    classify_exit,
    describe_exit,
    to_shell_code,
)
from trainer.errors import JobError, JobStopped, count_of
from trainer.logging import log_fields

_logger = logging.getLogger(__name__)

_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOP_POLL_SECS = 0.5
"""Interval at which the caller's `stop` event is checked."""
_KILLED = SIGNAL_OFFSET + signal.SIGKILL
_Interruption = signal.Signals | OSError
"""A signal, or an error of standard output, that ends the job."""


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
        JobStopped: If the job was stopped by SIGTERM, by `stop`, or because its output cannot be written.
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
        self._events: queue.SimpleQueue[ReplicaProcess | _Interruption] = queue.SimpleQueue()
        names = [replica.name for replica in replicas]
        self._output = ReplicaOutput(names, label, self._events.put)
        self._label, self._stop_event = label, stop
        self._processes: dict[str, ReplicaProcess] = {}
        self._num_preemptions: Counter[str] = Counter()
        self._num_stops: Counter[str] = Counter()
        """Number of stops of each replica since the last start of the whole job."""
        self._num_job_retries = 0
        self._oom_counter = OomCounter()
        self._interruption: _Interruption | None = None
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
        if isinstance(event, _Interruption):
            self._interruption = event
        elif event is not None and self._processes.get(event.replica.name) is event and self._handle_exit(event):
            return True
        if self._interruption is not None:
            self._stop(self._processes.values())
            _raise_interruption(self._interruption)
        self._handle_deadlines()
        return False

    def _next_event(self, deadline: float) -> ReplicaProcess | _Interruption | None:
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
        is_out_of_memory = to_shell_code(process.exit_code) == _KILLED and self._oom_counter.has_grown()
        outcome = classify_exit(process.exit_code, is_out_of_memory=is_out_of_memory)
        name, policy = process.replica.name, self._policy
        match "preempted" if self._preempted is process else outcome:
            case "failed":
                self._handle_failure(process, is_out_of_memory)
            case "crashed":
                self._retry_job(process, "a crash")
            case "preempted":
                self._num_preemptions[name] += 1
                number = self._num_preemptions.total() if policy.restart_job else self._num_preemptions[name]
                advice = "raise --max_restarts"
                self._restart(process, "a preemption", number, policy.max_restarts, policy.restart_job, advice)
            case "stopped":
                self._num_stops[name] += 1
                number, cause = self._num_stops[name], "a signal from outside"
                if number <= MAX_WORKER_RESTARTS:
                    self._restart(process, cause, number, MAX_WORKER_RESTARTS, policy.restart_job, "")
                else:
                    self._retry_job(process, f"{cause}, after {count_of(MAX_WORKER_RESTARTS, 'restart')}")
        return False

    def _handle_failure(self, process: ReplicaProcess, is_out_of_memory: bool) -> None:
        """Raises JobError, unless the whole job is about to restart: replicas may fail when they lose another one."""
        others = (other for other in self._processes.values() if other is not process)
        losses = ("preempted", "stopped")
        has_loss = any(other.exit_code and classify_exit(other.exit_code) in losses for other in others)
        if is_out_of_memory or not (has_loss and self._policy.restart_job):
            name, code = process.replica.name, process.exit_code or 0
            cause, advice = "", "see the last lines of its output"
            if is_out_of_memory:
                cause, advice = " because the memory was full", "use a larger machine, or a smaller --data_memory_mib"
            message = f"{name} {describe_exit(code)}{cause}, which ends the job; {advice}."
            raise JobError(message, to_shell_code(code))

    def _retry_job(self, process: ReplicaProcess, cause: str) -> None:
        """Restarts all replicas, whose own restarts are counted from 0 again, or raises JobError."""
        self._num_stops.clear()
        self._num_job_retries += 1
        self._restart(process, cause, self._num_job_retries, MAX_JOB_RETRIES, True, "correct the program")

    def _restart(
        self, process: ReplicaProcess, cause: str, number: int, max_restarts: int, whole_job: bool, advice: str
    ) -> None:
        """Restarts a replica or the whole job, or raises JobError if it may not restart.

        Args:
            process: Process that has ended.
            cause: Reason for its end.
            number: Number of this restart among those of its kind, from 1.
            max_restarts: Largest number of such restarts.
            whole_job: Whether all replicas restart.
            advice: Advice after the last restart.
        """
        name, exit_description = process.replica.name, describe_exit(process.exit_code or 0)
        code = to_shell_code(process.exit_code or 0)
        if self._policy.disable_retries:
            raise JobError(f"{name} {exit_description}, and scheduling.disableRetries prevents a restart.", code)
        if number > max_restarts:
            limit = f"{count_of(max_restarts, 'restart')}, the most allowed"
            raise JobError(f"{name} {exit_description} after {limit}; {advice}.", code)
        target = "the whole job" if whole_job else name
        count = f"{number} of {max_restarts}"
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
            is_second_interruption = isinstance(event, _Interruption) and self._interruption is not None
            if isinstance(event, _Interruption):
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


def _raise_interruption(interruption: _Interruption) -> None:
    if interruption == signal.SIGINT:
        raise KeyboardInterrupt
    if isinstance(interruption, BrokenPipeError):
        interruption = signal.SIGPIPE
    if isinstance(interruption, OSError):
        raise JobStopped(
            f"the job was stopped because its output cannot be written ({interruption.strerror}); free space or "
            "redirect the output elsewhere, and run the same command again."
        ) from interruption
    raise JobStopped(f"the job was stopped by {interruption.name}.", SIGNAL_OFFSET + interruption)
