"""Losses and gradients that are not finite in chosen steps."""

import numpy as np
import tensorflow as tf


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
