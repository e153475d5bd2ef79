"""Runs a job's replicas on this machine as Vertex AI would: started, watched, restarted, and all stopped at the end."""

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

from trainer.cloud.emulator import processes
from trainer.cloud.emulator.processes import Log, Running
from trainer.cloud.emulator.replicas import Replica
from trainer.cloud.emulator.restart_policy import MAX_CRASHES, SHELL, Fate, Rules, fate, shell_code, told
from trainer.errors import JobError, JobStopped
from trainer.logging import fields as logging_fields

_logger = logging.getLogger(__name__)

_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_SECS = 0.5
"""How often the caller's `stop` is looked at."""


@dataclass
class Preemptions:
    """What a rehearsal of spot machines has cost."""

    count: int = 0
    lost_secs: float = 0.0
    """From each SIGTERM to the start of the processes that it stopped."""


def run(
    replicas: Sequence[Replica],
    rules: Rules,
    *,
    label: str = "",
    stop: threading.Event | None = None,
    start: processes.Start = processes.start,
    clock: Callable[[], float] = time.monotonic,
) -> Preemptions:
    """Runs a job until its chief ends. No process is left when this returns or raises.

    Args:
        replicas: What to run.
        rules: When to stop and to restart.
        label: What comes before a replica's name in front of its lines.
        stop: Set where the job is to end early, as SIGTERM to this process would end it.
        start: Starts a process.
        clock: Seconds.

    Returns:
        The preemptions that were rehearsed.

    Raises:
        JobError: The job failed or ran out of time.
        JobStopped: It was told to end: by SIGTERM, by `stop`, or since nobody reads its output any more.
        KeyboardInterrupt: Ctrl-C.
    """
    job = _Job(replicas, rules, label, stop or threading.Event(), start, clock)
    try:
        job.run()
    finally:
        if rules.preempt_every_secs is not None:
            done = job.preemptions
            _logger.info(
                f"{label}{done.count} preemptions; {done.lost_secs:.1f} s lost between their signals and the restarts.",
                extra=logging_fields({"preemptions": done.count, "lost_secs": done.lost_secs}),
            )
    return job.preemptions


class _Job:
    def __init__(
        self,
        replicas: Sequence[Replica],
        rules: Rules,
        label: str,
        stop: threading.Event,
        start: processes.Start,
        clock: Callable[[], float],
    ):
        self.preemptions = Preemptions()
        self._replicas, self._rules, self._start, self._clock = replicas, rules, start, clock
        # A SimpleQueue may be written to from a signal's handler.
        self._events: queue.SimpleQueue[Running | signal.Signals] = queue.SimpleQueue()
        self._log = Log([one.name for one in replicas], label, lambda: self._events.put(signal.SIGPIPE))
        self._label, self._stop_asked = label, stop
        self._running: dict[str, Running] = {}
        self._restarts: Counter[str] = Counter()
        self._interruption: signal.Signals | None = None
        self._random = random.Random(rules.seed)
        self._victim: Running | None = None
        self._victim_since = 0.0
        self._kill_at = self._preempt_at = self._timeout_at = math.inf

    def run(self) -> None:
        """Runs the job to its end."""
        now, rules = self._clock(), self._rules
        self._timeout_at = now + (math.inf if rules.timeout_secs is None else rules.timeout_secs)
        self._preempt_at = now + (math.inf if rules.preempt_every_secs is None else rules.preempt_every_secs)
        with _interruptions(self._events.put):
            try:
                self._launch(self._replicas)
                while not self._step():
                    pass
            finally:
                self._stop(self._running.values())

    def _step(self) -> bool:
        """Waits for something to happen, and acts on it; says whether the chief has done its work."""
        event = self._next(min(self._kill_at, self._preempt_at, self._timeout_at))
        if isinstance(event, signal.Signals):
            self._interruption = event
        elif event is not None and self._running.get(event.replica.name) is event and self._settle(event):
            return True
        if self._interruption is not None:
            self._stop(self._running.values())
            _raise(self._interruption)
        self._keep_time()
        return False

    def _next(self, deadline: float) -> Running | signal.Signals | None:
        """The next event; None at the deadline."""
        while True:
            left = max(0.0, deadline - self._clock())
            with contextlib.suppress(queue.Empty):
                return self._events.get(timeout=min(left, _LOOK_SECS))
            if self._interruption is None and self._stop_asked.is_set():
                return signal.SIGTERM
            if left <= _LOOK_SECS:
                return None

    def _settle(self, ended: Running) -> bool:
        """Does what the end of a replica asks for; says whether the job is done."""
        assert ended.exit_code is not None
        if ended.exit_code == 0:
            if self._victim is ended:
                self._victim, self._kill_at = None, math.inf
            return ended.replica.is_chief
        was_preempted = self._victim is ended
        match "lost" if was_preempted else fate(ended.exit_code):
            case "failed":
                self._check_not_a_consequence(ended)
            case "crashed":
                self._restart(ended, "crashed", "a crash", True, MAX_CRASHES, "mend the program")
            case "lost":
                why = "a preemption" if was_preempted else "the loss of its machine"
                advice = "raise --max_restarts"
                self._restart(ended, "lost", why, self._rules.restart_job, self._rules.max_restarts, advice)
        return False

    def _check_not_a_consequence(self, failed: Running) -> None:
        """Raises JobError, but where the whole job is about to restart: replicas fail when they lose one of them."""
        others = (one for one in self._running.values() if one is not failed)
        lost = any(one.exit_code not in (None, 0) and fate(one.exit_code or 0) == "lost" for one in others)
        if not (lost and self._rules.restart_job):
            name, code = failed.replica.name, failed.exit_code or 0
            sentence = f"{name} {told(code)}, which ends the job; what it printed last says why."
            raise JobError(sentence, shell_code(code))

    def _restart(self, ended: Running, kind: Fate, why: str, whole_job: bool, most: int, advice: str) -> None:
        """Starts a replica or the whole job again, or raises JobError where that is not to be."""
        name, how = ended.replica.name, told(ended.exit_code or 0)
        key = kind if whole_job else name
        self._restarts[key] += 1
        code = shell_code(ended.exit_code or 0)
        if self._rules.disable_retries:
            raise JobError(f"{name} {how}, and scheduling.disableRetries forbids to restart it.", code)
        if self._restarts[key] > most:
            raise JobError(f"{name} {how}, and was restarted {most} times before; {advice}.", code)
        what = "the whole job" if whole_job else name
        count = f"{self._restarts[key]} of {most}"
        _logger.warning(f"{self._label}{name} {how}: {why}; restarting {what} ({count}).")
        if whole_job:
            self._stop(self._running.values())
        if self._interruption is not None:
            return
        self._launch(self._replicas if whole_job else [ended.replica])
        if self._victim is not None and (whole_job or self._victim is ended):
            self.preemptions.lost_secs += self._clock() - self._victim_since
            self._victim, self._kill_at = None, math.inf

    def _launch(self, replicas: Iterable[Replica]) -> None:
        for replica in replicas:
            self._running[replica.name] = Running(replica, self._start, self._log.show, self._events.put)

    def _keep_time(self) -> None:
        """Does what is due: the kill after a grace, the next preemption, the end of the job."""
        now = self._clock()
        if now >= self._timeout_at:
            raise JobError(
                f"the job ran longer than scheduling.timeout={self._rules.timeout_secs:g}s; raise it, or run the "
                "same command again to go on from the last checkpoint."
            )
        if self._victim is not None and now >= self._kill_at:
            self._victim.kill()
            self._kill_at = math.inf
        if now >= self._preempt_at:
            assert self._rules.preempt_every_secs is not None
            self._preempt_at = now + self._rules.preempt_every_secs
            if self._victim is None:
                self._preempt(now)

    def _preempt(self, now: float) -> None:
        alive = [one for one in self._running.values() if one.is_alive]
        if not alive:
            return
        self._victim = self._random.choice(alive)
        self._victim_since, self._kill_at = now, now + self._rules.grace_secs
        self.preemptions.count += 1
        _logger.warning(f"preempting {self._label}{self._victim.replica.name}.")
        self._victim.terminate()

    def _stop(self, running: Iterable[Running]) -> None:
        """Ends processes: SIGTERM, after the grace SIGKILL; at once where a second interruption comes."""
        running = [one for one in running if one.is_alive]
        for one in running:
            one.terminate()
        deadline = self._clock() + self._rules.grace_secs
        while any(one.is_alive for one in running):
            event = self._next(deadline)
            again = isinstance(event, signal.Signals) and self._interruption is not None
            if isinstance(event, signal.Signals):
                self._interruption = event
            if event is None or again:
                for one in running:
                    one.kill()
                deadline = math.inf


@contextlib.contextmanager
def _interruptions(tell: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Hands Ctrl-C, SIGTERM and the end of the terminal on, so that none stops the program where a child is lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in _INTERRUPTIONS}
    heard = {one: handler for one, handler in before.items() if handler != signal.SIG_IGN}  # nohup stays in force
    for one in heard:
        signal.signal(one, lambda number, _: tell(signal.Signals(number)))
    try:
        yield
    finally:
        for one, handler in heard.items():
            signal.signal(one, handler or signal.SIG_DFL)


def _raise(interruption: signal.Signals) -> None:
    if interruption == signal.SIGINT:
        raise KeyboardInterrupt
    raise JobStopped(f"the job was stopped by {interruption.name}.", SHELL + interruption)
