"""Progress messages of training."""

import json
import time
import types

import pytest

from trainer import logging
from trainer.callbacks import progress


@pytest.mark.parametrize("logs", [{"loss/generator": 0.6931, "images_per_sec": 12345.6, "gradient_norm": 7.25}, {}])
def test_a_message_has_the_losses_and_images_per_second(logs, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_is_interactive", lambda: False)
    logging.install_handler()
    callback = progress.Progress()
    callback.set_params({"num_steps": 300})
    callback.set_model(types.SimpleNamespace(step=100))
    callback.on_train_begin()
    callback.on_train_batch_end(0, logs)
    entry = json.loads(capsys.readouterr().out)
    facts = ["100", "300", *(["loss/generator 0.6931", "12,345.6 images/s"] if logs else [])]
    assert all(fact in entry["message"] for fact in facts) and "7.25" not in entry["message"]
    assert entry["step"] == 100 and entry.get("images_per_sec") == logs.get("images_per_sec")


def shown_lines(monkeypatch, capsys, updates, *, columns, num_steps=1000, first_step=0):
    """Returns the lines that a terminal shows one after the other, for updates (step, seconds, logs)."""
    monkeypatch.setattr(progress, "_is_interactive", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    callback, model = progress.Progress(), types.SimpleNamespace(step=first_step)
    callback.set_params({"num_steps": num_steps})
    callback.set_model(model)
    begin = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: begin)
    callback.on_train_begin()
    for step, secs, logs in updates:
        model.step = step
        monkeypatch.setattr(time, "monotonic", lambda secs=secs: begin + secs)
        callback.on_train_batch_end(0, logs)
    callback.on_train_end()
    return capsys.readouterr().out.split("\r")[1:]


@pytest.mark.parametrize("first_step", [0, 900])
def test_the_time_left_is_that_of_this_sessions_speed(first_step, monkeypatch, capsys):
    progressed = ((20, 40.0), (10, 45.0), (40, 100.0))  # 2 s per step, a rollback, and 50 steps in 100 s
    updates = [(first_step + done, secs, {}) for done, secs in progressed]
    arguments = {"columns": 100, "num_steps": first_step + 100, "first_step": first_step}
    lines = shown_lines(monkeypatch, capsys, updates, **arguments)
    assert f"{first_step + 40}/{first_step + 100}" in lines[-1]
    assert "02:40 left" in lines[0]  # 80 steps at 2 s
    assert "02:00 left" in lines[-1]  # 60 steps at 2 s


@pytest.mark.parametrize("columns", [20, 60, 80, 100, 200])
def test_the_bar_fits_the_terminal(columns, monkeypatch, capsys):
    names = ("generator", "discriminator_a", "discriminator_b", "cycle_a", "cycle_b", "identity_a", "identity_b")
    logs = {"images_per_sec": 1234.5, **{f"loss/{name}": 1e-7 / 3 for name in names}}
    updates = [(1, 1.0, logs), (500, 1e6, logs), (999, 2e6, {"loss/generator": 0.5}), (1000, 2e6, logs)]
    *lines, last = shown_lines(monkeypatch, capsys, updates, columns=columns)
    assert len(lines) == 3 and last.endswith("\n")
    assert all(len(line) < columns for line in [*lines, last.rstrip("\n")])
    assert len(lines[2]) >= len(lines[1].rstrip())  # no rest of a longer line remains


def test_the_bar_shows_losses_and_speed(monkeypatch, capsys):
    logs = {"loss/generator": 0.6931, "loss/discriminator": 1.5, "images_per_sec": 1234.5, "gradient_norm": 7.25}
    (line,) = shown_lines(monkeypatch, capsys, [(500, 10.0, logs)], columns=80)
    assert all(fact in line for fact in ("500/1000", "00:10", "1,234 images/s", "generator 0.693", "discriminator 1.5"))
    assert "7.25" not in line
