"""Listing of many objects by several threads: the same list as page by page, in fewer successive requests."""

import bisect
import itertools
import statistics
import threading
import time
import types

import pytest
from hypothesis import given, settings, strategies

from trainer.errors import StorageError
from trainer.storage import gcs, locate, object_listing
from trainer.storage.object_listing import list_objects, middle_name


class ListedBucket:
    """A client's `list_blobs` for objects in memory. Some pages are empty although others follow, as in the service.

    Args:
        names: Names of the objects.
        prefix: Prefix of all of them.
        page_secs: Time of a request in seconds.

    Attributes:
        num_running: Number of requests that ran when each request began, including itself.
    """

    def __init__(self, names, prefix="", page_secs=0.0):
        self.names, self.page_secs = sorted(prefix + name for name in names), page_secs
        self.num_running, self._running = [], 0
        self._lock = threading.Lock()

    def list_blobs(self, *, prefix, start_offset, end_offset, page_size, fields):
        low = bisect.bisect_left(self.names, max(prefix, start_offset or ""))
        high = bisect.bisect_left(self.names, end_offset) if end_offset else len(self.names)
        names = [name for name in self.names[low:high] if name.startswith(prefix)]
        blobs = types.SimpleNamespace(next_page_token=None)
        blobs.pages = self._pages(names, page_size, blobs)
        return blobs

    def _pages(self, names, page_size, blobs):
        bounds = [0, *range(page_size, len(names) + page_size, page_size)]
        if len(names) % 3 == 1:
            bounds = [0, *bounds]
        for start, end in itertools.pairwise(bounds):
            with self._lock:
                self._running += 1
                self.num_running.append(self._running)
            time.sleep(self.page_secs)
            with self._lock:
                self._running -= 1
            blobs.next_page_token = "more" if end < len(names) else None
            yield [types.SimpleNamespace(name=name, size=len(name), crc32c="AAAAAA==") for name in names[start:end]]


def names_of(bucket, prefix=""):
    pages = list_objects(bucket.list_blobs, prefix, "gs://bucket", in_parallel=True)
    return [entry.name for page in pages for entry in page]


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(object_listing, "_PAGE_SIZE", 10)


NAMES = {
    "flat": [f"{number:06}.jpg" for number in range(2000)],
    "long prefix": [f"the_pictures_of_2026_of_camera_{number:09}.jpg" for number in range(2000)],
    "classes": [f"train/class_{number % 7}/sub/{number}.png" for number in range(2000)],
    "one large class": [f"a/{number}" for number in range(20)] + [f"n02/x_{number:05}" for number in range(1980)],
    "hashes": [f"{number * 2654435761 % 2**32:08x}" for number in range(2000)],
    "new characters": [f"{chr(0x4E00 + number % 30)}/\ud7ff{number}\U0010ffff\U0010ffff" for number in range(2000)],
    "markers": ["", *(f"{number}/" for number in range(50)), *(f"{number % 50}/{number}" for number in range(2000))],
}


@pytest.mark.parametrize("kind", NAMES)
def test_many_names_are_listed_in_order_with_several_requests_at_a_time(kind, small_pages):
    bucket = ListedBucket(NAMES[kind], "photos/", page_secs=0.002)
    assert names_of(bucket, "photos/") == sorted(NAMES[kind])
    assert statistics.mean(bucket.num_running) > (1.5 if kind == "new characters" else 2.0)
    assert max(bucket.num_running) <= 8
    assert len(bucket.num_running) < 2.5 * len(NAMES[kind]) / 10


@settings(max_examples=30, deadline=None)
@given(
    strategies.sets(
        strategies.text(strategies.sampled_from("ab/é\ud7ff\ue000\U0010ffff\x7f0"), max_size=3), max_size=80
    )
)
def test_any_names_are_listed_once_and_in_order(names):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_listing, "_PAGE_SIZE", 3)
        assert names_of(ListedBucket(names, "p/"), "p/") == sorted(names)


@settings(max_examples=50)
@given(strategies.text("abc", min_size=1), strategies.text("abcd"), strategies.sampled_from(["abc", "abcd", "b"]))
def test_a_middle_name_is_between_both_names(start, end, characters):
    name = middle_name(start, end, characters)
    assert name is None or (start < name and (name < end or not end))


def test_a_short_list_takes_one_request():
    bucket = ListedBucket([str(number) for number in range(999)])
    assert len(names_of(bucket)) == 999 and bucket.num_running == [1]


def test_an_error_of_a_thread_ends_the_listing(small_pages):
    bucket = ListedBucket(NAMES["flat"], page_secs=0.001)

    def list_blobs(**arguments):
        if len(bucket.num_running) > 40:
            raise StorageError("the bucket is gone.")
        return bucket.list_blobs(**arguments)

    with pytest.raises(StorageError, match="gone"):
        list_objects(list_blobs, "", "gs://bucket", in_parallel=True)
    assert len(bucket.num_running) < 60


def test_the_progress_of_a_long_listing_is_logged(small_pages, monkeypatch, trainer_log):
    monkeypatch.setattr(object_listing, "_SECS_BETWEEN_MESSAGES", 0.01)
    names_of(ListedBucket(NAMES["flat"], page_secs=0.005))
    messages = [record.getMessage() for record in trainer_log.records if "gs://bucket" in record.getMessage()]
    assert len(messages) >= 2


@pytest.mark.parametrize("fault", [None, 503])
def test_a_bucket_lists_the_same_files_from_several_threads(fault, bucket, proxy, monkeypatch):
    monkeypatch.setattr(object_listing, "_PAGE_SIZE", 3)
    folder = locate(bucket) / "photos"
    names = sorted(f"{'cat' if number % 3 else 'dog'}/{number}.png" for number in range(36))
    client = gcs.client()
    for name in names:
        client.bucket(folder.bucket).blob(f"photos/{name}").upload_from_string(name.encode())
    for name in ("photos.txt", "photos/cat/", "photos0/x"):  # beside the folder, and a folder of the console
        client.bucket(folder.bucket).blob(name).upload_from_string(b"")
    proxy.policy = lambda request: fault if request.number % 4 == 0 else None
    entries = list(folder.entries())
    assert [entry.name for entry in entries] == names
    assert all(entry.num_bytes == len(entry.name) and entry.crc32c for entry in entries)
    assert [entry.name for entry in (folder / "cat").entries(recursive=False)] == [n[4:] for n in names if n[0] == "c"]
