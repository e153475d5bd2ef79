"""Processes that decode images. The memory of all of them together is bounded.

Images of more than a megapixel share a budget of pixels: if it is used up, a process waits until another one has
decoded its image.
"""

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.context import SpawnContext
from typing import Any

from trainer.data.prepare.contents import Content
from trainer.data.prepare.decoding import Encoded, encode
from trainer.data.prepare.pixels import Target
from trainer.errors import DataError
from trainer.image_io import MAX_PIXELS

_PIXELS_PER_TOKEN = 2**20
_MIN_TOKENS = -(-MAX_PIXELS // _PIXELS_PER_TOKEN)
_TOKENS_PER_PROCESS = 12
_NO_IMAGE = -1


class DecoderPool:
    """A pool of decoding processes. Close it after use.

    Args:
        target: Format of the results.
        num_processes: Number of processes.
    """

    def __init__(self, target: Target, num_processes: int):
        context = multiprocessing.get_context("spawn")  # a fork of a process with TensorFlow's threads may hang
        self._current: Any = context.Array("q", [_NO_IMAGE] * num_processes, lock=False)
        arguments = target, _PixelBudget(context, num_processes), self._current, context.Value("i", 0)
        self._processes = concurrent.futures.ProcessPoolExecutor(num_processes, context, _start_process, arguments)

    def submit(self, batch: Sequence[tuple[int, Content | DataError]]) -> concurrent.futures.Future[list[Encoded]]:
        """Starts to encode a batch of images.

        Args:
            batch: Index in the source, and content, of each image.
        """
        return self._processes.submit(_encode_batch, batch)

    def current_images(self) -> list[int]:
        """Returns the indices of the images that were being decoded, after a process was killed."""
        return sorted(index for index in self._current if index != _NO_IMAGE)

    def close(self) -> None:
        """Waits for the running calls and ends the processes."""
        self._processes.shutdown(cancel_futures=True)


class _PixelBudget:
    """Number of pixels that all processes decode at a time, in tokens of a megapixel."""

    def __init__(self, context: SpawnContext, num_processes: int):
        self._num_tokens = max(_MIN_TOKENS, _TOKENS_PER_PROCESS * num_processes)
        self._tokens = context.Semaphore(self._num_tokens)
        self._turn = context.Lock()  # one process at a time collects tokens
        self._num_held = 0

    def reserve(self, num_pixels: int) -> None:
        """Waits until the memory for an image is available."""
        num_tokens = min(num_pixels // _PIXELS_PER_TOKEN, self._num_tokens)
        if num_tokens:
            with self._turn:
                for _ in range(num_tokens):
                    self._tokens.acquire()
                    self._num_held += 1

    def release(self) -> None:
        """Ends the reservation of the last image."""
        while self._num_held:
            self._num_held -= 1
            self._tokens.release()


class _Process:
    """State of a decoding process."""

    encode: functools.partial[Encoded]
    budget: _PixelBudget
    current: Any
    number: int


def _start_process(target: Target, budget: _PixelBudget, current: Any, counter: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff prints a line for each damage
    with counter.get_lock():
        _Process.number = counter.value
        counter.value += 1
    _Process.encode = functools.partial(encode, target, reserve=budget.reserve)
    _Process.budget, _Process.current = budget, current


def _end_with_parent() -> None:
    """Ends this process when its parent ends, also if the parent was killed. The queue of batches never closes then."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode_batch(batch: Sequence[tuple[int, Content | DataError]]) -> list[Encoded]:
    results = []
    with contextlib.ExitStack() as at_end:
        at_end.callback(_set_current, _NO_IMAGE)
        for index, content in batch:
            _set_current(index)
            try:
                results.append(_Process.encode(content))
            finally:
                _Process.budget.release()
    return results


def _set_current(index: int) -> None:
    _Process.current[_Process.number] = index
