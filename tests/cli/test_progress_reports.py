"""Progress of commands: log messages in a file, and one line on a terminal."""

import time

import numpy as np
import pytest

from trainer.cli import progress
from trainer.cli.progress import ProgressReporter


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name in ("_SECS_BETWEEN_MESSAGES", "_SECS_BETWEEN_UPDATES"):
        monkeypatch.setattr(progress, name, 0.01)


def wait_for(text, read):
    deadline = time.monotonic() + 20
    while text not in read():
        assert time.monotonic() < deadline, f"{text} in {read()!r}"
        time.sleep(0.01)


def test_images_of_blocks_are_counted_in_log_messages(trainer_log):
    with ProgressReporter(7) as reporter:
        blocks = reporter.follow(iter([np.zeros((3, 2, 2, 1)), np.zeros((2, 2, 2, 1))]))
        wait_for("0 of 7 images.", lambda: trainer_log.text)
        next(blocks)
        wait_for("3 of 7 images, ", lambda: trainer_log.text)
        next(blocks)
        wait_for("5 of 7 images, ", lambda: trainer_log.text)
    assert trainer_log.records[-1].fields["images_per_sec"] > 0
    count = len(trainer_log.records)
    time.sleep(0.05)
    assert len(trainer_log.records) == count


def test_nothing_is_reported_after_the_last_unit(trainer_log):
    with ProgressReporter(2) as reporter:
        reporter.update(2)
        wait_for("2 of 2 images, ", lambda: trainer_log.text)
        time.sleep(0.1)
        assert trainer_log.text.count("2 of 2 images") == 1


def test_a_terminal_has_one_line_that_is_cleared_at_the_end(monkeypatch, capsys, trainer_log):
    monkeypatch.setattr(progress, "is_terminal", lambda: True)
    written = []

    def read():
        written.append(capsys.readouterr().out)
        return "".join(written)

    with ProgressReporter(4, "step") as reporter:
        reporter.update(1)
        wait_for("1 of 4 steps, ", read)
    assert "\n" not in read() and read().endswith("\r\x1b[K")
    assert trainer_log.text == ""
