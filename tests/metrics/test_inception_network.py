"""The Inception network, rebuilt from graphs with the published architecture and random weights.

Expected values come from a session of TensorFlow 1, which imports such graphs, and from NumPy.
"""

import gzip
import hashlib
import io
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from refusals import check_refusal

from benchmarks.inception_graph import GraphBuilder, InceptionGraph, equal_constants, random_constants
from benchmarks.inception_parity import torch_names
from trainer.errors import ConfigError, DataError, StorageError
from trainer.metrics import inception_weights
from trainer.metrics.extraction import without_tf32
from trainer.metrics.frozen_graph import FrozenGraph, FrozenNetwork
from trainer.metrics.inception_network import InceptionNetwork
from trainer.metrics.inception_weights import GRAPH_NAME

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 40, 28, 3), np.uint8)


def miniature(**options):
    """A graph with all layers of the published one, a sixteenth of its channels, and images of 139x139 pixels."""
    scales = lambda name: name.endswith("1")  # noqa: E731
    return InceptionGraph(random_constants(0), divisor=16, image_size=139, num_classes=10, scales=scales, **options)


@pytest.fixture(scope="module")
def graph():
    return miniature().graph


@pytest.fixture(scope="module")
def path(graph, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "graph.pb"
    path.write_bytes(graph.SerializeToString())
    return path


@pytest.fixture(scope="module")
def network(path):
    return InceptionNetwork(path)


def copy_of(graph):
    copy = tf.compat.v1.GraphDef()
    copy.CopyFrom(graph)
    return copy


def node_of(graph, name):
    return next(node for node in graph.node if node.name == name)


def run_in_session(graph, images, outputs):
    """The values of nodes, computed by TensorFlow 1."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        feed = tf.compat.v1.placeholder(tf.float32, [None, None, None, 3])
        names = [f"{name}:0" for name in outputs]
        fetches = tf.import_graph_def(graph, {"ExpandDims:0": feed}, names, name="")
        return session.run(fetches, {feed: images})


def rebuild(graph, outputs):
    return FrozenNetwork(FrozenGraph(graph.SerializeToString(), "graph.pb"), "ExpandDims", outputs)


def relative_error(values, expected):
    return np.abs(values - expected).max() / np.abs(expected).max()


class TinyGraph(GraphBuilder):
    """A graph with a placeholder for images of some size."""

    def __init__(self, size, constant=None, **options):
        super().__init__(constant or random_constants(0), **options)
        self.node("ExpandDims", "Placeholder", [], dtype=tf.float32)
        self.shapes["ExpandDims"] = (size, size, 3)

    def __call__(self, images, output):
        return rebuild(self.graph, [output])(tf.constant(images, tf.float32))[output].numpy()


# Equality with TensorFlow 1.


def test_features_and_logits_equal_those_of_a_session(graph, network):
    features, logits = network(IMAGES)
    pooled, weights = run_in_session(graph, IMAGES, ["pool_3", "softmax/weights"])
    assert features.shape == (3, 128) and features.dtype == tf.float32
    assert relative_error(features, pooled[:, 0, 0]) < 1e-5
    assert logits.shape == (3, 10)  # without the bias
    assert relative_error(logits, pooled[:, 0, 0] @ weights) < 1e-5


def test_every_layer_equals_that_of_a_session(graph):
    layers = [node.name for node in graph.node if node.op in ("Relu", "Concat", "MaxPool", "AvgPool", "Mul")]
    assert len(layers) == 94 + 15 + 14 + 1
    expected = run_in_session(graph, IMAGES, layers)
    values = rebuild(graph, layers)(tf.constant(IMAGES, tf.float32))
    errors = {name: relative_error(values[name], layer) for name, layer in zip(layers, expected, strict=True)}
    assert max(errors.values()) < 1e-5, errors


def test_the_published_architecture_has_the_published_shapes():
    builder = InceptionGraph(equal_constants())
    shapes = rebuild(builder.graph, list(builder.shapes)[1:]).shapes
    expected = {
        **{"conv": (149, 32), "conv_1": (147, 32), "conv_2": (147, 64), "pool": (73, 64), "conv_3": (73, 80)},
        **{"conv_4": (71, 192), "pool_1": (35, 192), "mixed/join": (35, 256)},
        **{f"mixed_{index}/join": (35, 288) for index in (1, 2)},
        **{f"mixed_{index}/join": (17, 768) for index in (3, 4, 5, 6, 7)},
        **{"mixed_8/join": (8, 1280), "mixed_9/join": (8, 2048), "mixed_10/join": (8, 2048), "pool_3": (1, 2048)},
    }
    assert {name: tuple(shapes[name][2:]) for name in expected} == expected
    assert all(tuple(shape[1:]) == builder.shapes[name] for name, shape in shapes.items())
    assert sum(node.op == "Conv2D" for node in builder.graph.node) == 94


def test_the_benchmark_knows_the_names_of_all_convolutions():
    names = [node.name for node in InceptionGraph(equal_constants()).graph.node if node.op == "Relu"]
    assert sorted(torch_names()) == sorted(names) and len(set(torch_names().values())) == 94


# Traps: mistakes that change the features by percents.


def test_images_are_resized_without_half_pixels():
    graph = TinyGraph(4)
    graph.values("size", np.array([1, 8], np.int32))
    graph.node("resized", "ResizeBilinear", ["ExpandDims", "size"], T=tf.float32)
    row = np.repeat(np.array([0.0, 1, 2, 3])[None, None, :, None], 3, axis=3)
    assert graph(row, "resized")[0, 0, :, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]


def test_images_are_reduced_without_antialiasing():
    graph = TinyGraph(8)
    graph.values("size", np.array([8, 2], np.int32))
    graph.node("resized", "ResizeBilinear", ["ExpandDims", "size"], T=tf.float32)
    image = RNG.uniform(0, 255, (1, 8, 8, 3)).astype(np.float32)
    assert (graph(image, "resized") == image[:, :, ::4]).all()


@pytest.mark.parametrize(
    "attributes", [{}, {"align_corners": False}, {"align_corners": True}, {"half_pixel_centers": True}], ids=str
)
def test_the_attributes_of_resizing_are_those_of_the_graph(attributes):
    graph = TinyGraph(9)
    graph.values("size", np.array([13, 5], np.int32))
    graph.node("resized", "ResizeBilinear", ["ExpandDims", "size"], T=tf.float32, **attributes)
    image = RNG.uniform(0, 255, (1, 9, 9, 3)).astype(np.float32)
    (expected,) = run_in_session(graph.graph, image, ["resized"])
    assert relative_error(graph(image, "resized"), expected) < 1e-6


@pytest.mark.parametrize("scale_after_normalization", [False, True])
def test_gamma_and_epsilon_of_batch_normalization(scale_after_normalization):
    variance = np.array([0.0, 1e-3, 4.0], np.float32)  # the epsilon of 1e-3 counts

    def constant(name, shape):
        values = {
            "conv2d_params": np.eye(3)[None, None],
            "moving_variance": variance,
            "gamma": np.array([2.0, 3.0, 5.0]),
        }
        return values.get(name.rpartition("/")[2], np.array([0.1, 0.2, 0.3])).astype(np.float32)

    graph = TinyGraph(2, constant, scales=lambda name: scale_after_normalization)
    graph.conv("conv", "ExpandDims", 3, 1)
    image = RNG.uniform(1, 2, (1, 2, 2, 3))
    gamma = [2.0, 3.0, 5.0] if scale_after_normalization else 1.0
    expected = (image - [0.1, 0.2, 0.3]) / np.sqrt(variance + 1e-3) * gamma + [0.1, 0.2, 0.3]
    np.testing.assert_allclose(graph(image, "conv"), expected, rtol=1e-5)


def test_average_pooling_leaves_the_padding_out():
    graph = TinyGraph(5)
    graph.pool("pool", "ExpandDims", "AvgPool")
    assert (graph(np.full((1, 5, 5, 3), 7.0), "pool") == 7).all()


def test_only_the_last_block_pools_by_the_maximum(graph):
    """In the published graph, mixed_10 has a maximum where mixed_9 and the paper have an average."""
    names = ["mixed_8/join", "mixed_9/tower_2/pool", "mixed_9/join", "mixed_10/tower_2/pool"]
    values = rebuild(graph, names)(tf.constant(IMAGES, tf.float32))
    before_9, averages, before_10, maxima = (values[name].numpy() for name in names)
    for x, pooled, reduce in ((before_9, averages, np.mean), (before_10, maxima, np.max)):
        for row in range(3):
            for column in range(3):
                window = x[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
                np.testing.assert_allclose(pooled[:, row, column], reduce(window, axis=(1, 2)), rtol=1e-5)


# Images.


def test_gray_images_and_alpha(network):
    gray = IMAGES[..., :1]
    expected = network(np.repeat(gray, 3, axis=3))[0]
    assert (network(gray)[0].numpy() == expected.numpy()).all()
    for alpha, images in ((255, IMAGES), (0, np.full_like(IMAGES, 255))):
        with_alpha = np.concatenate([IMAGES, np.full((3, 40, 28, 1), alpha, np.uint8)], axis=3)
        assert (network(with_alpha)[0].numpy() == network(images)[0].numpy()).all()


def test_whole_numbers_and_floats_give_the_same_features(network):
    for dtype in (np.float32, np.float64, np.int32):
        assert (network(IMAGES.astype(dtype))[0].numpy() == network(IMAGES)[0].numpy()).all()


def test_calls_inside_a_function_give_the_same_features(network):
    assert (tf.function(network)(tf.constant(IMAGES))[0].numpy() == network(IMAGES)[0].numpy()).all()


@pytest.mark.slow
def test_calls_on_replicas_give_the_same_features(network, two_replicas):
    images, expected = tf.constant(IMAGES), network(IMAGES)[0].numpy()
    extract = tf.function(lambda: two_replicas.run(network, (images,)))
    replicas = two_replicas.experimental_local_results(extract()[0])
    assert len(replicas) == 2 and all((features.numpy() == expected).all() for features in replicas)


@pytest.mark.parametrize("shape", [(4, 4, 3), (1, 4, 4), (1, 4, 4, 2), (1, 4, 4, 5), (1, 1, 4, 4, 3)], ids=str)
def test_images_of_other_shapes_are_refused(network, shape):
    check_refusal(lambda: network(np.zeros(shape, np.uint8)), DataError, "[B, H, W, C]", str(shape))


# Precision.


@pytest.mark.parametrize("is_enabled", [True, False])
def test_tensor_float_32_is_off_only_while_features_are_computed(network, is_enabled, monkeypatch):
    get = tf.config.experimental.tensor_float_32_execution_enabled
    before, seen = get(), []
    plain = network._network
    monkeypatch.setattr(network, "_network", lambda images: (seen.append(get()), plain(images))[1])
    tf.config.experimental.enable_tensor_float_32_execution(is_enabled)
    try:
        network(IMAGES)
        with pytest.raises(KeyError), without_tf32(), without_tf32():
            seen.append(get())
            raise KeyError
        assert seen == [False, False] and get() is is_enabled
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


# Files.


def archive_of(members):
    """A .tgz with files of the given names and contents."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, member in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(member)
            archive.addfile(info, io.BytesIO(member))
    return content.getvalue()


@pytest.mark.parametrize("name", [GRAPH_NAME, f"./{GRAPH_NAME}", f"/etc/{GRAPH_NAME}", f"../../{GRAPH_NAME}"])
def test_the_graph_is_read_from_its_archive(path, network, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").write_bytes(archive_of({"LICENSE": b"text", name: path.read_bytes()}))
    from_archive = InceptionNetwork(tmp_path / "weights")
    assert from_archive.sha256 == network.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (from_archive(IMAGES)[0].numpy() == network(IMAGES)[0].numpy()).all()
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]


def test_the_attributes_of_an_extractor(network):
    assert (network.name, network.frechet_name, network.feature_size) == ("inception", "fid", 128)


FILES = {
    "nothing": (b"", "ExpandDims"),
    "text": (b"<html>Not found</html>", "weights"),
    "binary": (bytes(range(256)) * 20, "weights"),
    "gzip of a text": (gzip.compress(b"text"), "weights"),
    "an empty archive": (archive_of({}), GRAPH_NAME),
    "an archive of other files": (archive_of({"a.pb": b"1"}), GRAPH_NAME),
    "a cut archive": (archive_of({GRAPH_NAME: RNG.bytes(5000)})[:3000], "weights"),
    "an archive with a text": (archive_of({GRAPH_NAME: b"<html>"}), "weights"),
}


@pytest.mark.parametrize("name", FILES)
def test_other_files_are_refused(name, tmp_path):
    content, mention = FILES[name]
    (tmp_path / "weights").write_bytes(content)
    check_refusal(lambda: InceptionNetwork(tmp_path / "weights"), DataError, str(tmp_path / "weights"), mention)


def test_missing_files_and_folders_are_refused(tmp_path):
    check_refusal(lambda: InceptionNetwork(tmp_path / "x.pb"), StorageError, str(tmp_path / "x.pb"))
    check_refusal(lambda: InceptionNetwork(tmp_path), StorageError, str(tmp_path))
    check_refusal(lambda: InceptionNetwork("gs://bucket/x.pb"), ConfigError, "gs://bucket/x.pb")


def test_a_bomb_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.setattr(inception_weights, "_MAX_BYTES", 2**20)
    (tmp_path / "weights").write_bytes(archive_of({GRAPH_NAME: path.read_bytes(), "zeros": bytes(2**20)}))
    check_refusal(lambda: InceptionNetwork(tmp_path / "weights"), DataError, GRAPH_NAME)


def test_weights_cut_at_any_place_are_refused(path, tmp_path):
    content = path.read_bytes()
    for size in (1, 100, len(content) // 2, len(content) - 1000):
        (tmp_path / "cut.pb").write_bytes(content[:size])
        check_refusal(lambda: InceptionNetwork(tmp_path / "cut.pb"), DataError, "cut.pb")


def set_tensor(name, values):
    def change(graph):
        node_of(graph, name).attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values))

    return change


def claim_shape(name, *sizes):
    """Makes a constant of one value claim a shape."""

    def change(graph):
        tensor = tf.make_tensor_proto(np.float32(1))
        for size in sizes:
            tensor.tensor_shape.dim.add(size=size)
        node_of(graph, name).attr["value"].tensor.CopyFrom(tensor)

    return change


def set_inputs(name, *inputs):
    def change(graph):
        node_of(graph, name).input[:] = inputs

    return change


def set_operation(name, operation):
    return lambda graph: setattr(node_of(graph, name), "op", operation)


def set_list(name, attribute, *values):
    def change(graph):
        node_of(graph, name).attr[attribute].list.i[:] = values

    return change


def set_text(name, attribute, value):
    return lambda graph: setattr(node_of(graph, name).attr[attribute], "s", value)


def remove(name):
    return lambda graph: graph.node.remove(node_of(graph, name))


GRAPHS = {
    "no feed": (remove("ExpandDims"), "ExpandDims"),
    "no output": (remove("pool_3"), "pool_3"),
    "no logits": (remove("softmax/logits/MatMul"), "softmax/logits/MatMul"),
    "no weights of logits": (remove("softmax/weights"), "softmax/weights"),
    "no kernel": (remove("mixed_3/conv/conv2d_params"), "mixed_3/conv/conv2d_params"),
    "a dead end": (set_inputs("conv_1"), "conv_1"),
    "a file that is read": (set_operation("Mul", "ReadFile"), "ReadFile"),
    "a program that is called": (set_operation("conv", "PyFunc"), "PyFunc"),
    "an operation of another network": (set_operation("conv", "Sigmoid"), "Sigmoid"),
    "an unknown operation": (set_operation("pool_1", "Überraschung\n"), "pool_1"),
    "a placeholder": (set_operation("Mul", "Placeholder"), "Placeholder"),
    "a cycle": (set_inputs("conv_1/control_dependency", "conv_2"), "cycle"),
    "a cycle of constants": (set_operation("conv/conv2d_params", "Identity"), "conv/conv2d_params"),
    "a self-referring constant": (
        lambda graph: (
            set_operation("Sub/y", "Identity")(graph),
            set_inputs("Sub/y", "Sub/y")(graph),
        ),
        "Sub",
    ),
    "a kernel of another rank": (set_tensor("conv/conv2d_params", np.ones((3, 3, 3), np.float32)), "conv/Conv2D"),
    "a kernel of other channels": (set_tensor("conv_1/conv2d_params", np.ones((3, 3, 5, 2), np.float32)), "not fit"),
    "a kernel of doubles": (set_tensor("conv/conv2d_params", np.ones((3, 3, 3, 2))), "conv/Conv2D"),
    "a kernel that is NaN": (
        set_tensor("conv/conv2d_params", np.full((3, 3, 3, 2), np.nan, np.float32)),
        "conv/Conv2D",
    ),
    "a kernel that overflows": (
        lambda graph: (
            set_tensor("conv/conv2d_params", np.full((3, 3, 3, 2), 3e38, np.float32))(graph),
            set_tensor("conv/batchnorm/moving_variance", np.zeros(2, np.float32))(graph),
        ),
        "conv/Conv2D",
    ),
    "a kernel of texts": (set_tensor("conv/conv2d_params", ["a"]), "conv/Conv2D"),
    "a huge kernel": (claim_shape("conv/conv2d_params", 2**20, 2**20, 3, 2), "67,108,864"),
    "an overflowing kernel": (claim_shape("conv/conv2d_params", 2**40, 2**40, 3, 2), "67,108,864"),
    "a negative kernel": (claim_shape("conv/conv2d_params", -1, -4, 3, 2), "conv/Conv2D"),
    "a normalization of other channels": (set_tensor("conv/batchnorm/gamma", np.ones(1, np.float32)), "conv/batchnorm"),
    "a negative variance": (set_tensor("conv/batchnorm/moving_variance", -np.ones(2, np.float32)), "conv/batchnorm"),
    "a variance that is NaN": (set_tensor("conv/batchnorm/moving_variance", np.float32([1, np.nan])), "conv/batchnorm"),
    "a normalization of something else": (set_inputs("conv/batchnorm", "Mul", *["conv/batchnorm/beta"] * 4), "conv/b"),
    "a huge image": (set_tensor("ResizeBilinear/size", np.int32([100_000, 100_000])), "ResizeBilinear"),
    "an image of no size": (set_tensor("ResizeBilinear/size", np.int32([0, 0])), "not fit"),
    "an image of one size": (set_tensor("ResizeBilinear/size", np.int32([9])), "ResizeBilinear"),
    "another axis": (set_tensor("mixed/join/concat_dim", np.int32(0)), "mixed/join"),
    "axes": (set_tensor("mixed/join/concat_dim", np.int32([3, 3])), "mixed/join"),
    "strides over images": (set_list("conv/Conv2D", "strides", 2, 1, 1, 1), "strides"),
    "no strides": (set_list("conv/Conv2D", "strides"), "strides"),
    "negative strides": (set_list("conv/Conv2D", "strides", 1, -1, -1, 1), "strides"),
    "a window of nothing": (set_list("pool", "ksize", 1, 0, 0, 1), "ksize"),
    "a window larger than the image": (set_list("pool_3", "ksize", 1, 99, 99, 1), "not fit"),
    "a smaller window": (set_list("pool_3", "ksize", 1, 2, 2, 1), "pool_3"),
    "dilations": (set_list("conv/Conv2D", "dilations", 1, 2, 2, 1), "dilations"),
    "channels first": (set_text("conv/Conv2D", "data_format", b"NCHW"), "data_format"),
    "another padding": (set_text("conv/Conv2D", "padding", b"EXPLICIT"), "EXPLICIT"),
    "weights of other logits": (set_tensor("softmax/weights", np.ones((5, 7), np.float32)), "[5, 7]"),
    "the second output": (set_inputs("conv_1/Conv2D", "conv:1", "conv_1/conv2d_params"), "conv:1"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_other_graphs_are_refused(graph, name, tmp_path):
    change, mention = GRAPHS[name]
    changed = copy_of(graph)
    change(changed)
    (tmp_path / "graph.pb").write_bytes(changed.SerializeToString())
    check_refusal(lambda: InceptionNetwork(tmp_path / "graph.pb"), DataError, "graph.pb", mention)


def test_newer_forms_of_the_same_graph_are_accepted(graph, network, tmp_path):
    """Programs that rewrite frozen graphs leave identities, other orders, ConcatV2, and unused nodes."""
    changed = copy_of(graph)
    join = node_of(changed, "mixed/join")
    join.op, join.input[:] = "ConcatV2", [*join.input[1:], join.input[0]]
    node_of(changed, "conv/Conv2D").input[1] = "conv/read"
    changed.node.add(name="conv/read", op="Identity", input=["conv/conv2d_params:0"])
    changed.node.add(name="unused", op="WriteFile", input=["Mul", "Mul"])
    set_list("conv/Conv2D", "dilations", 1, 1, 1, 1)(changed)
    set_text("conv/Conv2D", "data_format", b"NHWC")(changed)
    changed.node.sort(key=lambda node: node.name)
    (tmp_path / "graph.pb").write_bytes(changed.SerializeToString())
    assert (InceptionNetwork(tmp_path / "graph.pb")(IMAGES)[0].numpy() == network(IMAGES)[0].numpy()).all()
