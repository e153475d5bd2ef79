"""The report of a running run: when it is written, and that training does not wait for it or fail with it."""

import threading
import time

import pytest

from trainer import callbacks

METRICS = {"metric/x": 1.0}


def wait_for(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_report_is_written_after_evaluations_and_at_the_end():
    calls = []
    with callbacks.ReportWriter(lambda: calls.append(1)) as writer:
        writer.on_train_begin({})
        wait_for(lambda: len(calls) == 1)
        writer.on_train_batch_end(0, {"loss/x": 1.0})
        time.sleep(0.1)
        assert len(calls) == 1
        writer.on_train_batch_end(0, METRICS)
        wait_for(lambda: len(calls) == 2)
    assert len(calls) == 3


def test_training_does_not_wait_for_a_slow_report():
    begun, release = threading.Event(), threading.Event()

    def write():
        begun.set()
        release.wait(5)

    with callbacks.ReportWriter(write) as writer:
        writer.on_train_begin({})
        begun.wait(5)
        begin = time.monotonic()
        for _ in range(100):
            writer.on_train_batch_end(0, METRICS)
        assert time.monotonic() - begin < 0.5
        release.set()


def test_writing_takes_at_most_one_percent_of_the_time():
    calls = []

    def write():
        calls.append(time.monotonic())
        time.sleep(0.01)

    with callbacks.ReportWriter(write) as writer:
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            writer.on_train_batch_end(0, METRICS)
            time.sleep(0.001)
    assert 2 <= len(calls) <= 4
    assert calls[1] - calls[0] >= 0.99


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyError("x"), MemoryError()])
def test_an_error_of_the_report_is_logged_once_and_does_not_end_the_run(trainer_log, error):
    def fail():
        raise error

    with callbacks.ReportWriter(fail) as writer:
        writer.on_train_begin({})
        wait_for(lambda: trainer_log.messages)
        writer.on_train_batch_end(0, METRICS)
    assert len(trainer_log.messages) == 1 and type(error).__name__ in trainer_log.text


def test_an_error_of_the_run_passes_through_after_the_last_report():
    calls = []
    with pytest.raises(ZeroDivisionError), callbacks.ReportWriter(lambda: calls.append(1)):
        raise ZeroDivisionError
    assert calls == [1]
