"""Memory of weights: a limit that is checked before memory is taken for them, and networks that take none."""

import contextlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state

from trainer.config.settings import Settings
from trainer.errors import NetworkError
from trainer.networks.drawing_limit import limited_drawing

DEFAULT_MAX_WEIGHTS = Settings.max_weights

_BYTES_PER_WEIGHT = 16
"""Memory of a float32 weight in training: its value, its gradient, and two moments of Adam."""


@contextlib.contextmanager
def limited_weights(max_weights: int) -> Iterator[None]:
    """Limits the number of weights of the variables that are made in this context.

    A variable that would exceed the limit is rejected before its initial value is computed, and so is a layer that
    draws more random numbers at once for initial values.

    Raises:
        NetworkError: If the variables have more weights than `max_weights`.
    """
    num_weights = 0
    refusal: NetworkError | None = None

    def create(next_creator: Callable[..., tf.Variable], **settings: Any) -> tf.Variable:
        nonlocal num_weights, refusal
        shape = _shape(settings["initial_value"])
        num_weights += math.prod(shape)
        if num_weights > max_weights:
            refusal = _excess(settings.get("name"), shape, num_weights, max_weights)
            raise refusal
        return next_creator(**settings)

    def check_draw(layer: str, count: int) -> None:
        nonlocal refusal
        if count > max_weights:
            refusal = NetworkError(
                f"the layer {layer} draws {count:,} random numbers at once for its initial weights, but "
                f"max_weights={max_weights:,}; make networks or images smaller, give fewer classes, or raise "
                "max_weights."
            )
            raise refusal

    try:
        with tf.variable_creator_scope(create), limited_drawing(check_draw):
            yield
    except Exception:
        _forget_pending_variables()
        if refusal is not None:  # Keras adds lines about the arguments of the layer that made the variable
            raise refusal from None
        raise


def check_num_weights(networks: Iterable[keras.layers.Layer], max_weights: int) -> None:
    """Checks the number of weights of networks that were built, such as those of `without_weights`.

    Args:
        networks: Networks. One that is given twice counts twice.
        max_weights: Largest number of weights.

    Raises:
        NetworkError: If they have more.
    """
    num_weights = 0
    for network in networks:
        for variable in network.variables:
            num_weights += math.prod(variable.shape)
            if num_weights > max_weights:
                raise _excess(variable.name, variable.shape, num_weights, max_weights)


def _excess(name: str | None, shape: tuple[int, ...], num_weights: int, max_weights: int) -> NetworkError:
    """Returns the error for the variable with which the number of weights exceeds the limit."""
    gib = num_weights * _BYTES_PER_WEIGHT / 2**30
    return NetworkError(
        f"the networks have at least {num_weights:,} weights (the last one, {name}, has the shape {shape}), which need "
        f"{gib:,.1f} GiB in training, but max_weights={max_weights:,}; make networks, latents or images smaller, or "
        "raise max_weights."
    )


@contextlib.contextmanager
def without_weights() -> Iterator[None]:
    """Makes networks that are built in this context take no memory for weights. Only their layers can be used."""
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        _forget_pending_variables()


def _forget_pending_variables() -> None:
    """Removes variables without a value, which Keras would otherwise initialize with the next network.

    Keras keeps the variables that are made in `call` in a private list. A test fails if that changes.
    """
    global_state.set_global_attribute("uninitialized_variables", [])


def _shape(initial_value: Any) -> tuple[int, ...]:
    """Returns the shape of a variable that is being made.

    Keras passes a function without arguments that computes the value. It has no public way to ask for the shape, but
    the function's closure has the `keras.Variable`, whose shape is known. A test fails if that changes.
    """
    if not callable(initial_value):
        return tuple(np.shape(initial_value))
    variable = inspect.getclosurevars(initial_value).nonlocals.get("self")
    return tuple(variable.shape) if isinstance(variable, keras.Variable) else ()
