"""What must hold between networks, loss and data, and the sentence for when it does not.

Legend: `B` images a replica.
"""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.data.windows import IMAGE_RANGES
from trainer.errors import DataError, NetworkError
from trainer.losses import AdversarialLoss

_CONVOLUTIONS = keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv2DTranspose, keras.layers.Conv3D
_ACTIVATED = keras.layers.Activation, keras.layers.Dense, *_CONVOLUTIONS
_REARRANGING = keras.layers.Reshape, keras.layers.Flatten, keras.layers.Permute, keras.layers.Identity
_REACHES = {keras.activations.sigmoid: (0.0, 1.0), keras.activations.tanh: (-1.0, 1.0)}


def check_built(name: str, network: object) -> None:
    """Refuses what is no network, or has no variables yet."""
    if not isinstance(network, keras.layers.Layer) or not network.built:
        raise NetworkError(f"get_{name}() must return a built keras.Model; start the network with keras.Input(shape).")


def check_reads(loss: AdversarialLoss, discriminator: keras.layers.Layer) -> None:
    """Refuses a discriminator that ends in a sigmoid under a loss on logits, or without under one on probabilities."""
    last = _last_activation(discriminator)
    if loss.reads_logits and last is keras.activations.sigmoid:
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


def check_same_shape(fake_images: tf.Tensor, real_images: tf.Tensor) -> None:
    """Refuses a generator whose images are not of the data's shape."""
    fake, real = tuple(fake_images.shape[1:]), tuple(real_images.shape[1:])
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


def as_losses(values: tf.Tensor, loss: AdversarialLoss, logits: tf.Tensor) -> tf.Tensor:
    """What a loss makes of logits [B] or [B, P] as float32 [B], of patches their mean; refuses what is not an image's.

    The trainer takes the mean over the batch itself, so that of a loss that has taken it would be too small.
    """
    values = tf.cast(values, tf.float32)
    if values.shape.rank == 0 or not values.shape[:1].is_compatible_with(logits.shape[:1]):
        raise NetworkError(
            f"{type(loss).__name__} gives shape {tuple(values.shape)} for logits of shape {tuple(logits.shape)}; "
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


def as_classes(y: object, num_examples: int) -> np.ndarray:
    """Labels, integers [N] or [N, 1] or one-hot [N, K], as int32 [N]; refuses what is not one label an image."""
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] > 1:
        labels = labels.argmax(axis=1)
    labels = labels.reshape(-1)
    if len(labels) != num_examples or labels.dtype.kind not in "uif":
        raise DataError(f"y has {labels.size} labels for {num_examples} images; give one an image.")
    if labels.min() < 0:
        raise DataError(f"y has the label {labels.min()}; give 0 or more.")
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
