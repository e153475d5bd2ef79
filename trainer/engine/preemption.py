"""SIGTERM as a request: the step that runs is finished, the state is committed, and the process exits."""

import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType, TracebackType


class Preemption:
    """While entered, SIGTERM sets `requested` and acts from a thread, even while TensorFlow holds the main one.

    It may be entered again; `requested` can be read until then.
    """

    def __init__(self) -> None:
        self.requested = False
        self._actions: list[Callable[[], object]] = []
        self._installed = False

    def on_request(self, action: Callable[[], object]) -> None:
        """Adds what to do at once when the signal comes."""
        self._actions.append(action)
        if self.requested:
            action()

    def __enter__(self) -> "Preemption":
        self.requested = False
        if threading.current_thread() is threading.main_thread():
            self._read, self._write = socket.socketpair()
            self._write.setblocking(False)
            self._previous = signal.signal(signal.SIGTERM, self._handle)
            self._previous_fd = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, name="preemption", daemon=True).start()
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._actions = []  # they hold what they act on
        if not self._installed:
            return
        signal.set_wakeup_fd(self._previous_fd)
        signal.signal(signal.SIGTERM, self._previous)
        self._write.close()  # ends the watching thread
        self._installed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """The wakeup descriptor has told the watching thread already."""

    def _watch(self) -> None:
        with self._read:
            while received := self._read.recv(1):
                if received[0] == signal.SIGTERM:
                    self.requested = True
                    for action in self._actions:
                        action()
