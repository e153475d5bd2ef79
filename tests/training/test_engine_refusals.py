"""Checkpoints, schedules, optimizers and strategies that are refused."""

import json
import socket

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_config, uncompiled_gan
from refusals import check_refusal

from trainer.cloud.emulator.replicas import free_ports
from trainer.environment import Environment
from trainer.errors import CheckpointError, ConfigError
from trainer.training.checkpoint.run_history import RunHistory
from trainer.training.checkpoint.store import CheckpointStore
from trainer.training.distributed import consensus, strategy
from trainer.training.schedules import Ramp


def state_of(*shape):
    return {"a/000/kernel": keras.Variable(np.zeros(shape, np.float32))}


def saved(folder, config="a"):
    """A store with a checkpoint of step 1."""
    store = CheckpointStore(folder, history=RunHistory.start({"config": config}))
    store.save(state_of(3, 2), 1)
    store.wait()
    return store


def test_checkpoints_none_of_which_verifies_are_refused(tmp_path):
    store = saved(tmp_path)
    (store.folder(1) / "MANIFEST.json").write_text("{}")

    def act():
        store.restore(state_of(3, 2))

    check_refusal(act, CheckpointError, str(tmp_path), "step-00000001/MANIFEST.json", "job_dir")


def test_the_checkpoint_of_another_config_is_refused(tmp_path):
    saved(tmp_path)
    other = CheckpointStore(tmp_path, history=RunHistory.start({"config": "b"}))
    check_refusal(lambda: other.restore(state_of(3, 2)), CheckpointError, "1", "config", str(tmp_path))


def test_the_checkpoint_of_another_network_is_refused(tmp_path):
    store = saved(tmp_path)
    mentions = ("step-00000001", "a/000/kernel", "(3, 2)", "(4, 2)")
    check_refusal(lambda: store.restore(state_of(4, 2)), CheckpointError, *mentions)


def compiled(optimizer, strategy=None):
    uncompiled_gan().compile(optimizer=optimizer, strategy=strategy)


def set_learning_rate(rate):
    gan = uncompiled_gan()
    gan.compile(optimizer="adam")
    gan.optimizer.learning_rate = rate


@pytest.mark.parametrize(
    ("act", "mentions"),
    [
        (lambda: Ramp(1.0, 0.0, steps=5, begin=5), ("5",)),
        (lambda: Ramp(1.0, 0.0, steps=5, shape="cosin"), ("shape", "cosin", "linear", "cosine")),
        *(
            (lambda make=make: compiled(make()), mentions)
            for make, *mentions in (
                (lambda: keras.optimizers.SGD(float("nan")), "learning_rate", "nan"),
                (lambda: keras.optimizers.SGD(-1.0), "learning_rate", "-1"),
                (lambda: keras.optimizers.SGD(lambda: -1.0), "learning_rate", "-1.0"),
                (lambda: keras.optimizers.SGD(Ramp(-1.0, 1.0, 9)), "learning_rate", "-1"),
                (
                    lambda: keras.optimizers.SGD(
                        keras.optimizers.schedules.PiecewiseConstantDecay([1], [np.float64(0.1), 0.01])
                    ),
                    *("learning_rate", "schedule"),
                ),
                (lambda: keras.optimizers.Adam(beta_1=1.5), "beta_1", "1.5"),
                (lambda: keras.optimizers.RMSprop(rho=-0.5), "rho", "-0.5"),
                (lambda: keras.optimizers.SGD(clipnorm=-1.0), "clipnorm", "-1.0"),
                (lambda: keras.optimizers.AdamW(weight_decay=-1.0), "weight_decay", "-1.0"),
            )
        ),
        *(
            (lambda rate=rate: set_learning_rate(rate), ("learning_rate", str(rate)))
            for rate in (float("nan"), -1.0, float("inf"), "fast", "0.1", b"0.1")
        ),
        (lambda: compiled(keras.optimizers.SGD(0.1, loss_scale_factor=8.0)), ("optimizer", "float16")),
        (lambda: compiled(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))), ("optimizer", "float16")),
    ],
)
def test_schedules_and_optimizers_that_cannot_be_are_refused(act, mentions):
    check_refusal(act, ConfigError, *mentions)


def test_gradients_do_not_accumulate_on_several_replicas(two_replicas):
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    check_refusal(lambda: compiled(optimizer, two_replicas), ConfigError, "gradient_accumulation_steps", "2")


def test_machines_that_resume_at_different_steps_are_refused(monkeypatch):
    monkeypatch.setattr(consensus, "gather_per_replica", lambda strategy, number: [100, 0])

    def act():
        consensus.check_same_step(tf.distribute.get_strategy(), 100)

    check_refusal(act, CheckpointError, "100", "0", "job_dir")


def cluster(monkeypatch, chief="a:1"):
    """The cluster of the chief of two machines."""
    spec = {"cluster": {"chief": [chief], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(spec))
    return Environment.read().cluster


def test_several_machines_are_refused_where_there_is_one():
    def act():
        strategy.create(tiny_config(strategy="multi_worker"))

    check_refusal(act, ConfigError, "strategy", "multi_worker", "TF_CONFIG", "mirrored", "one_device")


@pytest.mark.parametrize("name", ["one_device", "mirrored"])
def test_a_strategy_of_one_machine_is_refused_where_there_are_two(name, monkeypatch):
    machines = cluster(monkeypatch)
    check_refusal(lambda: strategy.create(tiny_config(strategy=name), machines), ConfigError, "strategy", name, "2")


def test_a_machine_logs_that_it_waits_for_the_others(monkeypatch, trainer_log):
    machines, logged = cluster(monkeypatch, f"127.0.0.1:{free_ports(1)[0]}"), []
    create = "MultiWorkerMirroredStrategy"
    monkeypatch.setattr(strategy.tf.distribute, create, lambda **options: logged.append(trainer_log.text))
    strategy.create(tiny_config(), machines)
    assert "chief" in logged[0] and machines.address in logged[0] and "2" in logged[0]


def test_a_port_that_another_program_has_is_refused(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        machines = cluster(monkeypatch, address)
        check_refusal(lambda: strategy.create(tiny_config(), machines), ConfigError, address, "TF_CONFIG")
