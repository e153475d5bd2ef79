"""SIGTERM as a request: the current step finishes, the state is committed, and the process exits."""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class StopRequested(BaseException):
    """SIGTERM has arrived in `Preemption.interrupting`. Libraries that catch every `Exception` let it pass."""


class Preemption:
    """A request to stop training.

    SIGTERM is handled in a thread, so that its actions also run while TensorFlow keeps the main thread busy.

    Attributes:
        requested: Whether a stop was requested since the last `listen`.
    """

    def __init__(self) -> None:
        self.requested = False
        self._actions: list[Callable[[], object]] = []
        self._interrupts = False

    def on_request(self, action: Callable[[], object]) -> None:
        """Runs an action when the signal arrives, or at once if it has arrived."""
        self._actions.append(action)
        if self.requested:
            action()

    @contextlib.contextmanager
    def listen(self, handle_sigterm: bool) -> Iterator[None]:
        """Resets `requested`. In this context, SIGTERM sets it and runs the actions, if `handle_sigterm` is True.

        Python allows signal handlers in the main thread only; in other threads, SIGTERM keeps its meaning.
        """
        self.requested = False
        try:
            if handle_sigterm and threading.current_thread() is threading.main_thread():
                with self._installed():
                    yield
            else:
                yield
        finally:
            self._actions = []  # they keep large objects alive

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """In this context, a request raises `StopRequested`, so that long work without results ends at once.

        Raises:
            StopRequested: If SIGTERM has arrived since `listen`, or arrives.
        """
        if self.requested:
            raise StopRequested
        self._interrupts = True
        try:
            yield
        finally:
            self._interrupts = False

    @contextlib.contextmanager
    def _installed(self) -> Iterator[None]:
        self._read, write = socket.socketpair()
        write.setblocking(False)
        watch = threading.Thread(target=self._watch, name="preemption", daemon=True)
        watch.start()
        previous_descriptor = -1
        try:
            previous_descriptor = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
            # Only while the descriptor is set: without it, this handler would lose a signal.
            previous_handler = signal.signal(signal.SIGTERM, self._handle)
            try:
                yield
            finally:
                signal.signal(signal.SIGTERM, previous_handler)
        finally:
            signal.set_wakeup_fd(previous_descriptor)
            write.close()  # ends the watching thread
            watch.join()  # its last action must not reach the next `fit`, which may use the same compiled step

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Ends work that may be interrupted. For the rest, Python has already written to the wakeup descriptor."""
        if self._interrupts:
            self.requested = True
            raise StopRequested

    def _watch(self) -> None:
        with self._read:
            while received := self._read.recv(1):
                if received[0] == signal.SIGTERM:
                    self.requested = True
                    for action in self._actions:
                        action()
