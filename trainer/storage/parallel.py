"""Parallel calls, for actions that wait for a bucket or a disk."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

NUM_THREADS = 8
"""Number of parallel calls; a client of Cloud Storage keeps ten connections open."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def call_in_parallel(action: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Returns the results of an action in the order of the items.

    The first error in this order is raised after the running calls have ended. It cancels the calls that wait.
    """
    with ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="parallel") as threads:
        return list(threads.map(action, items))
