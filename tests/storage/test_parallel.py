"""Parallel calls: results in order, and the end after an error."""

import threading
import time

import pytest

from trainer.storage import parallel
from trainer.storage.parallel import call_in_parallel


def test_results_have_the_order_of_the_items():
    both_run = threading.Barrier(2, timeout=10)
    assert call_in_parallel(lambda item: (both_run.wait(), item * 2)[1], iter([3, 1])) == [6, 2]
    assert call_in_parallel(str, []) == []


def test_the_first_error_cancels_the_calls_that_wait(monkeypatch):
    monkeypatch.setattr(parallel, "NUM_THREADS", 1)
    called = []

    def act(item):
        called.append(item)
        if item == 0:
            raise ValueError("first")
        time.sleep(0.05)

    with pytest.raises(ValueError, match="first"):
        call_in_parallel(act, range(200))
    assert len(called) < 100
