"""Ctrl-C, SIGTERM and SIGHUP: each ends a command with one sentence, from its first line until its process exits."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from trainer.errors import ExitCode, Interrupted


class Terminated(BaseException):
    """SIGTERM or SIGHUP, as `KeyboardInterrupt` is Ctrl-C. Training commits its state on SIGTERM first.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int = signal.SIGTERM):
        super().__init__(number)
        self.number = signal.Signals(number)


_HANDLED = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
_EXIT_CODES: dict[int, int] = {signal.SIGTERM: ExitCode.PREEMPTED, signal.SIGHUP: ExitCode.HUNG_UP}
_received: list[int] = []


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Makes the signals raise `KeyboardInterrupt` and `Terminated` in the main thread while the context is active.

    Signals that are ignored, such as SIGHUP by nohup, stay ignored. In other threads, the context has no effect. An
    error that leaves the context after a signal is replaced by the exception of the signal, except `Interrupted`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in _HANDLED}
    try:
        for number, handler in previous.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, _raise)
        yield
    except Interrupted:
        raise
    except Exception as error:
        if _received:  # a library replaced the exception of the signal by its own, as some modules do on import
            raise _exception(_received[0]) from error
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
        _received.clear()


def check() -> None:
    """Raises the exception of a signal again.

    Python drops an exception that a signal raises inside a finalizer or a callback of a library.
    """
    if _received:
        raise _exception(_received[0])


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Runs the main function of a process, and exits with the code that it returns or with that of a signal."""
    try:
        with raised():
            code = main()
    except (KeyboardInterrupt, Terminated) as error:
        code = end(error, "run the same command again")
    if code in (ExitCode.INTERRUPTED, *_EXIT_CODES.values()):
        # The interpreter would take a signal that a library has seen, or a second one, as its own exit code.
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed streams
            sys.stdout.flush()
        os._exit(code)
    for number in _HANDLED:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: os._exit(code))  # the work is done; the interpreter only frees its memory
    sys.exit(code)


def end(error: KeyboardInterrupt | Terminated, advice: str = "") -> int:
    """Prints the sentence of a signal and returns its exit code.

    Args:
        error: Exception of the signal.
        advice: What the user can do, for the end of the sentence.
    """
    reason, code = _reason_and_code(error)
    with contextlib.suppress(OSError):  # after SIGHUP, there may be no terminal
        print(f"error: {reason}{advice and '; '}{advice}.", file=sys.stderr, flush=True)
    return code


def explained(error: KeyboardInterrupt | Terminated, consequence: str) -> Interrupted:
    """Returns an error with the exit code of a signal.

    Args:
        error: Exception of the signal.
        consequence: What continues elsewhere and what the user can do, for the end of the sentence.
    """
    reason, code = _reason_and_code(error)
    return Interrupted(f"{reason}; {consequence}", code)


def _reason_and_code(error: KeyboardInterrupt | Terminated) -> tuple[str, int]:
    if isinstance(error, Terminated):
        return f"stopped by {error.number.name}", _EXIT_CODES[error.number]
    return "interrupted", int(ExitCode.INTERRUPTED)


def _exception(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)


def _raise(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    raise _exception(number)
