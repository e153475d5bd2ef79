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


@pytest.mark.parametrize("first_step", [0, 900])
def test_the_time_left_is_that_of_this_sessions_speed(first_step, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_is_interactive", lambda: True)
    callback, model = progress.Progress(), types.SimpleNamespace(step=first_step)
    callback.set_params({"num_steps": first_step + 100})
    callback.set_model(model)
    callback.on_train_begin()
    begin = time.time()
    for done, secs in ((20, 40.0), (10, 45.0), (40, 100.0)):  # 2 s per step, a rollback, and 50 steps in 100 s
        model.step = first_step + done
        monkeypatch.setattr(time, "time", lambda secs=secs: begin + secs)
        callback.on_train_batch_end(0, {})
    shown = capsys.readouterr().out
    assert f"{first_step + 40}/{first_step + 100}" in shown
    assert "2:39" in shown or "2:40" in shown  # 80 steps at 2 s
    assert "1:59" in shown or "2:00" in shown  # 60 steps at 2 s
