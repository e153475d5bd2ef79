"""Runs that end early: by a lost machine, by an error, or by SIGTERM with state that is not finite."""

import json
import os
import signal
import threading
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_MLP, tiny_config

from trainer import task
from trainer.callbacks import watchdog
from trainer.environment import Environment
from trainer.errors import ExitCode
from trainer.training import run as training_run
from trainer.training.configure import configure
from trainer.training.distributed.cluster import parse_cluster

CLUSTER = {"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}
WORKER = Environment(cluster=parse_cluster(json.dumps(CLUSTER), None))


def test_a_machine_that_is_lost_while_networks_are_built_ends_the_others_for_a_restart(tmp_path, monkeypatch, capfd):
    def lost(*arguments, **settings):
        raise tf.errors.UnavailableError(None, None, "Socket closed")

    def end(code):
        raise SystemExit(code)

    monkeypatch.setattr(training_run.strategies, "create", lambda *_: tf.distribute.get_strategy())
    monkeypatch.setattr(training_run.consensus, "gather_per_replica", lambda _, number: [number] * 2)
    monkeypatch.setattr(training_run, "from_config", lost)
    monkeypatch.setattr(watchdog.os, "_exit", end)
    settings = {"architecture_options": TINY_MLP, "metrics": "none", "steps": 1, "job_dir": str(tmp_path / "run")}
    with pytest.raises(SystemExit) as ended:
        training_run.train(configure("vanilla", settings, WORKER), WORKER)
    assert ended.value.code == ExitCode.LOST_WORKER
    assert "UnavailableError" in capfd.readouterr().err


def test_the_watchdog_ends_with_an_error_of_training():
    def fit(*arguments, callbacks, **settings):
        for callback in callbacks:
            callback.on_train_begin()
        assert [thread for thread in threading.enumerate() if thread.name == "watchdog"]
        raise ArithmeticError

    run = training_run.Run(tiny_config(worker_timeout_secs=60), None, WORKER, None, None)
    run._gan, run._data = types.SimpleNamespace(fit=fit, takes_targets=False), types.SimpleNamespace(x=None)
    with pytest.raises(ArithmeticError):
        run._fit([])
    for thread in threading.enumerate():
        if thread.name == "watchdog":
            thread.join(10)
            assert not thread.is_alive()


class Disturbance(keras.callbacks.Callback):
    """Makes a weight infinite and sends SIGTERM after a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if self.model.step == self.step:
            weight = self.model.discriminator.weights[0]
            weight.assign(np.full(weight.shape, np.inf))
            os.kill(os.getpid(), signal.SIGTERM)
            while not self.model.preempted:  # a thread receives the signal
                time.sleep(0.001)


@pytest.mark.parametrize(("step", "saved"), [(5, "4"), (3, "2"), (1, None)])
def test_sigterm_with_state_that_is_not_finite_names_the_checkpoint_that_there_is(
    tmp_path, monkeypatch, capsys, step, saved
):
    writers = training_run.Run._writers
    monkeypatch.setattr(training_run.Run, "_writers", lambda self: [*writers(self), Disturbance(step)])
    flags = ["--recipe=vanilla", f"--architecture_options={json.dumps(TINY_MLP)}", "--metrics=none", "--steps=8"]
    flags += ["--noexport_model", "--steps_per_execution=1", "--checkpoint_every_steps=2", "--sample_every_steps=0"]
    assert task.main(["task", *flags, f"--job_dir={tmp_path}"]) == ExitCode.PREEMPTED
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "committed" not in error and f"step {step} of 8" in error
    assert ("checkpoints" in error and f"step {saved};" in error) if saved else "no checkpoint" in error
