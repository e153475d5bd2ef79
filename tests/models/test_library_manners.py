"""`GAN.fit` as a library call: its output, its signal handlers, interruptions, and the inputs that it takes."""

import _thread
import logging
import signal
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_gan, uncompiled_gan, values_of
from refusals import check_refusal

from trainer.callbacks import Checkpoint
from trainer.errors import ConfigError, DataError


class Recorder(keras.callbacks.Callback):
    """Runs a function after each execution and keeps what it returns."""

    def __init__(self, function):
        super().__init__()
        self._function, self.values = function, []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(self._function())


def test_fit_prints_nothing_outside_of_a_terminal(digits, capsys):
    tiny_gan().fit(digits.images[:32], batch_size=16, steps=2)
    assert capsys.readouterr() == ("", "")


def test_fit_logs_its_progress_for_whoever_configures_logging(digits, caplog):
    with caplog.at_level(logging.INFO, logger="trainer"):
        tiny_gan().fit(digits.images[:32], batch_size=16, steps=2)
    assert {record.fields["step"] for record in caplog.records if "step" in getattr(record, "fields", {})} == {2}


@pytest.mark.parametrize("handle_sigterm", [False, True])
def test_fit_handles_sigterm_only_if_asked(digits, handle_sigterm):
    before = signal.getsignal(signal.SIGTERM)
    recorder = Recorder(lambda: signal.getsignal(signal.SIGTERM))
    settings = {"batch_size": 16, "steps": 2, "callbacks": [recorder], "verbose": 0}
    tiny_gan().fit(digits.images[:32], handle_sigterm=handle_sigterm, **settings)
    assert all((handler is not before) == handle_sigterm for handler in recorder.values) and recorder.values
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupted_fit_continues_with_the_same_bits(digits):
    settings = {"batch_size": 16, "steps": 2000, "steps_per_execution": 500, "verbose": 0}
    whole = tiny_gan()
    whole.fit(digits.images[:64], **settings)
    gan = tiny_gan()
    interrupt = threading.Timer(0.1, _thread.interrupt_main)

    class Interrupt(keras.callbacks.Callback):
        """Starts the timer when the second execution begins."""

        def on_train_batch_begin(self, batch, logs=None):
            if gan.step == 4:
                interrupt.start()

    with pytest.raises(KeyboardInterrupt):
        gan.fit(digits.images[:64], **settings, callbacks=[Interrupt()])
    assert 0 < gan.step < 2000
    gan.fit(digits.images[:64], **settings)
    expected = values_of(whole)
    assert all((value == expected[name]).all() for name, value in values_of(gan).items())


def test_a_generator_is_refused_by_its_type():
    images = (np.zeros((28, 28, 1)) for _ in range(4))
    check_refusal(lambda: tiny_gan().fit(images, batch_size=2, steps=1, verbose=0), DataError, "generator", "x")


def test_images_of_different_shapes_are_refused():
    images = [np.zeros((28, 28, 1)), np.zeros((27, 28, 1))]
    check_refusal(lambda: tiny_gan().fit(images, batch_size=2, steps=1, verbose=0), DataError, "x")


@pytest.mark.parametrize("convert", [list, tf.constant])
def test_lists_and_tensors_are_taken(digits, convert):
    gan = tiny_gan()
    gan.fit(convert(digits.images[:16]), batch_size=8, steps=1, verbose=0)
    assert gan.step == 1


@pytest.mark.parametrize("model", ["gan", "acgan"])
def test_compile_can_be_repeated_after_an_error(model):
    gan = uncompiled_gan(model=model)
    check_refusal(lambda: gan.compile(optimizer="adm"), ConfigError, "optimizer", "adm")
    gan.compile(optimizer="adam")
    assert gan.networks


def test_each_fit_restores_the_newest_checkpoint(digits, tmp_path):
    gan, checkpoint = tiny_gan(), Checkpoint(tmp_path, every_steps=2)
    settings = {"batch_size": 16, "verbose": 0, "callbacks": [checkpoint]}
    gan.fit(digits.images[:32], steps=2, **settings)
    expected = values_of(gan)
    gan.generator.set_weights([np.full_like(weight, np.nan) for weight in gan.generator.get_weights()])
    gan.fit(digits.images[:32], steps=2, **settings)
    assert all((value == expected[name]).all() for name, value in values_of(gan).items())


def test_a_checkpoint_is_restored_before_any_other_callback_begins(digits, tmp_path):
    steps = []

    class First(keras.callbacks.Callback):
        priority = 0

        def on_train_begin(self, logs=None):
            steps.append(self.model.step)

    for _ in range(2):
        callbacks = [First(), Checkpoint(tmp_path)]
        tiny_gan().fit(digits.images[:32], batch_size=16, steps=2, verbose=0, callbacks=callbacks)
    assert steps == [0, 2]
