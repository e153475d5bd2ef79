"""Adversarial losses: pairs of functions of (real_logits, fake_logits), unreduced: float32 [B] to float32 [B].

Every loss receives both logits in both functions, because relativistic losses need them. Logits of a discriminator that
judges patches are [B, P]; so are the losses then.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainer.errors import NetworkError
from trainer.registry import Registry


class AdversarialLoss:
    """A pair of objectives. Subclass it, and pass the class or an instance to `GAN.compile`.

    Override `generator`, and `discriminator` or its two parts `on_real` and `on_fake`, which are summed.
    """

    expects_logits = True
    """Whether the discriminator must end without an activation."""

    reads_probabilities = False
    """Whether the discriminator must end in a sigmoid."""

    decision_threshold = 0.0
    """The discriminator output above which an image counts as real, for accuracies and an adapted augmentation."""

    is_shift_invariant = False
    """Whether a number added to all outputs of the discriminator changes nothing, so that no boundary has a meaning."""

    def discriminator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        """What the discriminator minimizes: float32 [B]."""
        return self.on_real(real_logits) + self.on_fake(fake_logits)

    def on_real(self, real_logits: tf.Tensor) -> tf.Tensor:
        """The part of `discriminator` that concerns real images: float32 [B]."""
        raise NotImplementedError

    def on_fake(self, fake_logits: tf.Tensor) -> tf.Tensor:
        """The part of `discriminator` that concerns fake images: float32 [B]."""
        raise NotImplementedError

    @property
    def is_separable(self) -> bool:
        """Whether the discriminator may be updated on real and on fake images apart."""
        return type(self).on_real is not AdversarialLoss.on_real

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        """What the generator minimizes: float32 [B]."""
        raise NotImplementedError

    def score(self, logits: tf.Tensor) -> tf.Tensor:
        """The discriminator's verdict as it is logged: here the probability of being real, float32 [B] in [0, 1]."""
        return tf.sigmoid(logits)


_LOSSES: Registry[type[AdversarialLoss]] = Registry("loss")
names, check_name = _LOSSES.names, _LOSSES.check_name


def register_loss(name: str) -> Callable[[type[AdversarialLoss]], type[AdversarialLoss]]:
    """Registers a loss under a name that `--loss` and `GAN.compile` accept."""

    return functools.partial(_LOSSES.add, name)


def get(identifier: str | AdversarialLoss | type | Callable[..., Any]) -> AdversarialLoss:
    """A loss from its name, from a loss object or its class, or from a Keras loss `(y_true, y_pred)` or its class.

    Raises:
        ConfigError: The name is unknown.
        NetworkError: The object is none of the three, or the class needs arguments.
    """
    if isinstance(identifier, str):
        return _LOSSES[identifier]()
    if isinstance(identifier, type) and issubclass(identifier, (AdversarialLoss, keras.losses.Loss)):
        return get(_made(identifier))
    if isinstance(identifier, AdversarialLoss):
        return identifier
    if callable(identifier) and not isinstance(identifier, type):
        return KerasLoss(identifier)
    raise NetworkError(f"loss={identifier!r} is not a name, an AdversarialLoss or a Keras loss (y_true, y_pred).")


def _made(kind: type) -> Any:
    """An instance of a class of losses whose arguments all have defaults."""
    try:
        inspect.signature(kind).bind()
    except TypeError as error:
        raise NetworkError(f"loss={kind.__name__} is a class with arguments ({error}); pass an instance.") from None
    return kind()


@register_loss("non_saturating")
class NonSaturating(AdversarialLoss):
    """Binary cross-entropy for D; G maximizes log D(G(z)).

    Source: arXiv 1406.2661, section 3, the form advised there for early learning.
    """

    def on_real(self, real_logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(-real_logits)

    def on_fake(self, fake_logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(fake_logits)

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(-fake_logits)


@register_loss("minimax")
class Minimax(NonSaturating):
    """Binary cross-entropy for D; G minimizes log(1 - D(G(z))), which saturates while D wins.

    Source: arXiv 1406.2661, equation 1.
    """

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return -tf.nn.softplus(fake_logits)


@register_loss("least_squares")
class LeastSquares(AdversarialLoss):
    """Half the squared distance of D's output from 1 for real and 0 for fake; G pulls its own to 1.

    Source: arXiv 1611.04076, equation 9 (a = 0, b = c = 1).
    """

    decision_threshold = 0.5

    def on_real(self, real_logits: tf.Tensor) -> tf.Tensor:
        return 0.5 * tf.square(real_logits - 1.0)

    def on_fake(self, fake_logits: tf.Tensor) -> tf.Tensor:
        return 0.5 * tf.square(fake_logits)

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return 0.5 * tf.square(fake_logits - 1.0)

    def score(self, logits: tf.Tensor) -> tf.Tensor:
        """D's output itself, unbounded, 1 for real."""
        return logits


@register_loss("hinge")
class Hinge(AdversarialLoss):
    """D is pushed over +1 on real and under -1 on fake images and no further; G raises D's output.

    Source: arXiv 1705.02894, as used by arXiv 1802.05957.
    """

    def on_real(self, real_logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(1.0 - real_logits)

    def on_fake(self, fake_logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(1.0 + fake_logits)

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return -fake_logits

    def score(self, logits: tf.Tensor) -> tf.Tensor:
        """D's output itself, unbounded."""
        return logits


@register_loss("mean_squared_error")
class MeanSquaredError(LeastSquares):
    """`least_squares` with the generator's part not halved: Keras's mean squared error against 1 and 0.

    Source: arXiv 1703.10593, section 4, where it stands beside a cycle loss of weight 10.
    """

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return tf.square(fake_logits - 1.0)


@register_loss("wasserstein")
class Wasserstein(AdversarialLoss):
    """The critic's mean on fake less its mean on real images; needs a critic that is kept smooth by a penalty.

    Source: arXiv 1701.07875, equation 2.
    """

    is_shift_invariant = True

    def on_real(self, real_logits: tf.Tensor) -> tf.Tensor:
        return -real_logits

    def on_fake(self, fake_logits: tf.Tensor) -> tf.Tensor:
        return fake_logits

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return -fake_logits

    def score(self, logits: tf.Tensor) -> tf.Tensor:
        """The critic's output itself, unbounded."""
        return logits


@register_loss("relativistic")
class Relativistic(AdversarialLoss):
    """D tells which image of a pair is the real one; G turns the answer round. Pairs share their place in the batch.

    Source: arXiv 1807.00734, the paired form with softplus, as used by arXiv 2501.05441, equation 2.
    """

    is_shift_invariant = True

    def discriminator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(fake_logits - real_logits)

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(real_logits - fake_logits)

    def score(self, logits: tf.Tensor) -> tf.Tensor:
        """D's output itself, of which only differences have a meaning."""
        return logits


class KerasLoss(AdversarialLoss):
    """A Keras loss `(y_true, y_pred)` against the targets 1 and 0; D's is the mean of the real and the fake part.

    Args:
        function: A Keras loss object or function. Its `from_logits` says whether D ends in logits or in
            probabilities; one without that argument reads D's output as it is.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        from_logits = _from_logits(function)
        self.expects_logits, self.reads_probabilities = from_logits is True, from_logits is False
        self.decision_threshold = 0.0 if self.expects_logits or _is_hinge(function) else 0.5

    def on_real(self, real_logits: tf.Tensor) -> tf.Tensor:
        return 0.5 * self._against(1.0, real_logits)

    def on_fake(self, fake_logits: tf.Tensor) -> tf.Tensor:
        return 0.5 * self._against(0.0, fake_logits)

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return self._against(1.0, fake_logits)

    def score(self, logits: tf.Tensor) -> tf.Tensor:
        """The probability of being real where D gives logits, else D's output itself."""
        return tf.sigmoid(logits) if self.expects_logits else logits

    def _against(self, target: float, outputs: tf.Tensor) -> tf.Tensor:
        call = self._function.call if isinstance(self._function, keras.losses.Loss) else self._function
        one_a_row = tf.reshape(outputs, [-1, 1])
        values = tf.convert_to_tensor(call(tf.fill(tf.shape(one_a_row), target), one_a_row))
        if values.shape.rank == 0 or values.shape.num_elements() not in (None, one_a_row.shape[0]):
            raise NetworkError(
                f"the Keras loss {_name_of(self._function)} gives shape {tuple(values.shape)} for {one_a_row.shape[0]} "
                "predictions where one number each is expected; leave their mean to the trainer."
            )
        return tf.reshape(values, tf.shape(outputs))


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _is_hinge(function: Callable[..., Any]) -> bool:
    """Whether a Keras loss takes the target 0 for -1."""
    hinges = keras.losses.Hinge, keras.losses.SquaredHinge
    return isinstance(function, hinges) or function in (keras.losses.hinge, keras.losses.squared_hinge)


def _from_logits(function: Callable[..., Any]) -> bool | None:
    """Whether a Keras loss reads logits: its own or its keywords' `from_logits`; None where it has none."""
    keywords = getattr(function, "_fn_kwargs", None) or getattr(function, "keywords", None) or {}
    if "from_logits" in keywords:
        return bool(keywords["from_logits"])
    if hasattr(function, "from_logits"):
        return bool(function.from_logits)
    target = function.call if isinstance(function, keras.losses.Loss) else function
    parameter = inspect.signature(target).parameters.get("from_logits")
    return None if parameter is None else bool(parameter.default)
