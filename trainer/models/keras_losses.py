"""Properties of Keras losses: objects of `keras.losses.Loss`, and functions `(y_true, y_pred)`."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from trainer.errors import NetworkError, TrainerError, quote


def name_of(function: Callable[..., Any]) -> str:
    """Returns the name of a loss for messages."""
    return getattr(function, "__name__", type(function).__name__)


def call_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of targets and predictions whose result is not averaged over the batch."""
    return function.call if isinstance(function, keras.losses.Loss) else function


def check_takes_targets(function: Callable[..., Any]) -> None:
    """Rejects a function that cannot be called with targets and predictions.

    Raises:
        NetworkError: If it takes fewer arguments, or requires more.
    """
    try:
        inspect.signature(call_of(function)).bind(None, None)
    except TypeError as error:
        raise NetworkError(
            f"the Keras loss {name_of(function)} cannot be called with two arguments ({error}); define it as a "
            "function of (y_true, y_pred), or subclass AdversarialLoss for losses of another form."
        ) from error


@contextlib.contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Names the loss in errors of its first call, such as that of a loss over sequences, which needs another shape.

    Raises:
        NetworkError: If the call raises an error that is not about the value of the targets.
    """
    try:
        yield
    except (TrainerError, tf.errors.InvalidArgumentError):
        raise
    except Exception as error:
        raise NetworkError(
            f"the Keras loss {name} cannot be computed for one number per image: {quote(error)}; use a loss on one "
            "number, such as keras.losses.BinaryCrossentropy(from_logits=True)."
        ) from error


def is_hinge(function: Callable[..., Any]) -> bool:
    """Returns whether a Keras loss treats the target 0 as -1."""
    hinges = keras.losses.Hinge, keras.losses.SquaredHinge
    return isinstance(function, hinges) or function in (keras.losses.hinge, keras.losses.squared_hinge)


def from_logits_of(function: Callable[..., Any]) -> bool | None:
    """Returns the `from_logits` of a Keras loss; None if it has no such argument."""
    # Keras's loss classes keep the arguments of their functions in a private attribute only.
    keywords = getattr(function, "_fn_kwargs", None) or getattr(function, "keywords", None) or {}
    if "from_logits" in keywords:
        return bool(keywords["from_logits"])
    if hasattr(function, "from_logits"):
        return bool(function.from_logits)
    parameter = inspect.signature(call_of(function)).parameters.get("from_logits")
    return None if parameter is None else bool(parameter.default)
