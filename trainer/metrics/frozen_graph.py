"""Convolutional networks that are stored as a frozen graph of TensorFlow 1, rebuilt from its constants with `tf.nn`.

TensorFlow 2 cannot import graphs whose operations were removed, such as the batch normalization of 2015.
"""

import functools
import graphlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from trainer.errors import DataError, quote

_MAX_CONSTANT_VALUES = 2**26
"""Maximum number of values in all constants. The Inception network of 2015 has 24 million."""
_MAX_LAYER_VALUES = 2**24
"""Maximum number of values in a layer per image. The Inception network of 2015 has 1.4 million."""
_CONSTANT_TYPES = {tf.float32.as_datatype_enum, tf.int32.as_datatype_enum}
_CHANNEL_AXIS = 3


class Layer(NamedTuple):
    """A node of a graph as a function.

    Attributes:
        inputs: Names of the nodes whose values the function takes.
        function: Function of tensors [B, ...] that returns a tensor [B, ...].
    """

    inputs: list[str]
    function: Callable[..., tf.Tensor]


class FrozenGraph:
    """A parsed graph. It is data: nothing runs, and only the operations of convolutional networks are accepted.

    Args:
        content: Serialized `GraphDef`.
        source: Address of the graph, for messages.

    Raises:
        DataError: If the content is not a graph.
    """

    def __init__(self, content: bytes, source: object) -> None:
        self._source = source
        try:
            self._nodes = {node.name: node for node in tf.compat.v1.GraphDef.FromString(content).node}
        except DecodeError as error:
            raise self.error("it is not a GraphDef") from error
        self._num_constant_values = 0

    def error(self, problem: str) -> DataError:
        """Returns the error for a graph that is not the expected one."""
        return DataError(f"{self._source} is not a usable frozen graph: {problem}; download the published file again.")

    def layers(self, feed: str, outputs: Sequence[str]) -> dict[str, Layer]:
        """Returns the layers between the feed and the outputs by their names, each after its inputs.

        Args:
            feed: Name of the node whose output the images replace.
            outputs: Names of the nodes whose values are needed.

        Raises:
            DataError: If a needed node is missing, or has an operation, an attribute, or a constant that is not
                allowed.
        """
        self._node(feed)
        layers: dict[str, Layer] = {}
        pending = list(outputs)
        while pending:
            name = pending.pop()
            if name not in layers and name != feed:
                layers[name] = self._layer(self._node(name))
                pending += layers[name].inputs
        dependencies = {name: layer.inputs for name, layer in layers.items()}
        try:
            order = list(graphlib.TopologicalSorter(dependencies).static_order())
        except graphlib.CycleError as error:
            raise self.error("its nodes form a cycle") from error
        return {name: layers[name] for name in order if name != feed}

    def constant(self, name: str, index: int) -> np.ndarray:
        """Returns the constant that is an input of a node.

        Args:
            name: Name of the node.
            index: Index of the input.

        Raises:
            DataError: If the node is missing, or the input is not a constant of an allowed type and size.
        """
        node = self._input(self._node(name), index)
        for _ in range(len(self._nodes)):  # a cycle ends, too
            if node.op != "Identity":
                break
            node = self._input(node, 0)
        tensor = node.attr["value"].tensor
        sizes = [dim.size for dim in tensor.tensor_shape.dim]
        if node.op != "Const" or tensor.dtype not in _CONSTANT_TYPES or min(sizes, default=0) < 0:
            raise self.error(f"input {index} of its node {quote(name)} is not a constant of type float32 or int32")
        self._num_constant_values += math.prod(sizes)
        if self._num_constant_values > _MAX_CONSTANT_VALUES:  # make_ndarray would repeat one value as often
            raise self.error(f"its constants have more than {_MAX_CONSTANT_VALUES:,} values")
        try:
            return tf.make_ndarray(tensor)
        except ValueError as error:
            raise self.error(f"the size of its constant {quote(node.name)} does not fit its shape") from error

    def _node(self, name: str) -> Any:
        if name not in self._nodes:
            raise self.error(f"it has no node {quote(name)}")
        return self._nodes[name]

    def _input(self, node: Any, index: int) -> Any:
        names = _input_names(node)
        if index >= len(names):
            raise self.error(f"its node {quote(node.name)} has {len(names)} inputs, which are too few")
        return self._node(names[index])

    def _layer(self, node: Any) -> Layer:
        """Returns the layer of a node."""
        inputs = _input_names(node)
        match node.op:
            case "Identity" | "CheckNumerics":
                function = tf.identity
            case "Relu":
                function = tf.nn.relu
            case "Sub":
                function = functools.partial(lambda value, x: x - value, tf.constant(self.constant(node.name, 1)))
            case "Mul":
                function = functools.partial(lambda value, x: x * value, tf.constant(self.constant(node.name, 1)))
            case "ResizeBilinear":
                function = self._resize(node)
            case "MaxPool" | "AvgPool":
                pool = tf.nn.max_pool2d if node.op == "MaxPool" else tf.nn.avg_pool2d
                sizes, strides, padding = (
                    self._window(node, "ksize"),
                    self._window(node, "strides"),
                    self._padding(node),
                )
                function = functools.partial(pool, ksize=sizes, strides=strides, padding=padding)
            case "Conv2D":
                function = self._convolution(node)
            case "BatchNormWithGlobalNormalization":
                return self._normalized_convolution(node)
            case "Concat" | "ConcatV2":
                return self._concat(node)
            case _:
                raise self.error(
                    f"its node {quote(node.name)} has the operation {quote(node.op)}, which is not allowed"
                )
        self._input(node, 0)
        return Layer(inputs[:1], function)

    def _resize(self, node: Any) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns the resizing of a node. Graphs of 2015 do not have the attribute `half_pixel_centers`: False."""
        size = self.constant(node.name, 1)
        if size.shape != (2,) or size.dtype != np.int32:
            raise self.error(f"its node {quote(node.name)} has no height and width to resize to")
        return functools.partial(
            lambda size, align_corners, half_pixel_centers, x: tf.raw_ops.ResizeBilinear(
                images=x, size=size, align_corners=align_corners, half_pixel_centers=half_pixel_centers
            ),
            size.tolist(),
            node.attr["align_corners"].b,
            node.attr["half_pixel_centers"].b,
        )

    def _convolution(self, node: Any, factor: np.ndarray | None = None) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns the convolution of a node.

        Args:
            node: Node with the operation Conv2D.
            factor: Numbers by which the output channels are multiplied, float64 [C], or None.
        """
        kernel = self.constant(node.name, 1)
        if kernel.ndim != 4 or (factor is not None and factor.shape != kernel.shape[3:]):
            raise self.error(f"the constants of its node {quote(node.name)} have shapes that do not fit together")
        if list(node.attr["dilations"].list.i) not in ([], [1, 1, 1, 1]):
            raise self.error(f"its node {quote(node.name)} has dilations, which are not allowed")
        if factor is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                kernel = (kernel * factor).astype(np.float32)
        if not np.isfinite(kernel).all():
            raise self.error(f"the kernel of its node {quote(node.name)} has values that are not finite")
        return functools.partial(
            tf.nn.conv2d,
            filters=tf.constant(kernel),
            strides=self._window(node, "strides"),
            padding=self._padding(node),
        )

    def _normalized_convolution(self, node: Any) -> Layer:
        """Returns a convolution with the batch normalization after it, as a scaled kernel and a bias.

        The normalization is (x - mean) / sqrt(variance + epsilon) * gamma + beta, with gamma only if
        `scale_after_normalization` is set.
        """
        source = self._input(node, 0)
        if source.op != "Conv2D":
            raise self.error(f"its node {quote(node.name)} does not normalize the output of a convolution")
        mean, variance, beta, gamma = (self.constant(node.name, index).astype(np.float64) for index in range(1, 5))
        positive = variance + node.attr["variance_epsilon"].f
        if len({mean.shape, variance.shape, beta.shape, gamma.shape}) > 1 or not (positive > 0).all():
            raise self.error(f"the constants of its node {quote(node.name)} are not those of a batch normalization")
        factor = 1 / np.sqrt(positive)
        if node.attr["scale_after_normalization"].b:
            factor *= gamma
        convolution = self._convolution(source, factor)
        bias = tf.cast(beta - mean * factor, tf.float32)
        self._input(source, 0)
        return Layer(_input_names(source)[:1], lambda x: tf.nn.bias_add(convolution(x), bias))

    def _concat(self, node: Any) -> Layer:
        names = _input_names(node)
        axis_index = 0 if node.op == "Concat" else len(names) - 1  # the order of the inputs changed with ConcatV2
        axis = self.constant(node.name, axis_index)
        inputs = names[:axis_index] + names[axis_index + 1 :]
        if axis.shape != () or axis != _CHANNEL_AXIS or not inputs:
            raise self.error(f"its node {quote(node.name)} does not concatenate channels")
        return Layer(inputs, lambda *values: tf.concat(values, _CHANNEL_AXIS))

    def _window(self, node: Any, name: str) -> list[int]:
        """Returns an attribute [height, width] of a node for images in the format NHWC."""
        values = list(node.attr[name].list.i)
        is_spatial = len(values) == 4 and values[0] == values[3] == 1 and min(values) >= 1
        if not is_spatial or node.attr["data_format"].s not in (b"", b"NHWC"):
            raise self.error(f"its node {quote(node.name)} has {name} or a data_format that is not allowed")
        return values[1:3]

    def _padding(self, node: Any) -> str:
        padding = node.attr["padding"].s.decode(errors="replace")
        if padding not in ("SAME", "VALID"):
            raise self.error(f"its node {quote(node.name)} has padding={quote(padding)}, which is not allowed")
        return padding


class FrozenNetwork:
    """The part of a graph between a feed and some outputs, as a function of images.

    Args:
        graph: Graph. It can be deleted after this call, which copies the constants.
        feed: Name of the node whose output the images replace.
        outputs: Names of the nodes whose values are computed.

    Attributes:
        shapes: Shapes [None, ...] of the outputs, by their names.

    Raises:
        DataError: If a needed node is missing, or has an operation, attribute, constant or shape that is not allowed.
    """

    def __init__(self, graph: FrozenGraph, feed: str, outputs: Sequence[str]) -> None:
        self._feed, self._outputs = feed, tuple(outputs)
        self._layers = graph.layers(feed, outputs)
        signature = [tf.TensorSpec((None, None, None, 3), tf.float32)]
        self._function = tf.function(self._apply, input_signature=signature, autograph=False)
        try:
            values = self._function.get_concrete_function().structured_outputs
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise graph.error(f"its layers do not fit together, {quote(str(error))}") from error
        self.shapes: dict[str, tf.TensorShape] = {name: value.shape for name, value in values.items()}

    def __call__(self, images: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """Computes the outputs. It can be called inside a `tf.function`.

        Args:
            images: float32 [B, H, W, 3].

        Returns:
            float32 [B, ...], by the name of the node.
        """
        return self._function(images)

    def _apply(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        values = {self._feed: images}
        for name, layer in self._layers.items():
            values[name] = layer.function(*(values[source] for source in layer.inputs))
            if (values[name].shape[1:].num_elements() or 0) > _MAX_LAYER_VALUES:
                raise ValueError(f"node {name} has more than {_MAX_LAYER_VALUES:,} values per image")
        return {name: values[name] for name in self._outputs}


def _input_names(node: Any) -> list[str]:
    """Returns the names of the nodes whose first outputs are the inputs of a node, without control dependencies."""
    return [name.removesuffix(":0") for name in node.input if not name.startswith("^")]
