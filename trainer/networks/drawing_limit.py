"""Limit of random numbers that a layer draws at once for its initial weights, beyond the weights that it keeps."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

_CHECK: contextvars.ContextVar[Callable[[str, int], None] | None] = contextvars.ContextVar("check", default=None)


@contextlib.contextmanager
def limited_drawing(check: Callable[[str, int], None]) -> Iterator[None]:
    """Calls a function before a layer in this context draws, with the layer's name and the number of random numbers."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def check_drawing(layer: str, count: int) -> None:
    """Checks that a layer may draw `count` random numbers at once.

    Raises:
        NetworkError: If the limit of the context is lower.
    """
    check = _CHECK.get()
    if check is not None:
        check(layer, count)
