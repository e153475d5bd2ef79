"""Lists the objects of a bucket in the order of their names. Several threads divide a long list.

A response has at most a page of names, and the next request begins where it ends, so that a single thread waits for
each response. Several threads list ranges of names at the same time. The distribution of the names is not known in
advance: if a thread is idle, another one leaves it the upper half of the range that it has not listed yet.
"""

import bisect
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from trainer.errors import count_of
from trainer.storage.base import StorageEntry

_NUM_THREADS = 8
_PAGE_SIZE = 1000
"""Maximum number of objects in a response of Cloud Storage."""
_NUM_DIGITS = 6
"""Number of characters after a common prefix that determine the middle of two names."""
_SECS_BETWEEN_MESSAGES = 5.0
_LAST_BEFORE_SURROGATES, _FIRST_AFTER_SURROGATES, _LAST = "\ud7ff", "\ue000", "\U0010ffff"

_logger = logging.getLogger(__name__)

_FetchPage = Callable[[str, bool, str, int], tuple[list[StorageEntry], bool]]
"""Returns a page of objects in the order of their names, and whether there are more.

The arguments are the first name, whether it is included, the name before which the page ends (empty: no end), and the
maximum number of objects, at least 1. The page is only empty if there are no such objects.
"""


def list_objects(
    list_blobs: Callable[..., Any], prefix: str, origin: str, *, in_parallel: bool
) -> list[list[StorageEntry]]:
    """Returns all objects with a prefix in the order of their names, in pages.

    Args:
        list_blobs: Method of the client with the bucket and other settings, which takes `prefix`, `start_offset`,
            `end_offset`, `page_size` and `fields`.
        prefix: Prefix of the objects, which the results leave out.
        origin: Name of the folder, for messages.
        in_parallel: Whether several threads call `list_blobs` if there is more than one page. Without it, one call
            lists all pages, as a delimiter requires.

    Raises:
        Exception: The first exception that `list_blobs` raises.
    """

    def fetch(start: str, includes_start: bool, end: str, limit: int) -> tuple[list[StorageEntry], bool]:
        blobs = list_blobs(
            prefix=prefix,
            start_offset=prefix + start if start else None,
            end_offset=prefix + end if end else None,
            page_size=limit,
            fields="items(name,size,crc32c),nextPageToken",
        )
        entries: list[StorageEntry] = []
        for page in blobs.pages:
            entries += [StorageEntry(blob.name[len(prefix) :], blob.size, blob.crc32c) for blob in page]
            if entries and entries[0].name == start and not includes_start:
                del entries[0]
            if entries and in_parallel:  # a page may be empty although others follow
                return entries, blobs.next_page_token is not None
        return entries, False

    page, has_more = fetch("", True, "", _PAGE_SIZE)
    if not has_more:
        return [page]
    return [page, *_ParallelListing(fetch, origin, len(page)).list_after(page[-1].name)]


class _ParallelListing:
    """Listing of the objects after a first page.

    Args:
        fetch: Function that returns a page.
        origin: Name of the folder, for messages.
        num_listed: Number of objects of the first page.
    """

    def __init__(self, fetch: _FetchPage, origin: str, num_listed: int):
        self._fetch, self._origin, self._num_listed = fetch, origin, num_listed
        self._pages: dict[str, list[list[StorageEntry]]] = {}
        self._characters: set[str] = set()
        self._changed = threading.Condition()
        self._num_running = 0
        self._error: BaseException | None = None
        self._must_end = False
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="listing")

    def list_after(self, name: str) -> list[list[StorageEntry]]:
        """Returns the pages of the objects after a name."""
        with self._threads:
            try:
                self._start(name, False, "")
                self._wait()
            finally:
                self._must_end = True
        if self._error is not None:
            raise self._error
        return [page for start in sorted(self._pages) for page in self._pages[start]]

    def _wait(self) -> None:
        """Waits until all ranges are listed or one of them cannot be listed."""
        next_message = time.monotonic() + _SECS_BETWEEN_MESSAGES
        with self._changed:
            while self._num_running and self._error is None:
                self._changed.wait(max(0.0, next_message - time.monotonic()))
                if time.monotonic() >= next_message:
                    _logger.info(f"Listed {count_of(self._num_listed, 'file')} of {self._origin}.")
                    next_message += _SECS_BETWEEN_MESSAGES

    def _start(self, start: str, includes_start: bool, end: str) -> None:
        with self._changed:
            self._pages[start] = []
            self._num_running += 1
        self._threads.submit(self._run, start, includes_start, end)

    def _run(self, start: str, includes_start: bool, end: str) -> None:
        try:
            self._list(start, includes_start, end)
        except BaseException as error:
            self._error = self._error or error
        finally:
            with self._changed:
                self._num_running -= 1
                self._changed.notify()

    def _list(self, start: str, includes_start: bool, end: str) -> None:
        """Lists the names from `start` to before `end`, except those that are handed over to other threads."""
        pages, is_tight, has_more = self._pages[start], False, True
        while has_more and not self._must_end:
            page, has_more = self._fetch(start, includes_start, end, _PAGE_SIZE)
            if not page:
                return
            pages.append(page)
            start, includes_start = page[-1].name, False
            self._learn_characters(page)
            with self._changed:
                self._num_listed += len(page)
                has_idle_threads = self._num_running < _NUM_THREADS
            if not has_more or not has_idle_threads:
                continue
            if not is_tight:
                end, is_tight = self._tighten(page[0].name, start, end), True
            middle = self._middle(start, end)
            if middle is not None:
                self._start(middle, True, end)
                end = middle

    def _tighten(self, first: str, last: str, end: str) -> str:
        """Returns the name after those with the longest prefix that all names have, but not one after `end`.

        Without it, a long prefix such as that of a folder would need a request for each bit to find the middle.

        Args:
            first: First name of a page.
            last: Last name of the page.
            end: Name before which the names end; empty if there is no end.
        """
        ends = [end]  # from the shortest prefix to the longest one
        for length in range(1, _num_common(first, last) + 1):
            candidate = _successor(last[:length])
            if candidate and (not end or candidate < end):
                ends.append(candidate)
        low, high = 0, len(ends)  # no name is between ends[low] and `end`
        while high - low > 1 and not self._must_end:
            middle = (low + high) // 2
            page, _ = self._fetch(ends[middle], True, end, 1)
            self._learn_characters(page)
            low, high = (low, middle) if page else (middle, high)
        return ends[low]

    def _learn_characters(self, page: Sequence[StorageEntry]) -> None:
        with self._changed:
            self._characters.update(*(entry.name for entry in page))

    def _middle(self, start: str, end: str) -> str | None:
        with self._changed:
            characters = "".join(sorted(self._characters))
        return middle_name(start, end, characters)


def middle_name(start: str, end: str, characters: str) -> str | None:
    """Returns a name between two others, about in the middle; None if there is none of such characters.

    Args:
        start: The lower name.
        end: The upper name; empty for the end of all names.
        characters: Characters of the names, in ascending order.
    """
    num_common = _num_common(start, end)
    base = len(characters) + 1  # digit 0 is the end of a name
    low = high = 0
    for position in range(num_common, num_common + _NUM_DIGITS):
        low = low * base + bisect.bisect_right(characters, start[position : position + 1])
        high = high * base + (bisect.bisect_left(characters, end[position]) + 1 if position < len(end) else 0)
    if not end:
        high = base**_NUM_DIGITS
    middle, digits = (low + high) // 2, []
    for _ in range(_NUM_DIGITS):
        middle, digit = divmod(middle, base)
        digits.append(digit)
    text = ""
    for digit in reversed(digits):
        if not digit:
            break
        text += characters[digit - 1]
    name = start[:num_common] + text
    return name if start < name and (not end or name < end) else None


def _num_common(name: str, other: str) -> int:
    """Returns the length of the common prefix of two names."""
    pairs = zip(name, other, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(name), len(other)))


def _successor(prefix: str) -> str:
    """Returns the first name after all names with a prefix; empty if there is none."""
    prefix = prefix.rstrip(_LAST)
    if not prefix:
        return ""
    last = prefix[-1]
    return prefix[:-1] + (_FIRST_AFTER_SURROGATES if last == _LAST_BEFORE_SURROGATES else chr(ord(last) + 1))
