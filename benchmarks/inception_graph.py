"""Frozen graphs with the architecture and the names of the published Inception network of 2015, with random weights.

The published file cannot be part of this repository. Tests use graphs of the same architecture with fewer channels.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

IMAGE_SIZE = 299
NUM_CLASSES = 1008
_EPSILON = 1e-3
_GRAPH_VERSION = 8
"""Version of graphs that may contain BatchNormWithGlobalNormalization; it was removed in version 9."""

Constant = Callable[[str, tuple[int, ...]], np.ndarray]
"""Function that returns the float32 values of a constant with a name and a shape."""


def random_constants(seed: int) -> Constant:
    """Returns random weights with which the layers keep the scale of their inputs."""
    rng = np.random.default_rng(seed)

    def constant(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith(("gamma", "moving_variance")):
            values = rng.uniform(0.5, 1.5, shape)
        elif name.endswith(("beta", "moving_mean")):
            values = rng.normal(0, 0.1, shape)
        else:
            values = rng.normal(0, math.sqrt(2 / math.prod(shape[:-1])), shape)
        return values.astype(np.float32)

    return constant


def equal_constants(value: float = 0.01) -> Constant:
    """Returns weights of one value. A graph of full size then needs less than a megabyte."""
    return lambda name, shape: np.broadcast_to(np.float32(value), shape)


class GraphBuilder:
    """A graph that grows by layers with the nodes and attributes of the published graph.

    Args:
        constant: Function that returns the weights.
        divisor: Number by which the numbers of channels are divided.
        scales: Function that returns, for the name of a convolution, whether its batch normalization multiplies by
            gamma.

    Attributes:
        graph: Graph.
        shapes: Height, width and number of channels of every layer, by its name.
    """

    def __init__(
        self, constant: Constant, *, divisor: int = 1, scales: Callable[[str], bool] = lambda name: False
    ) -> None:
        self.graph = tf.compat.v1.GraphDef()
        self.graph.versions.producer = _GRAPH_VERSION
        self.shapes: dict[str, tuple[int, int, int]] = {}
        self._constant, self._divisor, self._scales = constant, divisor, scales

    def values(self, name: str, values: np.ndarray | np.generic) -> None:
        """Adds a constant."""
        array = np.asarray(values)
        node = self.node(name, "Const", [], dtype=tf.as_dtype(array.dtype))
        if array.ndim > 0 and not any(array.strides):  # equal values
            tensor = tf.make_tensor_proto(array.flat[0], shape=array.shape)
        else:
            tensor = tf.make_tensor_proto(array)
        node.attr["value"].tensor.CopyFrom(tensor)

    def node(self, name: str, operation: str, inputs: Sequence[str], **attributes: object) -> tf.compat.v1.NodeDef:
        """Adds a node. A list of attributes contains whole numbers, and bytes are a constant."""
        node = self.graph.node.add(name=name, op=operation, input=inputs)
        for key, value in attributes.items():
            attribute = node.attr[key]
            if isinstance(value, bool):
                attribute.b = value
            elif isinstance(value, int):
                attribute.i = value
            elif isinstance(value, float):
                attribute.f = value
            elif isinstance(value, list):
                attribute.list.i.extend(value)
            elif isinstance(value, tf.DType):
                attribute.type = value.as_datatype_enum
            elif isinstance(value, bytes):
                attribute.tensor.CopyFrom(tf.make_tensor_proto(value))
            else:
                attribute.s = str(value).encode()
        return node

    def conv(
        self,
        name: str,
        x: str,
        channels: int,
        size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: str = "SAME",
    ) -> str:
        """Adds a convolution, batch normalization and ReLU. Returns the name of the ReLU.

        Args:
            name: Name of the ReLU.
            x: Name of the input.
            channels: Number of output channels before the division.
            size: Height and width of the kernel.
            stride: Stride in both directions.
            padding: `SAME` or `VALID`.
        """
        rows, columns = (size, size) if isinstance(size, int) else size
        channels //= self._divisor
        self.values(
            f"{name}/conv2d_params",
            self._constant(f"{name}/conv2d_params", (rows, columns, self.shapes[x][2], channels)),
        )
        self.node(
            f"{name}/Conv2D",
            "Conv2D",
            [x, f"{name}/conv2d_params"],
            T=tf.float32,
            strides=[1, stride, stride, 1],
            padding=padding,
        )
        names = [f"{name}/batchnorm/{part}" for part in ("moving_mean", "moving_variance", "beta", "gamma")]
        for part in names:
            self.values(part, self._constant(part, (channels,)))
        self.node(
            f"{name}/batchnorm",
            "BatchNormWithGlobalNormalization",
            [f"{name}/Conv2D", *names],
            T=tf.float32,
            variance_epsilon=_EPSILON,
            scale_after_normalization=self._scales(name),
        )
        self.node(name, "Relu", [self._checked(name, f"{name}/batchnorm")], T=tf.float32)
        self.shapes[name] = (*self._output_size(x, (rows, columns), stride, padding), channels)
        return name

    def pool(self, name: str, x: str, operation: str, *, size: int = 3, stride: int = 1, padding: str = "SAME") -> str:
        """Adds a pooling with the operation `MaxPool` or `AvgPool`. Returns its name."""
        self.node(
            name,
            operation,
            [self._checked(name, x)],
            T=tf.float32,
            ksize=[1, size, size, 1],
            strides=[1, stride, stride, 1],
            padding=padding,
        )
        self.shapes[name] = (*self._output_size(x, (size, size), stride, padding), self.shapes[x][2])
        return name

    def join(self, name: str, inputs: Sequence[str]) -> str:
        """Adds the concatenation `NAME/join` of the channels of some layers. Returns its name."""
        self.values(f"{name}/join/concat_dim", np.int32(3))
        self.node(f"{name}/join", "Concat", [f"{name}/join/concat_dim", *inputs], T=tf.float32, N=len(inputs))
        rows, columns, _ = self.shapes[inputs[0]]
        self.shapes[f"{name}/join"] = (rows, columns, sum(self.shapes[source][2] for source in inputs))
        return f"{name}/join"

    def _output_size(self, x: str, size: tuple[int, int], stride: int, padding: str) -> tuple[int, int]:
        trimmed = [0, 0] if padding == "SAME" else [size[0] - 1, size[1] - 1]
        rows, columns = (-(-(length - cut) // stride) for length, cut in zip(self.shapes[x], trimmed, strict=False))
        return rows, columns

    def _checked(self, name: str, x: str) -> str:
        """Adds the nodes that check numbers in the published graph."""
        self.node(f"{name}/CheckNumerics", "CheckNumerics", [x], T=tf.float32, message="check")
        self.node(f"{name}/control_dependency", "Identity", [x, f"^{name}/CheckNumerics"], T=tf.float32)
        return f"{name}/control_dependency"


class InceptionGraph(GraphBuilder):
    """The network of 2015.

    Args:
        constant: Function that returns the weights.
        image_size: Height and width to which images are resized, at least 75.
        num_classes: Number of logits.
        **options: Options of a `GraphBuilder`. `divisor=1` gives the published numbers of channels.
    """

    def __init__(
        self, constant: Constant, *, image_size: int = IMAGE_SIZE, num_classes: int = NUM_CLASSES, **options: Any
    ) -> None:
        super().__init__(constant, **options)
        self._build(image_size, num_classes)

    def _build(self, image_size: int, num_classes: int) -> None:
        self.node("DecodeJpeg/contents", "Const", [], dtype=tf.string, value=b"")
        self.node("DecodeJpeg", "DecodeJpeg", ["DecodeJpeg/contents"], channels=3)
        self.node("Cast", "Cast", ["DecodeJpeg"], SrcT=tf.uint8, DstT=tf.float32)
        self.values("ExpandDims/dim", np.int32(0))
        self.node("ExpandDims", "ExpandDims", ["Cast", "ExpandDims/dim"], T=tf.float32)
        self.values("ResizeBilinear/size", np.array([image_size, image_size], np.int32))
        self.node("ResizeBilinear", "ResizeBilinear", ["ExpandDims", "ResizeBilinear/size"], T=tf.float32)
        self.values("Sub/y", np.float32(128))
        self.node("Sub", "Sub", ["ResizeBilinear", "Sub/y"], T=tf.float32)
        self.values("Mul/y", np.float32(0.0078125))
        self.node("Mul", "Mul", ["Sub", "Mul/y"], T=tf.float32)
        self.shapes["Mul"] = (image_size, image_size, 3)
        x = self.conv("conv", "Mul", 32, 3, stride=2, padding="VALID")
        x = self.conv("conv_1", x, 32, 3, padding="VALID")
        x = self.conv("conv_2", x, 64, 3)
        x = self.pool("pool", x, "MaxPool", stride=2, padding="VALID")
        x = self.conv("conv_3", x, 80, 1, padding="VALID")
        x = self.conv("conv_4", x, 192, 3, padding="VALID")
        x = self.pool("pool_1", x, "MaxPool", stride=2, padding="VALID")
        for name, num_pooled in (("mixed", 32), ("mixed_1", 64), ("mixed_2", 64)):
            x = self._block_35(name, x, num_pooled)
        x = self._reduction_17("mixed_3", x)
        for name, channels in (("mixed_4", 128), ("mixed_5", 160), ("mixed_6", 160), ("mixed_7", 192)):
            x = self._block_17(name, x, channels)
        x = self._reduction_8("mixed_8", x)
        x = self._block_8("mixed_9", x, "AvgPool")
        x = self._block_8("mixed_10", x, "MaxPool")
        size = self.shapes[x][0]
        x = self.pool("pool_3", x, "AvgPool", size=size, padding="VALID")
        num_features = self.shapes[x][2]
        self.values("pool_3/_reshape/shape", np.array([1, num_features], np.int32))
        self.node("pool_3/_reshape", "Reshape", [x, "pool_3/_reshape/shape"], T=tf.float32, Tshape=tf.int32)
        self.values("softmax/weights", self._constant("softmax/weights", (num_features, num_classes)))
        self.values("softmax/biases", self._constant("softmax/biases", (num_classes,)))
        self.node("softmax/logits/MatMul", "MatMul", ["pool_3/_reshape", "softmax/weights"], T=tf.float32)
        self.node("softmax/logits", "BiasAdd", ["softmax/logits/MatMul", "softmax/biases"], T=tf.float32)
        self.node("softmax", "Softmax", ["softmax/logits"], T=tf.float32)

    def _block_35(self, name: str, x: str, num_pooled: int) -> str:
        first = self.conv(f"{name}/conv", x, 64, 1)
        second = self.conv(f"{name}/tower/conv_1", self.conv(f"{name}/tower/conv", x, 48, 1), 64, 5)
        third = self.conv(f"{name}/tower_1/conv_1", self.conv(f"{name}/tower_1/conv", x, 64, 1), 96, 3)
        third = self.conv(f"{name}/tower_1/conv_2", third, 96, 3)
        pooled = self.conv(f"{name}/tower_2/conv", self.pool(f"{name}/tower_2/pool", x, "AvgPool"), num_pooled, 1)
        return self.join(name, [first, second, third, pooled])

    def _reduction_17(self, name: str, x: str) -> str:
        first = self.conv(f"{name}/conv", x, 384, 3, stride=2, padding="VALID")
        second = self.conv(f"{name}/tower/conv_1", self.conv(f"{name}/tower/conv", x, 64, 1), 96, 3)
        second = self.conv(f"{name}/tower/conv_2", second, 96, 3, stride=2, padding="VALID")
        pooled = self.pool(f"{name}/pool", x, "MaxPool", stride=2, padding="VALID")
        return self.join(name, [first, second, pooled])

    def _block_17(self, name: str, x: str, channels: int) -> str:
        first = self.conv(f"{name}/conv", x, 192, 1)
        second = self.conv(f"{name}/tower/conv", x, channels, 1)
        second = self.conv(f"{name}/tower/conv_1", second, channels, (1, 7))
        second = self.conv(f"{name}/tower/conv_2", second, 192, (7, 1))
        third = self.conv(f"{name}/tower_1/conv", x, channels, 1)
        third = self.conv(f"{name}/tower_1/conv_1", third, channels, (7, 1))
        third = self.conv(f"{name}/tower_1/conv_2", third, channels, (1, 7))
        third = self.conv(f"{name}/tower_1/conv_3", third, channels, (7, 1))
        third = self.conv(f"{name}/tower_1/conv_4", third, 192, (1, 7))
        pooled = self.conv(f"{name}/tower_2/conv", self.pool(f"{name}/tower_2/pool", x, "AvgPool"), 192, 1)
        return self.join(name, [first, second, third, pooled])

    def _reduction_8(self, name: str, x: str) -> str:
        first = self.conv(f"{name}/tower/conv", x, 192, 1)
        first = self.conv(f"{name}/tower/conv_1", first, 320, 3, stride=2, padding="VALID")
        second = self.conv(f"{name}/tower_1/conv", x, 192, 1)
        second = self.conv(f"{name}/tower_1/conv_1", second, 192, (1, 7))
        second = self.conv(f"{name}/tower_1/conv_2", second, 192, (7, 1))
        second = self.conv(f"{name}/tower_1/conv_3", second, 192, 3, stride=2, padding="VALID")
        pooled = self.pool(f"{name}/pool", x, "MaxPool", stride=2, padding="VALID")
        return self.join(name, [first, second, pooled])

    def _block_8(self, name: str, x: str, pooling: str) -> str:
        first = self.conv(f"{name}/conv", x, 320, 1)
        second = self.conv(f"{name}/tower/conv", x, 384, 1)
        second = self._split(f"{name}/tower/mixed", second)
        third = self.conv(f"{name}/tower_1/conv_1", self.conv(f"{name}/tower_1/conv", x, 448, 1), 384, 3)
        third = self._split(f"{name}/tower_1/mixed", third)
        pooled = self.conv(f"{name}/tower_2/conv", self.pool(f"{name}/tower_2/pool", x, pooling), 192, 1)
        return self.join(name, [first, second, third, pooled])

    def _split(self, name: str, x: str) -> str:
        return self.join(name, [self.conv(f"{name}/conv", x, 384, (1, 3)), self.conv(f"{name}/conv_1", x, 384, (3, 1))])
