"""Penalties: regularizers of the discriminator, on the gradients of its logits with respect to images.

Shapes: `B` images of a replica, `H W C` an image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from trainer.errors import ConfigError, quote
from trainer.registry import Registry


@dataclass(frozen=True)
class InputGradients:
    """Gradients of the discriminator's logits with respect to images. Each is computed when it is called.

    Attributes:
        at_real: At the real images: float32 [B, H, W, C].
        at_fake: At the fake images: float32 [B, H, W, C].
        between: At `real + (fake - real) * fractions` for fractions float32 [B] in [0, 1]: float32 [B, H, W, C].
        fractions: Uniform random numbers: float32 [B] in [0, 1).
    """

    at_real: Callable[[], tf.Tensor]
    at_fake: Callable[[], tf.Tensor]
    between: Callable[[tf.Tensor], tf.Tensor]
    fractions: Callable[[], tf.Tensor]


Penalty = Callable[[InputGradients], tf.Tensor]
"""A term of the discriminator's loss before its weight: input gradients -> float32 [B]."""

_PENALTIES: Registry[Penalty] = Registry("penalty")
names, check_name = _PENALTIES.names, _PENALTIES.check_name


def register_penalty(function: Penalty) -> Penalty:
    """Registers a penalty under the name of its function, which `--penalties` and `GAN.compile` accept."""
    return _PENALTIES.add(function.__name__, function)


def get(identifier: str | Penalty) -> Penalty:
    """Returns a penalty by its name, or a function as it is.

    Raises:
        ConfigError: If the name is unknown, or `identifier` is neither.
    """
    if isinstance(identifier, str):
        return _PENALTIES[identifier]
    if not callable(identifier):
        raise ConfigError(f"{quote(identifier)} is no penalty; pass a list of names or functions.")
    return identifier


@register_penalty
def r1(input_gradients: InputGradients) -> tf.Tensor:
    """Half the squared norm of the gradient at real images; its weight is the papers' gamma.

    Source: arXiv 1801.04406, equation 9.
    """
    return 0.5 * _squared_norm(input_gradients.at_real())


@register_penalty
def r2(input_gradients: InputGradients) -> tf.Tensor:
    """Half the squared norm of the gradient at fake images; its weight is the papers' gamma.

    Source: arXiv 1801.04406, equation 10.
    """
    return 0.5 * _squared_norm(input_gradients.at_fake())


@register_penalty
def gradient_penalty(input_gradients: InputGradients) -> tf.Tensor:
    """The squared distance of the gradient's norm from 1, at a random point between a real and a fake image.

    Source: arXiv 1704.00028, equation 3, with weight 10 there. The norm is over all of an image.
    """
    gradients = input_gradients.between(input_gradients.fractions())
    norm = tf.sqrt(_squared_norm(gradients) + 1e-12)  # the square root of 0 has no gradient
    return tf.square(norm - 1.0)


def _squared_norm(gradients: tf.Tensor) -> tf.Tensor:
    """Returns the sum of squares of each example's gradient: float32 [B]."""
    gradients = tf.cast(gradients, tf.float32)
    return tf.reduce_sum(tf.square(gradients), axis=list(range(1, len(gradients.shape))))
