"""The events of a run's processes: what is recorded, and that it survives kills and resumes."""

import contextlib
import json
import time
import types

import keras
import pytest
from conftest import tiny_gan

from trainer import callbacks, stopwatch
from trainer.storage.run_directory import read_events


def session(path, step=0, num_steps=10, **arguments):
    """A log whose model is at a step; it is not started."""
    log = callbacks.SessionLog(path, **arguments)
    log.set_model(types.SimpleNamespace(step=step, preempted=False))
    log.set_params({"num_steps": num_steps})
    return log


def events_of(path):
    events, num_damaged = read_events(path)
    assert num_damaged == 0
    return [event["event"] for event in events]


@pytest.mark.parametrize(
    ("last_step", "preempted", "error", "reason"),
    [
        (10, False, None, "finished"),
        (10, True, None, "finished"),
        (7, True, None, "preempted"),
        (7, False, None, "stopped"),
        (7, False, KeyboardInterrupt, "KeyboardInterrupt"),
        (7, False, MemoryError, "MemoryError"),
    ],
)
def test_the_end_has_its_reason(tmp_path, last_step, preempted, error, reason):
    log = session(tmp_path / "e.jsonl", facts={"num_devices": 3})
    with pytest.raises(error) if error else contextlib.nullcontext(), log:
        log.on_train_begin()
        log.model.step, log.model.preempted = last_step, preempted
        if error:
            raise error
    (start, end), _ = read_events(tmp_path / "e.jsonl")
    assert (start["event"], start["step"], start["num_devices"]) == ("start", 0, 3)
    assert (end["event"], end["step"], end["reason"]) == ("end", last_step, reason)
    assert end["host_peak_bytes"] > 2**20 and set(end["secs"]) >= {"training", "evaluation", "data", "other"}


def test_a_session_that_never_started_leaves_no_file(tmp_path):
    with pytest.raises(ValueError), session(tmp_path / "e.jsonl"):
        raise ValueError
    assert not (tmp_path / "e.jsonl").exists()


def test_a_run_that_begins_again_measures_real_images_again(tmp_path):
    path = tmp_path / "e.jsonl"
    for value in (0.5, 0.7):
        session(path, real_vs_real=lambda value=value: {"frechet": value}).on_train_begin({"metric/frechet": 3.0})
    assert events_of(path) == ["start", "real_vs_real"] * 2
    assert read_events(path)[0][-1]["values"] == {"metric/frechet": 0.7}


def test_later_sessions_keep_the_events_of_killed_ones(tmp_path):
    path = tmp_path / "e.jsonl"
    session(path).on_train_begin()
    with path.open("a") as file:
        file.write('{"event": "progr')
    with session(path, step=4) as log:
        log.on_train_begin()
    lines = path.read_text().splitlines()
    assert [json.loads(lines[index])["event"] for index in (0, 2, 3)] == ["start", "start", "end"]
    assert lines[1] == '{"event": "progr'


def test_progress_is_recorded_once_per_minute(tmp_path, monkeypatch):
    log, clock = session(tmp_path / "e.jsonl"), [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    log.on_train_begin()
    for _ in range(300):
        clock[0] += 1
        log.on_train_batch_end(0, {})
    assert events_of(tmp_path / "e.jsonl") == ["start", *["progress"] * 5]


@pytest.mark.parametrize("first", ["at the begin", "after steps"])
def test_real_images_are_measured_once_after_the_first_evaluation(tmp_path, first):
    path, calls = tmp_path / "e.jsonl", []

    def real_vs_real():
        calls.append(1)
        return {"frechet": 0.5}

    metrics = {"metric/frechet": 3.0}
    log = session(path, real_vs_real=real_vs_real)
    log.on_train_begin(metrics if first == "at the begin" else {})
    log.on_train_batch_end(0, {"loss/x": 1.0})
    log.on_train_batch_end(0, dict(metrics))
    log.on_train_batch_end(0, dict(metrics))
    session(path, step=4, real_vs_real=real_vs_real).on_train_begin(metrics)
    assert events_of(path) == ["start", "real_vs_real", "start"] and len(calls) == 1
    assert read_events(path)[0][1]["values"] == {"metric/frechet": 0.5}


def test_the_logs_of_the_last_step_have_the_resource_figures(tmp_path):
    log, logs, last = session(tmp_path / "e.jsonl"), {}, {}
    log.on_train_begin()
    log.model.step = 9
    log.on_train_batch_end(0, logs)
    log.model.step = 10
    log.on_train_batch_end(0, last)
    assert not logs and all(isinstance(value, float) and value >= 0 for value in last.values())
    assert {"resources/training_secs", "resources/evaluation_secs", "resources/host_peak_bytes"} <= set(last)


def test_a_disk_that_cannot_be_written_does_not_end_training(tmp_path, trainer_log):
    (tmp_path / "e.jsonl").mkdir()
    with session(tmp_path / "e.jsonl") as log:
        log.on_train_begin()
        log.on_train_batch_end(0, {})
    assert len(trainer_log.messages) == 1 and "e.jsonl" in trainer_log.text


def test_the_seconds_of_a_fit_are_those_of_its_activities(tmp_path, digits):
    class Slow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            with stopwatch.measured(stopwatch.Activity.SAMPLES):
                time.sleep(0.05)

    gan = tiny_gan()
    checkpoint = callbacks.Checkpoint(tmp_path / "checkpoints", 2)
    with callbacks.SessionLog(tmp_path / "e.jsonl") as log:
        active = [Slow(), checkpoint, log]
        gan.fit(digits.images, batch_size=16, steps=4, steps_per_execution=2, callbacks=active, verbose=0)
    (start, end), _ = read_events(tmp_path / "e.jsonl")
    seconds = end["secs"]
    assert end["step"] == 4 and sum(seconds.values()) == pytest.approx(end["time"] - start["time"], abs=0.2)
    assert seconds["samples"] == pytest.approx(0.1, abs=0.05)
    assert seconds["training"] > 0 and seconds["checkpoints"] > 0 and seconds["data"] > 0
