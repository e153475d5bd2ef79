"""Adversarial losses: two functions of (real_logits, fake_logits) without reduction, float32 [B] to float32 [B].

Both functions take both logits, because relativistic losses compare them. A discriminator of patches has logits [B, P],
and losses of that shape.
"""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainer.errors import ConfigError, NetworkError, quote
from trainer.models.keras_losses import call_of, check_takes_targets, from_logits_of, is_hinge, name_of, named_errors
from trainer.registry import Registry


class AdversarialLoss:
    """A pair of objectives. Subclass it, and pass the class or an instance to `GAN.compile`.

    Override `generator`, and `discriminator` or its two parts `on_real` and `on_fake`, which are summed. Only the parts
    allow `discriminator_updates=separate`, which does not call `discriminator`.
    """

    from_logits: bool | None = True
    """True if the discriminator must not end in a sigmoid, False if it must, and None if both are allowed."""

    decision_threshold = 0.0
    """The discriminator output above which an image counts as real, for accuracies and an adapted augmentation."""

    is_shift_invariant = False
    """True if adding a constant to all logits changes nothing. Then `decision_threshold` has no meaning."""

    compares_pairs = False
    """True if a real image is compared with the fake image of the same index, which then has the same label."""

    def discriminator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        """Returns the loss of the discriminator: float32 [B]."""
        on_real, on_fake = self.on_real(real_logits), self.on_fake(fake_logits)
        name = type(self).__name__
        return as_tensor(on_real, f"on_real of {name}") + as_tensor(on_fake, f"on_fake of {name}")

    def on_real(self, real_logits: tf.Tensor) -> tf.Tensor:
        """Returns the part of the discriminator's loss for real images: float32 [B]."""
        raise NetworkError(f"{type(self).__name__} has no on_real; override on_real and on_fake, or discriminator.")

    def on_fake(self, fake_logits: tf.Tensor) -> tf.Tensor:
        """Returns the part of the discriminator's loss for fake images: float32 [B]."""
        raise NetworkError(f"{type(self).__name__} has no on_fake; override on_real and on_fake, or discriminator.")

    @property
    def is_separable(self) -> bool:
        """True if the discriminator can be updated on real and on fake images separately: its loss is their sum."""
        kind = type(self)
        is_sum = kind.discriminator is AdversarialLoss.discriminator
        return is_sum and kind.on_real is not AdversarialLoss.on_real

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        """Returns the loss of the generator: float32 [B]."""
        raise NetworkError(f"{type(self).__name__} has no generator; override it.")

    def score(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns the discriminator's output for the logs: float32 [B].

        It is the probability of being real, in [0, 1]; for shift-invariant losses, it is the logit.
        """
        return logits if self.is_shift_invariant else tf.sigmoid(logits)

    def correct(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns which images the discriminator classifies correctly, for the accuracies in the logs.

        Returns:
            bool [B] by `real` and `fake`; nothing if no decision threshold has a meaning.
        """
        if self.is_shift_invariant:
            return {}
        return {
            "real": real_logits > self.decision_threshold,
            "fake": tf.logical_not(fake_logits > self.decision_threshold),
        }


_MIN_DIFFERENCE = 1e-5
"""Minimum difference between the losses of different outputs of the discriminator, far above rounding errors."""

_SAME_LOSSES = {"binary_crossentropy": "non_saturating"}
"""Names of registered losses that are a loss of Keras with another name."""

_LOSSES: Registry[type[AdversarialLoss]] = Registry("loss")
names, check_name = _LOSSES.names, _LOSSES.check_name


def register_loss(name: str) -> Callable[[type[AdversarialLoss]], type[AdversarialLoss]]:
    """Registers a loss under a name that `--loss` and `GAN.compile` accept."""

    return functools.partial(_LOSSES.add, name)


def get(identifier: str | AdversarialLoss | type | Callable[..., Any]) -> AdversarialLoss:
    """Returns a loss by its name, or from a loss, a Keras loss `(y_true, y_pred)`, or the class of either.

    Raises:
        ConfigError: If the name is unknown.
        NetworkError: If the object is not a loss, or the class needs arguments.
    """
    if isinstance(identifier, str):
        if identifier not in _LOSSES.names() and (function := _keras_loss(identifier)):
            get(getattr(keras.losses, function))  # rejects a loss that no GAN can use
            own = _SAME_LOSSES.get(function, function)
            choice = f"write {own}" if own in _LOSSES.names() else f"choose one of {', '.join(_LOSSES.names())}"
            raise ConfigError(
                f"loss={identifier} is a name of Keras; {choice}, or pass the function keras.losses.{function} to "
                "GAN.compile."
            )
        return _LOSSES[identifier]()
    if isinstance(identifier, type) and issubclass(identifier, (AdversarialLoss, keras.losses.Loss)):
        return get(_instance_of(identifier))
    if isinstance(identifier, AdversarialLoss):
        return identifier
    if callable(identifier) and not isinstance(identifier, type):
        return KerasLoss(identifier)
    raise NetworkError(f"loss={identifier!r} is not a name, an AdversarialLoss or a Keras loss (y_true, y_pred).")


def _keras_loss(name: str) -> str | None:
    """Returns the name of the function in `keras.losses` that Keras calls `name`; None if there is none."""
    try:
        function = getattr(keras.losses.get(name), "__name__", "")
    except ValueError:
        return None
    return function if hasattr(keras.losses, function) else None


def _instance_of(kind: type) -> Any:
    """Returns an instance of a class whose arguments all have defaults."""
    try:
        inspect.signature(kind).bind()
    except TypeError as error:
        raise NetworkError(f"loss={kind.__name__} is a class with arguments ({error}); pass an instance.") from None
    return kind()


@register_loss("non_saturating")
class NonSaturating(AdversarialLoss):
    """Binary cross-entropy for D; G maximizes log D(G(z)).

    Source: arXiv 1406.2661, section 3, the form that the paper recommends for early training.
    """

    def on_real(self, real_logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(-real_logits)

    def on_fake(self, fake_logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(fake_logits)

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(-fake_logits)


@register_loss("minimax")
class Minimax(NonSaturating):
    """Binary cross-entropy for D; G minimizes log(1 - D(G(z))), which saturates if D recognizes fakes.

    Source: arXiv 1406.2661, equation 1.
    """

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return -tf.nn.softplus(fake_logits)


@register_loss("least_squares")
class LeastSquares(AdversarialLoss):
    """Half the squared distance of D's output from 1 for real and 0 for fake images; G minimizes the distance from 1.

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
        """Returns D's output, which is unbounded and 1 for real images."""
        return logits


@register_loss("hinge")
class Hinge(AdversarialLoss):
    """D's output is pushed above 1 for real and below -1 for fake images; G increases D's output.

    Source: arXiv 1705.02894, as used by arXiv 1802.05957.
    """

    def on_real(self, real_logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(1.0 - real_logits)

    def on_fake(self, fake_logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(1.0 + fake_logits)

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return -fake_logits

    def score(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns D's output, which is unbounded."""
        return logits


@register_loss("mean_squared_error")
class MeanSquaredError(LeastSquares):
    """`least_squares` without the factor 1/2 for the generator: Keras's mean squared error against 1 and 0.

    Source: arXiv 1703.10593, section 4, beside a cycle loss of weight 10.
    """

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return tf.square(fake_logits - 1.0)


@register_loss("wasserstein")
class Wasserstein(AdversarialLoss):
    """The critic's mean for fake minus its mean for real images. It needs a penalty that keeps the critic smooth.

    Source: arXiv 1701.07875, equation 2.
    """

    is_shift_invariant = True

    def on_real(self, real_logits: tf.Tensor) -> tf.Tensor:
        return -real_logits

    def on_fake(self, fake_logits: tf.Tensor) -> tf.Tensor:
        return fake_logits

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return -fake_logits


@register_loss("relativistic")
class Relativistic(AdversarialLoss):
    """D predicts which image of a pair is real; G does the opposite. Pairs have the same index in the batch.

    Source: arXiv 1807.00734, the paired form with softplus, as used by arXiv 2501.05441, equation 2. As in that paper's
    code, both images of a pair have the same label.
    """

    is_shift_invariant = True
    compares_pairs = True

    def discriminator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(fake_logits - real_logits)

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(real_logits - fake_logits)

    def correct(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns in which pairs D's output is greater for the real image: bool [B] by `pairs`."""
        return {"pairs": real_logits > fake_logits}


class KerasLoss(AdversarialLoss):
    """A Keras loss `(y_true, y_pred)` against the targets 1 and 0. D's loss is the mean of the real and the fake part.

    Args:
        function: Keras loss object or function. Its `from_logits` decides whether D must return logits or
            probabilities. A loss without that argument takes D's output as it is.
    """

    def __init__(self, function: Callable[..., Any]):
        if getattr(function, "reduction", None) == "sum":
            raise NetworkError(
                f"the Keras loss {name_of(function)} has reduction=sum, but losses are averaged over the batch; "
                "remove it."
            )
        check_takes_targets(function)
        self._name = name_of(function)
        self._call = call_of(function)
        self.from_logits = from_logits_of(function)
        self.decision_threshold = 0.0 if self.from_logits or is_hinge(function) else 0.5
        self._check_reads_outputs()

    def on_real(self, real_logits: tf.Tensor) -> tf.Tensor:
        return 0.5 * self._against(1.0, real_logits)

    def on_fake(self, fake_logits: tf.Tensor) -> tf.Tensor:
        return 0.5 * self._against(0.0, fake_logits)

    def generator(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        return self._against(1.0, fake_logits)

    def score(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns the probability of being real if D returns logits, else D's output."""
        return tf.sigmoid(logits) if self.from_logits else logits

    def _check_reads_outputs(self) -> None:
        """Rejects losses that one number per image does not change, such as those over the probabilities of classes."""
        outputs = tf.constant([0.1, 0.3, 0.6, 0.9])  # a loss may be constant for one sign, as a hinge is
        try:
            # A GPU gives NaN instead of an error.
            with tf.device("CPU:0"), warnings.catch_warnings(), named_errors(self._name):
                warnings.simplefilter("ignore")  # Keras warns of what is an error here
                is_constant = any(
                    all(_is_constant(self._against(target, sign * outputs)) for sign in (1.0, -1.0))
                    for target in (1.0, 0.0)
                )
        except tf.errors.InvalidArgumentError:  # the target 1 is no class of a single one
            is_constant = True
        if is_constant:
            raise NetworkError(
                f"the Keras loss {self._name} does not depend on the one number per image that the "
                "discriminator returns, so that nothing would be learned; use a loss on one number, such as "
                "keras.losses.BinaryCrossentropy(from_logits=True)."
            )

    def _against(self, target: float, outputs: tf.Tensor) -> tf.Tensor:
        rows = tf.reshape(outputs, [-1, 1])
        values = as_tensor(self._call(tf.fill(tf.shape(rows), target), rows), f"the Keras loss {self._name}")
        if values.shape.rank == 0 or values.shape.num_elements() not in (None, rows.shape[0]):
            raise NetworkError(
                f"the Keras loss {self._name} returns shape {tuple(values.shape)} for {rows.shape[0]} "
                "predictions, expected one number each; do not average over the batch."
            )
        return tf.reshape(values, tf.shape(outputs))


def as_tensor(values: Any, name: str) -> tf.Tensor:
    """Returns what a function of the user returns as a tensor; rejects what is none, such as None.

    Args:
        values: Value to convert.
        name: Name of the function, for the message.
    """
    try:
        return tf.convert_to_tensor(values)
    except (TypeError, ValueError) as error:
        raise NetworkError(f"{name} returns {quote(values)}; return a tensor with one number per image.") from error


def _is_constant(values: tf.Tensor) -> bool:
    return float(tf.reduce_max(values) - tf.reduce_min(values)) < _MIN_DIFFERENCE
