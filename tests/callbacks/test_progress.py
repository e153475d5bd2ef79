"""Progress messages of training."""

import json
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
