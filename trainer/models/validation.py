"""Checks that networks, losses and data fit each other.

Shapes: `B` images of a replica, `P` patches, `Z` latent size, `K` classes.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer.config.choices import Precision
from trainer.config.compatibility import no_effect, no_effect_error
from trainer.config.fields import check_choice
from trainer.errors import ConfigError, DataError, NetworkError, quote
from trainer.models.losses import AdversarialLoss, as_tensor
from trainer.networks.layers import EqualizedConv2D, ModulatedConv2D
from trainer.training.checkpoint.state_file import AUGMENTER, EMA_PREFIX, OPTIMIZER_SUFFIX, is_reserved
from trainer.training.divergence import STATE_NAME

_logger = logging.getLogger(__name__)

_CONVOLUTIONS = (
    *(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D),
    *(keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose),
    *(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D),
    *(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D),
)
_OWN_CONVOLUTIONS = EqualizedConv2D, ModulatedConv2D
_ACTIVATED_LAYERS = keras.layers.Activation, keras.layers.Dense, *_CONVOLUTIONS
_RESHAPING_LAYERS = keras.layers.Reshape, keras.layers.Flatten, keras.layers.Permute, keras.layers.Identity
_POLICIES: dict[str, str] = {Precision.FLOAT32: "float32", Precision.BFLOAT16: "mixed_bfloat16"}
_OUTPUT_RANGES = {
    **dict.fromkeys((keras.activations.sigmoid, keras.activations.hard_sigmoid), (0.0, 1.0)),
    **dict.fromkeys((keras.activations.tanh, keras.activations.softsign), (-1.0, 1.0)),
    **dict.fromkeys((keras.activations.relu, keras.activations.softplus), (0.0, math.inf)),
}


Shape = tuple[int | None, ...]
"""Shape without B; None for unknown sizes."""


def policy_of(precision: str | None) -> str:
    """Returns the name of Keras's dtype policy for `float32` or `bfloat16`; that of the global policy for None.

    Raises:
        ConfigError: If the precision is unknown, or Keras is configured in a way that GANs do not support.
    """
    for name, value, allowed in (
        ("floatx", keras.config.floatx(), "float32"),
        ("image_data_format", keras.config.image_data_format(), "channels_last"),
    ):
        if value != allowed:
            raise ConfigError(
                f"keras.config.{name}() is {value}, but GANs need {allowed}; call keras.config.set_{name}('{allowed}')."
            )
    if precision is not None:
        name = precision if isinstance(precision, str) else repr(precision)  # a tf.DType equals its name
        check_choice("precision", name, tuple(_POLICIES))
        return _POLICIES[name]
    policy = keras.config.dtype_policy().name
    if policy not in _POLICIES.values():
        raise ConfigError(
            f"Keras's global dtype policy is {policy}; set {' or '.join(_POLICIES.values())}, or pass precision to "
            "compile."
        )
    return policy


def check_no_effect(need: str, **arguments: tuple[Any, Any]) -> None:
    """Rejects arguments of `GAN.compile` that have no effect, because the argument `need` is not set.

    Args:
        need: Name of the missing argument.
        **arguments: Value and default of each argument, by name. Defaults are accepted.

    Raises:
        ConfigError: If a value is not the default.
    """
    for name, (value, default) in arguments.items():
        is_plain = value is None or isinstance(value, (bool, int, float, str))
        if not is_plain or value != default:
            received = f"={quote(value)}" if is_plain else f" of type {type(value).__name__}"
            raise no_effect_error(no_effect(f"{name}{received}", need))


def input_shapes(network: keras.layers.Layer) -> list[Shape]:
    """Returns the shape of each input of a Sequential or functional model, without B; empty for other models."""
    return [tuple(tensor.shape[1:]) for tensor in getattr(network, "inputs", None) or []]


def check_built(name: str, network: object) -> None:
    """Rejects an object that is not a built network."""
    if not isinstance(network, keras.layers.Layer) or not network.built:
        raise NetworkError(f"get_{name}() must return a built keras.Model; start the network with keras.Input(shape).")
    check_layers(name, network)


def check_layers(name: str, network: keras.layers.Layer) -> None:
    """Rejects a network with layers whose precision training does not support."""
    for layer in all_layers([network]):
        if layer.quantization_mode is not None:
            raise NetworkError(
                f"the layer {layer.name} of {name} is quantized to {layer.quantization_mode}, which cannot be trained; "
                "train first, then save the generator, load the file, and quantize the loaded generator."
            )
        if layer.compute_dtype == "float16":
            raise NetworkError(
                f"the layer {layer.name} of {name} computes in float16, whose gradients underflow without loss "
                "scaling; use bfloat16 or float32."
            )


def check_scope(name: str, network: keras.layers.Layer, strategy: tf.distribute.Strategy) -> None:
    """Rejects a network whose variables were made outside of the strategy's scope."""
    for variable in network.variables:
        if not strategy.extended.variable_created_in_scope(variable.value):
            raise NetworkError(
                f"{variable.path} of {name} was made outside of the scope of the {type(strategy).__name__}; make the "
                "networks in the methods get_*, which are called inside the scope."
            )


def check_distinct(networks: Mapping[str, keras.layers.Layer]) -> None:
    """Rejects networks that share a variable: they would not be independent, as each EMA and each update assumes."""
    owners: dict[int, str] = {}
    for name, network in networks.items():
        for variable in network.variables:
            owner = owners.setdefault(id(variable), name)
            if owner != name:
                raise NetworkError(
                    f"{owner} and {name} share {variable.path}; make the methods get_* return a new network with new "
                    "layers in each call."
                )


def names_with_role(role: str, names: Iterable[str]) -> list[str]:
    """Returns the names of the networks that are a `generator` or `discriminator`, without heads and image pools."""
    return [name for name in names if name.startswith(role)]


def check_optimizer_groups(
    optimizer_groups: Mapping[str, tuple[str, ...]], networks: Mapping[str, keras.layers.Layer]
) -> None:
    """Rejects groups that leave out a trainable network or name an unknown one, and reserved names of networks."""
    for name in networks:
        if is_reserved(name) or "/" in name:
            raise NetworkError(
                f"get_networks() names a network {quote(name)}; choose a name without a slash that is not {AUGMENTER} "
                f"or {STATE_NAME}, does not begin with {EMA_PREFIX}, and does not end with {OPTIMIZER_SUFFIX}."
            )
    if set(optimizer_groups) != {"discriminator", "generator"}:
        raise NetworkError(
            f"optimizer_groups has the keys {', '.join(optimizer_groups)}; give each network "
            "to discriminator or to generator."
        )
    owned = [name for names in optimizer_groups.values() for name in names]
    for name in owned:
        if name not in networks:
            raise NetworkError(f"optimizer_groups names {name}, but get_networks() makes only {', '.join(networks)}.")
    for name, network in networks.items():
        if name not in owned and network.trainable_variables:
            raise NetworkError(
                f"no optimizer updates the weights of {name}; name it in optimizer_groups, or set trainable=False."
            )


def trained_variables(
    optimizer_groups: Mapping[str, tuple[str, ...]], networks: Mapping[str, keras.layers.Layer]
) -> dict[str, list[keras.Variable]]:
    """Returns the weights that each optimizer updates.

    Raises:
        NetworkError: If there are none: that optimizer would change nothing.
    """
    variables = {
        group: [variable for name in names for variable in networks[name].trainable_variables]
        for group, names in optimizer_groups.items()
    }
    for group, names in optimizer_groups.items():
        if not any(networks[name].variables for name in names):
            raise NetworkError(
                f"{' and '.join(names)} has no weights; in get_{names[0]}, start the network with keras.Input(shape), "
                "or call a subclassed keras.Model once before returning it."
            )
        if not variables[group]:
            raise NetworkError(
                f"no weight of {' and '.join(names)} is trainable, so that the {group} would not learn; set trainable "
                "to True for at least one layer."
            )
    return variables


def check_expects(loss: AdversarialLoss, discriminator: keras.layers.Layer) -> None:
    """Rejects a discriminator that ends in a sigmoid if the loss expects logits, and the reverse."""
    last = _last_activation(discriminator)
    if loss.from_logits is True and last is keras.activations.sigmoid:
        raise NetworkError(
            "the loss expects logits, but the discriminator ends in a sigmoid; remove that activation, or pass a loss "
            "on probabilities such as keras.losses.binary_crossentropy."
        )
    if loss.from_logits is False and last is keras.activations.linear:
        raise NetworkError(
            "the loss expects probabilities, but the discriminator ends without an activation; end it in a sigmoid, or "
            "pass a loss on logits such as keras.losses.BinaryCrossentropy(from_logits=True)."
        )


def check_reaches(generator: keras.layers.Layer, image_range: tuple[float, float]) -> None:
    """Rejects a generator whose last activation cannot reach all values of the images.

    A tanh for images from 0 to 1 reaches them, but also makes values that no image has: the function logs a warning.
    """
    last = _last_activation(generator)
    if last is None or last not in _OUTPUT_RANGES:
        return
    low, high = _OUTPUT_RANGES[last]
    if image_range[0] < low or image_range[1] > high:
        raise NetworkError(
            f"the generator ends in {last.__name__}, from {low:g} to {high:g}, but the images are from "
            f"{image_range[0]:g} to {image_range[1]:g}; change that activation, or the range of the images: "
            "image_range for uint8 images, the values themselves for float images."
        )
    if low < 0 <= image_range[0]:
        _logger.warning(
            f"The generator ends in {last.__name__}, from {low:g} to {high:g}, but the images are from "
            f"{image_range[0]:g} to {image_range[1]:g}; end it in a sigmoid, or scale the images to {low:g}..{high:g}."
        )


def _last_activation(network: keras.layers.Layer) -> Callable[..., Any] | None:
    """Returns the activation that a Sequential or functional model ends in; None if that is not certain.

    Keras records only in private attributes which layer made a tensor, and from which tensors.
    """
    outputs = getattr(network, "outputs", None) or [None]
    while (history := getattr(outputs[0], "_keras_history", None)) is not None:
        layer = history.operation
        if isinstance(layer, keras.Model):
            return _last_activation(layer)
        is_identity = type(layer) is keras.layers.Activation and layer.activation is keras.activations.linear
        if not is_identity and type(layer) not in _RESHAPING_LAYERS:
            return layer.activation if type(layer) in _ACTIVATED_LAYERS else None
        outputs = layer._inbound_nodes[history.node_index].input_tensors
    return None


def check_takes_latents(generator: keras.layers.Layer, latent_size: int | None) -> None:
    """Rejects a generator that does not take latents [B, Z]."""
    expected = input_shapes(generator)
    if not expected or latent_size is None:
        return
    if len(expected) == 1 and (matches(expected[0], (latent_size,)) or matches(expected[0], (latent_size, 1))):
        return
    raise NetworkError(
        f"the generator takes {' and '.join(map(str, expected))}, but latents have the shape ({latent_size},); start "
        f"it with keras.Input(({latent_size},)), or change latent_dim."
    )


def check_takes_images(discriminator: keras.layers.Layer, shape: tuple[int, ...]) -> None:
    """Rejects images of a shape that the discriminator does not take, and a discriminator of several inputs."""
    expected = input_shapes(discriminator)
    if len(expected) > 1:
        raise NetworkError(
            f"the discriminator takes {' and '.join(map(str, expected))}, but this model passes only images; start it "
            f"with one keras.Input({shape}), or use ConditionalGAN for labels."
        )
    # Keras adds or removes a last axis of size 1.
    if expected and not any(
        matches(*pair) for pair in ((expected[0], shape), ((*expected[0], 1), shape), (expected[0], (*shape, 1)))
    ):
        raise DataError(
            f"x has images of shape {shape}, but the discriminator takes {expected[0]}; start it with "
            f"keras.Input({shape}), or change the shape of x."
        )


def matches(expected: Shape, actual: Shape) -> bool:
    """Returns whether two shapes agree, in which None is any number."""
    pairs = zip(expected, actual, strict=False)
    return len(expected) == len(actual) and all(None in pair or pair[0] == pair[1] for pair in pairs)


def as_fake_images(outputs: tf.Tensor, real_images: tf.Tensor) -> tf.Tensor:
    """Returns the generator's output as float32; rejects several outputs, and images of another shape than the data."""
    if not tf.is_tensor(outputs):
        raise NetworkError(
            f"the generator returns a {type(outputs).__name__}; return a keras.Model with one output, the images."
        )
    fake, real = tuple(outputs.shape[1:]), tuple(real_images.shape[1:])
    if fake == (*real, 1):
        raise DataError(
            f"x has images of shape {real}, but the generator makes {fake}; add an axis for the channels: for arrays "
            "and lists, pass numpy.asarray(x)[..., numpy.newaxis]."
        )
    if fake != real:
        raise NetworkError(
            f"the generator makes images of shape {fake}, but x has images of shape {real}; change the last layers of "
            "the generator, or the shape of x."
        )
    return tf.cast(outputs, tf.float32)


def as_logits(outputs: tf.Tensor) -> tf.Tensor:
    """Returns the discriminator's output [B, 1] as float32 [B], or [B, h, w, 1] as [B, P]; rejects other shapes."""
    shape = tuple(outputs.shape) if tf.is_tensor(outputs) else ()
    if len(shape) not in (2, 4) or shape[-1] != 1:
        received = f"shape {shape}" if tf.is_tensor(outputs) else f"a {type(outputs).__name__}"
        raise NetworkError(
            f"the discriminator returns {received}, expected one number per image, (B, 1), or per "
            "patch, (B, h, w, 1); end it with Dense(1) or a convolution with one filter."
        )
    outputs = tf.cast(outputs, tf.float32)
    return outputs[:, 0] if len(outputs.shape) == 2 else tf.reshape(outputs, [-1, outputs.shape[1] * outputs.shape[2]])


def as_losses(values: tf.Tensor, name: str, logits: tf.Tensor) -> tf.Tensor:
    """Returns losses or penalties [B] or [B, P] as float32 [B], with the mean over patches; rejects other shapes.

    The step averages over the batch. A loss that averages itself would count too little.
    """
    values = tf.cast(as_tensor(values, name), tf.float32)
    if values.shape.rank == 0 or not values.shape[:1].is_compatible_with(logits.shape[:1]):
        raise NetworkError(
            f"{name} returns shape {tuple(values.shape)} for logits of shape {tuple(logits.shape)}; return one number "
            "per image, and do not average over the batch."
        )
    return per_example(values)


def per_example(values: tf.Tensor) -> tf.Tensor:
    """Returns the mean over all axes but the first: float32 [B]."""
    values = tf.cast(values, tf.float32)
    return values if len(values.shape) == 1 else tf.reduce_mean(values, axis=list(range(1, len(values.shape))))


def has_convolutions(networks: Iterable[keras.layers.Layer]) -> bool:
    """Returns whether any layer, at any depth, is a convolution."""
    return any(isinstance(layer, (*_CONVOLUTIONS, *_OWN_CONVOLUTIONS)) for layer in all_layers(networks))


def all_layers(networks: Iterable[keras.layers.Layer]) -> Iterator[keras.layers.Layer]:
    """Yields networks with all layers inside them, at any depth, also those that a layer wraps or owns."""
    for network in networks:
        yield from network._flatten_layers()  # `layers` omits those of a layer; a test fails if this method changes
