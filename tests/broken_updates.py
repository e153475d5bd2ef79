"""Losses and gradients that are not finite in chosen steps, and runs with them."""

import keras
import numpy as np
import tensorflow as tf
from conftest import tiny_gan, values_of

from trainer.callbacks import Checkpoint, MetricsLog
from trainer.storage.run_directory import read_metrics
from trainer.training.checkpoint.manifest import state_sha256


@tf.custom_gradient
def with_gradient(values, extra):
    """Returns `values`, and adds `extra` to their gradient."""
    return values, lambda upstream: (upstream + extra, tf.zeros_like(extra))


def break_updates(gan, steps, *, phases=None, num_salts=1, value=np.nan, in_gradient=False):
    """Makes losses or gradients of a model not finite in some steps, until a number of rollbacks."""
    original = gan.forward

    def forward(images, labels, rng, names):
        losses, metrics = original(images, labels, rng, names)
        is_broken = tf.reduce_any(rng.step == tf.constant(list(steps), tf.int64))
        if isinstance(steps, range):
            is_broken = tf.logical_and(rng.step >= steps.start, rng.step < steps.stop)
        extra = tf.where(is_broken, value, 0.0) if rng.salt < num_salts else tf.zeros([])
        for name in names:
            if phases is None or name in phases:
                losses[name] = with_gradient(losses[name], extra) if in_gradient else losses[name] + extra
        return losses, metrics

    gan.forward = forward
    return gan


def diverging(steps=range(7, 12), num_salts=1, **settings):
    """Returns a model whose losses are NaN in some steps, until a number of rollbacks."""
    return break_updates(tiny_gan(ema_half_life_images=100.0, **settings), steps, num_salts=num_salts)


def fit(gan, images, steps, **settings):
    """Trains a model, and returns a copy of its state."""
    gan.fit(images, steps=steps, **({"batch_size": 16, "verbose": 0, "steps_per_execution": 20} | settings))
    return values_of(gan)


def run(folder, images, gan, steps=20, every_steps=3, callbacks=(), remote=None, **settings):
    """Trains with checkpoints in a folder, and returns the SHA-256 of the state."""
    checkpoint = Checkpoint(folder / "checkpoints", every_steps, remote=remote)
    log = MetricsLog(folder / "metrics.jsonl")
    return state_sha256(fit(gan, images, steps, callbacks=[checkpoint, log, *callbacks], **settings))


def interrupt_deletions(checkpoint, num_deletions, monkeypatch):
    """Makes the next rollback of a checkpoint callback end after some deletions, at the latest after all.

    Returns:
        A list that receives the steps whose checkpoints are deleted.
    """
    roll_back, delete, deleted = checkpoint.store.roll_back, checkpoint.store._delete, []

    def interrupted_delete(step, **settings):
        if len(deleted) == num_deletions:
            raise KeyboardInterrupt
        deleted.append(step)
        delete(step, **settings)

    def interrupted(*arguments, **settings):
        monkeypatch.setattr(checkpoint.store, "_delete", interrupted_delete)
        roll_back(*arguments, **settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.store, "roll_back", interrupted)
    return deleted


def rollbacks(folder):
    """Returns the lines about rollbacks in the log of a run, without their times."""
    lines, _ = read_metrics(folder / "metrics.jsonl")
    return [
        {name: value for name, value in line.items() if name != "time"} for line in lines if "event/rollback" in line
    ]


class Stop(keras.callbacks.Callback):
    """Interrupts training after a step, like SIGKILL, or stops it there with a checkpoint, like SIGTERM."""

    def __init__(self, step, num_rollbacks, is_killed=True):
        super().__init__()
        self._at, self._is_killed = (step, num_rollbacks), is_killed

    def on_train_batch_end(self, batch, logs=None):
        if (self.model.step, self.model.divergence.num_rollbacks) == self._at:
            if self._is_killed:
                raise KeyboardInterrupt
            self.model.stop_training = True
