"""What must hold between networks, loss and data, and the sentence for when it does not.

Legend: `B` images a replica.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.data.pipeline.batching import IMAGE_RANGES
from trainer.errors import ConfigError, DataError, NetworkError
from trainer.models.losses import AdversarialLoss

_CONVOLUTIONS = keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv2DTranspose, keras.layers.Conv3D
_ACTIVATED = keras.layers.Activation, keras.layers.Dense, *_CONVOLUTIONS
_REARRANGING = keras.layers.Reshape, keras.layers.Flatten, keras.layers.Permute, keras.layers.Identity
_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
_REACHES = {keras.activations.sigmoid: (0.0, 1.0), keras.activations.tanh: (-1.0, 1.0)}


def check_precision(precision: str) -> None:
    """Refuses an unknown precision."""
    if precision not in _POLICIES:
        raise ConfigError(f"precision={precision} is unknown; choose {' or '.join(_POLICIES)}.")


def policy_of(precision: str) -> str:
    """Returns the name of Keras's dtype policy for a precision."""
    return _POLICIES[precision]


def input_shapes(network: keras.layers.Layer) -> list[tuple[int | None, ...]]:
    """What each input of a Sequential or functional model is, without B; empty for other models, which do not say."""
    return [tuple(tensor.shape[1:]) for tensor in getattr(network, "inputs", None) or []]


def check_built(name: str, network: object) -> None:
    """Refuses what is no network, or has no variables yet."""
    if not isinstance(network, keras.layers.Layer) or not network.built:
        raise NetworkError(f"get_{name}() must return a built keras.Model; start the network with keras.Input(shape).")


def check_optimizer_groups(
    optimizer_groups: Mapping[str, tuple[str, ...]], networks: Mapping[str, keras.layers.Layer]
) -> None:
    """Refuses a model some of whose networks no optimizer would move, or whose optimizers have none to move."""
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
                f"no optimizer moves the weights of {name}; name it in optimizer_groups, or set its trainable to False."
            )


def check_expects(loss: AdversarialLoss, discriminator: keras.layers.Layer) -> None:
    """Refuses a discriminator that ends in a sigmoid under a loss on logits, or without under one on probabilities."""
    last = _last_activation(discriminator)
    if loss.expects_logits and last is keras.activations.sigmoid:
        raise NetworkError(
            "the loss reads logits but the discriminator ends in a sigmoid; remove that activation, "
            "or pass a loss on probabilities such as keras.losses.binary_crossentropy."
        )
    if loss.reads_probabilities and last is keras.activations.linear:
        raise NetworkError(
            "the loss reads probabilities but the discriminator ends without an activation; end it in a sigmoid, "
            "or pass a loss on logits such as keras.losses.BinaryCrossentropy(from_logits=True)."
        )


def check_reaches(generator: keras.layers.Layer, image_range: tuple[float, float]) -> None:
    """Refuses a generator that ends in a sigmoid or a tanh where images have values beyond its own."""
    last = _last_activation(generator)
    if last is None or last not in _REACHES:
        return
    low, high = _REACHES[last]
    if image_range[0] < low or image_range[1] > high:
        raise NetworkError(
            f"the generator ends in a {last.__name__}, from {low:g} to {high:g}, but the images are from "
            f"{image_range[0]:g} to {image_range[1]:g}; change that activation, or the range of the images: "
            "image_range of uint8 ones, the values of float ones."
        )


def _last_activation(network: keras.layers.Layer) -> Callable[..., Any] | None:
    """The activation that a Sequential or functional model ends in; None where that is not certain."""
    outputs = getattr(network, "outputs", None) or [None]
    while (history := getattr(outputs[0], "_keras_history", None)) is not None:
        layer = history.operation
        if isinstance(layer, keras.Model):
            return _last_activation(layer)
        changes_nothing = type(layer) is keras.layers.Activation and layer.activation is keras.activations.linear
        if not changes_nothing and type(layer) not in _REARRANGING:
            return layer.activation if type(layer) in _ACTIVATED else None
        outputs = layer._inbound_nodes[history.node_index].input_tensors
    return None


def check_takes_latents(generator: keras.layers.Layer, latent_size: int | None, num_classes: int = 0) -> None:
    """Refuses a generator that does not take latents [B, Z], or [B, Z+K] with labels."""
    taken = input_shapes(generator)
    if not taken or latent_size is None:
        return
    size = latent_size + num_classes
    if len(taken) == 1 and (_agree(taken[0], (size,)) or _agree(taken[0], (size, 1))):
        return
    with_labels = f" and labels of {num_classes} classes" if num_classes else ""
    raise NetworkError(
        f"the generator takes {' and '.join(map(str, taken))} where latents of {latent_size}{with_labels} make "
        f"({size},); start it with keras.Input(({size},)), or change latent_dim."
    )


def check_takes_images(discriminator: keras.layers.Layer, shape: tuple[int, ...], num_planes: int = 0) -> None:
    """Refuses images that the discriminator does not take, and one that has no room for their planes of labels."""
    taken = input_shapes(discriminator)
    given = (*shape[:-1], shape[-1] + num_planes)
    if not taken or len(taken[0]) != len(given) or _agree(taken[0], given):
        return
    if num_planes and _agree(taken[0], shape):
        raise NetworkError(
            f"the discriminator takes images of {taken[0]} without labels; start it with keras.Input({given}), which "
            f"has a plane for each of {num_planes} classes, or give it a second input of ({num_planes},)."
        )
    with_planes = f", {given} with {num_planes} planes of labels," if num_planes else ""
    raise DataError(f"x has images of shape {shape}{with_planes} where the discriminator takes {taken[0]}.")


def _agree(taken: tuple[int | None, ...], given: tuple[int, ...]) -> bool:
    return len(taken) == len(given) and all(t in (None, g) for t, g in zip(taken, given, strict=True))


def check_same_shape(fake_images: tf.Tensor, real_images: tf.Tensor) -> None:
    """Refuses a generator whose images are not of the data's shape."""
    fake, real = tuple(fake_images.shape[1:]), tuple(real_images.shape[1:])
    if fake == (*real, 1):
        raise DataError(f"x has images of shape {real} where the generator makes {fake}; pass x[..., numpy.newaxis].")
    if fake != real:
        raise NetworkError(
            f"the generator makes images of shape {fake} where the data has {real}; change its last layers."
        )


def as_logits(outputs: tf.Tensor) -> tf.Tensor:
    """The discriminator's output [B, 1] as float32 [B], or of patches [B, h, w, 1] as [B, P]; refuses other shapes."""
    if len(outputs.shape) not in (2, 4) or outputs.shape[-1] != 1:
        raise NetworkError(
            f"the discriminator gives shape {tuple(outputs.shape)} where one number an image, (B, 1), or a patch, "
            "(B, h, w, 1), is expected; end it with Dense(1) or a convolution to one channel."
        )
    outputs = tf.cast(outputs, tf.float32)
    return outputs[:, 0] if len(outputs.shape) == 2 else tf.reshape(outputs, [-1, outputs.shape[1] * outputs.shape[2]])


def as_losses(values: tf.Tensor, name: str, logits: tf.Tensor) -> tf.Tensor:
    """What a loss or penalty makes of logits [B] or [B, P] as float32 [B], of patches their mean; refuses all else.

    The trainer takes the mean over the batch itself, so that of a loss that has taken it would be too small.
    """
    values = tf.cast(values, tf.float32)
    if values.shape.rank == 0 or not values.shape[:1].is_compatible_with(logits.shape[:1]):
        raise NetworkError(
            f"{name} gives shape {tuple(values.shape)} for logits of shape {tuple(logits.shape)}; "
            "return one number an image, and leave their mean to the trainer."
        )
    return per_example(values)


def per_example(values: tf.Tensor) -> tf.Tensor:
    """[B] as it is, [B, ...] as its mean over all but the first axis: float32 [B]."""
    values = tf.cast(values, tf.float32)
    return values if len(values.shape) == 1 else tf.reduce_mean(values, axis=list(range(1, len(values.shape))))


def as_images(x: object) -> np.ndarray:
    """Images [N, H, W, C] as uint8 where they are, else as float32; refuses what is no array of numbers."""
    images = np.asarray(x)
    if images.ndim < 2 or images.dtype.kind not in "uif":
        raise DataError(f"x is {images.dtype} of shape {images.shape}; expected numbers of shape [N, H, W, C].")
    return images if images.dtype == np.uint8 else images.astype(np.float32)


def as_classes(y: object, num_examples: int, name: str = "y") -> np.ndarray:
    """Labels, integers [N] or [N, 1] or one-hot [N, K], as int32 [N]; refuses what is not one label an image."""
    labels = np.asarray(y)
    is_one_hot = labels.ndim == 2 and labels.shape[1] > 1
    if labels.dtype.kind not in ("buif" if is_one_hot else "uif"):
        raise DataError(f"{name} is of type {labels.dtype}; give classes as numbers from 0 up, or as one-hot vectors.")
    labels = labels.argmax(axis=1) if is_one_hot else labels.reshape(-1)
    if len(labels) != num_examples:
        raise DataError(f"{name} has {labels.size} labels for {num_examples} images; give one an image.")
    if labels.min() < 0:
        raise DataError(f"{name} has the label {labels.min()}; give 0 or more.")
    return labels.astype(np.int32)


def range_of(images: np.ndarray) -> tuple[float, float]:
    """The range that float images lie in, for showing what the generator makes; refuses values that are not finite."""
    if not np.isfinite(images).all():
        raise DataError("x has values that are not finite; remove them before training.")
    if images.min() < 0:
        return IMAGE_RANGES["-1..1"]
    return IMAGE_RANGES["0..1"] if images.max() <= 1 else IMAGE_RANGES["0..255"]


def has_convolutions(networks: Iterable[keras.layers.Layer]) -> bool:
    """Whether any layer, however deep, is a convolution."""
    return any(
        isinstance(layer, _CONVOLUTIONS) or (isinstance(layer, keras.Model) and has_convolutions([layer]))
        for network in networks
        for layer in getattr(network, "layers", [])
    )
