"""Inputs of generators and discriminators: latents or images, and labels beside them.

Shapes: `B` images of a replica, `H W C` an image, `Z` latent size, `K` classes or conditions.
"""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from trainer.config.fields import check_number
from trainer.errors import ConfigError, DataError, NetworkError, count_of
from trainer.models.validation import Shape, all_layers, input_shapes, matches

_INTEGER_SHAPES: tuple[Shape, ...] = ((), (1,))
_MAX_BFLOAT16_INTEGER = 256
_LABEL_NAMES = re.compile(r"label|class|cond|categor|target|one_?hot|digit|^y\d*$", re.IGNORECASE)
_DATA_NAMES = re.compile(r"latent|noise|image|img|picture|pixel|^[xz]\d*$", re.IGNORECASE)


@dataclass(frozen=True)
class _Input:
    """One of two inputs of a network: its name, its shape without B, and its dtype; None for unknown ones."""

    name: str
    shape: Shape
    dtype: str | None


def check_latent_dim(latent_dim: int | None, input_dim: int | None) -> int:
    """Returns the number of latent variables, which has two names.

    Raises:
        ConfigError: If both or none are set, or it is not a whole number from 1 up.
    """
    if latent_dim is None and input_dim is None:
        raise ConfigError("the number of latent variables is missing; pass latent_dim=128, or input_dim=128.")
    if latent_dim is not None and input_dim is not None:
        raise ConfigError(
            f"latent_dim={latent_dim!r} and input_dim={input_dim!r} are names of the same size; pass exactly one."
        )
    name, size = ("latent_dim", latent_dim) if input_dim is None else ("input_dim", input_dim)
    check_number(name, size, whole=True, minimum=1)
    return int(size)  # type: ignore[arg-type]


def check_latents(latents: tf.Tensor, *sizes: int) -> None:
    """Rejects the argument of `GAN.call` if it is not latents [B, one of `sizes`].

    Raises:
        DataError: If it has another shape.
    """
    if not any(matches(tuple(latents.shape[1:]), (size,)) for size in sizes):
        allowed = " or ".join(f"[N, {size}]" for size in dict.fromkeys(sizes))
        raise DataError(f"latents has the shape {tuple(latents.shape)}; pass latents of shape {allowed}.")


def call_with_labels(
    role: str, network: keras.layers.Layer, data: tf.Tensor, labels: tf.Tensor, label_size: int, training: bool
) -> Any:
    """Returns the output of a network for latents or images and their labels.

    Args:
        role: `generator` or `discriminator`, for messages.
        network: Network that takes labels in one of the forms of `find_label_input`.
        data: Latents [B, Z], or images [B, H, W, C] or [B, D].
        labels: Integers [B], or weights of the classes, float [B, K]. A network that takes integers gets the class with
            the largest weight.
        label_size: Size of the vector of a label, K: the number of classes or conditions.
        training: Argument of the network.

    Raises:
        DataError, NetworkError: If the network takes neither form.
    """
    position = find_label_input(role, network, tuple(data.shape[1:]), label_size)
    has_weights = tf.as_dtype(labels.dtype).is_floating
    if position is None:
        planes = labels if has_weights else tf.one_hot(labels, label_size)
        if len(data.shape) > 2:
            for _ in data.shape[1:-1]:
                planes = planes[:, tf.newaxis]
            planes = tf.broadcast_to(planes, [*data.shape[:-1], label_size])
        return network(tf.concat([data, planes], axis=-1), training=training)
    inputs, pack = _inputs_of(network)
    label = inputs[position]
    if label.shape in _INTEGER_SHAPES and label_size > 1:  # a single condition has this shape, too
        classes = tf.argmax(labels, axis=-1, output_type=tf.int32) if has_weights else labels
        label_input = tf.reshape(classes, [-1, *label.shape])
    else:
        label_input = labels if has_weights else tf.one_hot(labels, label_size)
    return network(pack([data, label_input] if position else [label_input, data]), training=training)


def find_label_input(role: str, network: keras.layers.Layer, data_shape: Shape, label_size: int) -> int | None:
    """Returns the position of the input that takes the labels; None if labels are concatenated to the data.

    Args:
        role: `generator` or `discriminator`, for messages.
        network: A network with one input, data and one-hot labels concatenated along the last axis; or with two inputs,
            in either order: the data, and labels that are one-hot [B, K], or integers [B] or [B, 1]. A subclassed model
            takes two inputs as one list.
        data_shape: Shape of latents or an image, without B.
        label_size: Size of the vector of a label, K: the number of classes or conditions.

    Raises:
        DataError: If a discriminator takes images of another shape.
        NetworkError: If the network takes neither form, or shapes, dtypes and names do not show which input is which.
    """
    inputs, _ = _inputs_of(network)
    if len(inputs) < 2:
        _check_concatenated(role, network, data_shape, label_size)
        return None
    if len(inputs) > 2:
        raise _error(role, inputs, data_shape, label_size)
    positions = [i for i in (0, 1) if _takes_labels(inputs[i], label_size) and matches(inputs[1 - i].shape, data_shape)]
    if len(positions) == 2:
        integers = [i for i in positions if (inputs[i].dtype or "").startswith("int")]
        names = [i for i in positions if _LABEL_NAMES.search(inputs[i].name) or _DATA_NAMES.search(inputs[1 - i].name)]
        positions = next((indices for indices in (integers, names) if len(indices) == 1), positions)
    if len(positions) != 1:
        raise _error(role, inputs, data_shape, label_size)
    label = inputs[positions[0]]
    if label.shape in _INTEGER_SHAPES:
        _check_embeddings(role, network, label_size)
        if label.dtype == "float32" and label_size > _MAX_BFLOAT16_INTEGER:
            _check_keeps_integers(role, network, label)
    return positions[0]


def _check_embeddings(role: str, network: keras.layers.Layer, num_classes: int) -> None:
    """Rejects embeddings of integer labels without a row for the last class. On GPUs, such a class would get zeros."""
    for layer in all_layers([network]):
        if isinstance(layer, keras.layers.Embedding) and layer.input_dim < num_classes:
            rows, classes = count_of(layer.input_dim, "row"), count_of(num_classes, "class")
            raise NetworkError(
                f"{layer.name} of the {role} has {rows} for {classes}; make it keras.layers.Embedding({num_classes}, "
                f"{layer.output_dim})."
            )


def _check_keeps_integers(role: str, network: keras.layers.Layer, label: _Input) -> None:
    """Rejects labels as floats in a network that rounds them."""
    if network.compute_dtype != "float32":
        raise NetworkError(
            f"the {role} rounds its labels to {network.compute_dtype}, which holds whole numbers up to "
            f"{_MAX_BFLOAT16_INTEGER}; start it with keras.Input({label.shape}, dtype='int32')."
        )


def _inputs_of(network: keras.layers.Layer) -> tuple[list[_Input], Callable[[Sequence[Any]], Any]]:
    """Returns the inputs of a network, and a function that packs their values; no inputs if they are not known."""
    if getattr(network, "inputs", None):
        inputs = [_Input(tensor.name, tuple(tensor.shape[1:]), tensor.dtype) for tensor in network.inputs]
        return inputs, lambda values: keras.tree.pack_sequence_as(network.input, list(values))
    parameters = [
        parameter.name
        for parameter in _parameters(network)
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and (parameter.default is parameter.empty or _LABEL_NAMES.search(parameter.name))
    ]
    if len(parameters) > 1 and parameters[1] not in ("training", "mask"):
        raise NetworkError(
            f"call of {type(network).__name__} takes {', '.join(parameters)}; make it take one list, [data, labels]."
        )
    shapes = _built_shapes(network)
    if isinstance(shapes, dict):
        inputs = [_Input(name, tuple(shape[1:]), None) for name, shape in shapes.items()]
        return inputs, lambda values: dict(zip(shapes, values, strict=True))
    if isinstance(shapes, (list, tuple)) and shapes and isinstance(shapes[0], (list, tuple)):
        if any(parameter.kind == parameter.VAR_POSITIONAL for parameter in _parameters(network)):
            raise NetworkError(
                f"call of {type(network).__name__} takes any number of arguments; make it take one list, "
                "[data, labels]."
            )
        return [_Input("", tuple(shape[1:]), None) for shape in shapes], list
    return [], list


def _parameters(network: keras.layers.Layer) -> list[inspect.Parameter]:
    return list(inspect.signature(network.call).parameters.values())


def _built_shapes(network: keras.layers.Layer) -> Any:
    """Returns the shape that a subclassed model was built for, with B, or a list or dict of shapes; None if unknown."""
    return (network.get_build_config() or {}).get("input_shape")


def _takes_labels(label: _Input, label_size: int) -> bool:
    return label.dtype != "string" and (label.shape in _INTEGER_SHAPES or matches(label.shape, (label_size,)))


def _check_concatenated(role: str, network: keras.layers.Layer, data_shape: Shape, label_size: int) -> None:
    """Rejects a network whose only input does not take data with concatenated labels."""
    is_image = role == "discriminator"
    shapes = input_shapes(network)
    built = None if shapes else _built_shapes(network)
    built_shape = tuple(built) if isinstance(built, (list, tuple)) else ()
    last, data_size = built_shape[-1] if built_shape else None, data_shape[-1]
    if last is not None and data_size is not None and last != data_size + label_size:
        # The other axes of a subclassed model may have any size.
        raise _error(role, [_Input("", built_shape[1:], None)], data_shape, label_size)
    for expected in shapes:
        actual = (*data_shape[:-1], None if data_shape[-1] is None else data_shape[-1] + label_size)
        is_right = matches(expected, actual) or matches(expected, (*actual, 1))  # Keras adds a last axis of size 1
        if is_right or (is_image and matches(expected[:-1], data_shape)):  # `as_fake_images` asks for channels
            return
        if is_image and not matches(expected, data_shape):
            raise DataError(
                f"x has images of shape {data_shape}, {actual} with {label_size} planes of labels, but the "
                f"discriminator takes {expected}."
            )
        raise _error(role, [_Input("", expected, None)], data_shape, label_size)


def _error(role: str, inputs: Sequence[_Input], data_shape: Shape, label_size: int) -> NetworkError:
    """Returns the error for a network that takes labels in no accepted form."""
    is_image = role == "discriminator"
    size = data_shape[-1] + label_size if data_shape[-1] is not None else None
    shapes = " and ".join(str(value.shape) for value in inputs)
    data = f"{'images' if is_image else 'latents'} of {data_shape}"
    return NetworkError(
        f"the {role} takes {shapes}; for {data} and labels of {count_of(label_size, 'value')}, start it with "
        f"keras.Input({(*data_shape[:-1], size)}), or with two inputs: {data_shape}, and a label of "
        f"({label_size},) or, for classes, an integer of (1,), that is named label"
        f"{'' if is_image else '; or change latent_dim'}."
    )
