"""Windows, their boundaries, and the request to stop."""

import contextlib
import gc
import itertools
import os
import signal
import threading
import time
import weakref

import keras
import numpy as np
import pytest
from conftest import tiny_gan, values_of
from refusals import check_refusal

from trainer import signals
from trainer.callbacks import Checkpoint
from trainer.data.pipeline.batching import Chunk
from trainer.errors import ConfigError
from trainer.models.step_plan import step_plan
from trainer.training import device_loop
from trainer.training.device_loop import DeviceLoop
from trainer.training.distributed import consensus
from trainer.training.preemption import Preemption


def boundaries(digits, callbacks=(), start=0, **settings):
    seen = []
    gan = tiny_gan()
    gan.step = start
    record = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(gan.step))
    gan.fit(digits.images[:160], batch_size=16, verbose=0, callbacks=[*callbacks, record], **settings)
    return seen


def every(steps):
    callback = keras.callbacks.Callback()
    callback.every_steps = steps
    return callback


def test_executions_end_at_their_length_at_epochs_and_at_callbacks(digits):
    assert boundaries(digits, steps=12, steps_per_execution=4) == [4, 8, 10, 12]
    assert boundaries(digits, [every(3)], steps=9, steps_per_execution=20) == [3, 6, 9]


def test_executions_end_at_the_callbacks_of_every_machine(digits, monkeypatch):
    """Otherwise, the machines would wait for each other forever: only the chief has callbacks that write."""
    of_other_machine = iter([0, 2, 5, 7])  # its step, the number of its intervals, and the intervals
    monkeypatch.setattr(device_loop, "spans_machines", lambda strategy: True)
    monkeypatch.setattr(consensus, "gather_per_replica", lambda _, number: [number, next(of_other_machine, 0)])
    assert boundaries(digits, [every(4)], steps=9, steps_per_execution=20) == [4, 5, 7, 8, 9]


def test_boundaries_do_not_depend_on_where_a_run_was_cut(digits):
    assert boundaries(digits, steps=12, steps_per_execution=4, start=5) == [8, 10, 12]


@pytest.mark.parametrize("architecture", ["mlp", "dcgan"])
def test_a_request_to_stop_ends_an_execution_after_its_step(digits, architecture):
    gan = tiny_gan(architecture)
    loop = DeviceLoop(step_plan(gan, 16), gan.make_chunk(digits.images, None), gan.compiled_state.strategy)
    loop(0, 1)
    threading.Timer(0.1, lambda: loop.stop.assign(True)).start()
    logs = loop(1, 10**9)
    reached = loop.next_step
    assert 1 <= reached < 10**9
    assert int(gan.optimizers["generator"].iterations.numpy()) == reached
    assert set(logs) >= {"loss/generator", "loss/discriminator"}


def test_every_replica_has_the_data_on_its_device(digits, two_replicas, monkeypatch):
    devices, tensors_of = [], Chunk.tensors

    def tensors(chunk):
        content = tensors_of(chunk)
        devices.append({tensor.device for tensor in content.values()})
        return content

    monkeypatch.setattr(Chunk, "tensors", tensors)
    gan = tiny_gan(strategy=two_replicas)
    gan.fit(digits.images[:32], batch_size=16, steps=1, verbose=0)
    assert devices == [{device} for device in two_replicas.extended.worker_devices]


def test_a_gan_keeps_one_device_loop_without_data(digits, monkeypatch):
    loops, create = weakref.WeakSet(), DeviceLoop.__init__
    monkeypatch.setattr(DeviceLoop, "__init__", lambda self, *args: create(self, *args) or loops.add(self))
    gan = tiny_gan()
    for steps, batch_size in ((1, 16), (2, 16), (3, 8)):
        gan.fit(digits.images[:32], batch_size=batch_size, steps=steps, verbose=0)
        gc.collect()
        assert len(loops) == 1
    del gan
    gc.collect()
    assert not loops


def test_a_request_to_stop_ends_the_tracing_of_the_step_at_once(digits, monkeypatch):
    def terminate(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(2000):
            time.sleep(0.01)

    def state_after(steps, gan):
        gan.fit(digits.images[:32], batch_size=16, steps=steps, verbose=0, handle_sigterm=True)
        return values_of(gan)

    gan = tiny_gan()
    started = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(gan, "forward", terminate)
        state_after(2, gan)
    assert gan.preempted and gan.step == 0 and time.monotonic() - started < 10
    expected = state_after(2, tiny_gan())
    for name, values in state_after(2, gan).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_fit_continues_after_a_request_to_stop(digits):
    def terminate(batch, logs):
        os.kill(os.getpid(), signal.SIGTERM)
        while not gan.preempted:  # a thread receives the signal
            pass

    gan = tiny_gan()
    stopping = keras.callbacks.LambdaCallback(on_train_batch_end=terminate)
    gan.fit(
        digits.images[:32],
        batch_size=16,
        steps=3,
        steps_per_execution=1,
        callbacks=[stopping],
        verbose=0,
        handle_sigterm=True,
    )
    assert gan.step == 1 and gan.preempted
    gan.fit(digits.images[:32], batch_size=16, steps=3, verbose=0)
    assert gan.step == 3 and not gan.preempted


@pytest.mark.parametrize("is_before", [True, False])
@pytest.mark.parametrize(("call", "raises"), [*((call, False) for call in range(4)), (0, True), (1, True), (2, True)])
def test_sigterm_is_not_lost_while_its_handler_changes(monkeypatch, call, is_before, raises):
    """Signals arrive around each of the four calls that set the handler and the descriptor, and set them back."""
    received, calls, preemption = [], itertools.count(), Preemption()

    def handle(number, frame):
        received.append(number)
        if raises:
            raise signals.Terminated

    def disturbed(plain):
        def change(*arguments, **settings):
            is_now = next(calls) == call
            if is_now and is_before:
                signal.raise_signal(signal.SIGTERM)
            result = plain(*arguments, **settings)
            if is_now and not is_before:
                signal.raise_signal(signal.SIGTERM)
            return result

        return change

    previous = signal.signal(signal.SIGTERM, handle)
    with monkeypatch.context() as patch, contextlib.suppress(signals.Terminated):
        for name in ("signal", "set_wakeup_fd"):
            patch.setattr(signal, name, disturbed(getattr(signal, name)))
        with preemption.listen(True):
            pass
    assert signal.signal(signal.SIGTERM, previous) is handle and signal.set_wakeup_fd(-1) == -1
    assert next(calls) > call and (received or preemption.requested)


@pytest.mark.parametrize(("steps", "ends"), [(3, [3]), (10, [10]), (15, [10, 15])])
def test_the_history_has_the_mean_of_an_epoch_that_was_not_finished(digits, steps, ends):
    seen, ended = [], []
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(logs["loss/generator"]),
        on_epoch_end=lambda epoch, logs: ended.append(epoch),
    )
    settings = {"batch_size": 16, "steps": steps, "steps_per_execution": 1, "callbacks": [record], "verbose": 0}
    history = tiny_gan().fit(digits.images[:160], **settings)
    parts = zip([0, *ends], ends, strict=False)
    np.testing.assert_allclose(history.history["loss/generator"], [np.mean(seen[a:b]) for a, b in parts], rtol=1e-5)
    assert history.epoch == list(range(len(ends)))
    assert ended == list(range(steps // 10))


def test_a_second_callback_with_checkpoints_is_refused(digits, tmp_path):
    active = [Checkpoint(tmp_path / name) for name in "ab"]
    check_refusal(lambda: boundaries(digits, active, steps=1), ConfigError, "callbacks", "2", "Checkpoint")
    assert not list(tmp_path.iterdir())
