"""Conditional networks in every form that users write: one input or two, any order, one-hot or integer labels."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import values_of
from keras import layers
from refusals import check_refusal

from trainer import ACGAN, ConditionalGAN, InfoGAN
from trainer.errors import DataError, NetworkError
from trainer.models.network_inputs import call_with_labels, find_label_input
from trainer.serving import saved_model

Z, K, SHAPE = 4, 3, (6, 6, 1)
IMAGES = np.tile(np.arange(36, dtype=np.uint8).reshape(1, *SHAPE) * 7, (12, 1, 1, 1))
LABELS = np.arange(12) % K
FORMS = ["one-hot", "integer", "flat integer", "int32"]


def label_input(form, name=None):
    """A label's input, and its one-hot or embedded features [B, F]."""
    if form == "one-hot":
        label = keras.Input((K,), name=name)
        return label, label
    shape = () if form == "flat integer" else (1,)
    label = keras.Input(shape, dtype="int32" if form == "int32" else "float32", name=name)
    return label, layers.Flatten()(layers.Embedding(K, 3)(label))


def in_order(data, label, order):
    return {
        "data first": [data, label],
        "label first": [label, data],
        "dict": {"z": data, "label": label},
        "tuple": (label, data),
    }[order]


def generator(form, order, size=Z):
    latents = keras.Input((size,), name="z" if order == "dict" else None)
    label, features = label_input(form, "label" if order == "dict" else None)
    pixels = layers.Dense(36, "tanh")(layers.Concatenate()([latents, features]))
    return keras.Model(in_order(latents, label, order), layers.Reshape(SHAPE)(pixels))


def discriminator(form, order):
    images = keras.Input(SHAPE, name="z" if order == "dict" else None)
    label, features = label_input(form, "label" if order == "dict" else None)
    merged = layers.Concatenate()([layers.Flatten()(images), features])
    return keras.Model(in_order(images, label, order), layers.Dense(1)(merged))


def concatenated_generator(size=Z + K):
    return keras.Sequential([keras.Input((size,)), layers.Dense(36, "tanh"), layers.Reshape(SHAPE)])


def plain_discriminator(channels=1):
    return keras.Sequential([keras.Input((6, 6, channels)), layers.Flatten(), layers.Dense(4), layers.Dense(1)])


class Listed(keras.Model):
    """A subclassed network that takes a list, in an order that only shapes show."""

    def __init__(self, make):
        super().__init__()
        self.inner = make

    def call(self, inputs, training=False):
        return self.inner(inputs)


def listed(network):
    made = Listed(network)
    made([np.zeros((1, *tensor.shape[1:]), "float32") for tensor in network.inputs])
    return made


def compiled(kind, make_generator, make_discriminator, **settings):
    gan = kind(Z, K, networks={"generator": make_generator, "discriminator": make_discriminator})
    gan.compile(optimizer="adam", jit_compile=False, **settings)
    return gan


@pytest.mark.parametrize(
    ("form", "order"),
    [*itertools.product(FORMS, ["data first", "label first"]), ("int32", "dict"), ("one-hot", "tuple")],
)
def test_networks_with_two_inputs_return_the_same_as_a_direct_call(form, order):
    latents, labels = tf.random.stateless_normal([5, Z], [1, 2]), tf.constant([0, 2, 1, 1, 0])
    images = tf.random.stateless_normal([5, *SHAPE], [1, 3])
    label_input = tf.one_hot(labels, K) if form == "one-hot" else labels if form == "flat integer" else labels[:, None]
    networks = {"generator": (generator(form, order), latents), "discriminator": (discriminator(form, order), images)}
    for role, (network, data) in networks.items():
        expected = network(in_order(data, label_input, order)).numpy()
        for called in (network, *([listed(network)] if order in ("data first", "label first") else [])):
            np.testing.assert_array_equal(call_with_labels(role, called, data, labels, K, False).numpy(), expected)


@pytest.mark.parametrize(
    ("kind", "make_discriminator"),
    [
        (ConditionalGAN, lambda: discriminator("int32", "label first")),
        (ConditionalGAN, lambda: discriminator("one-hot", "data first")),
        (ConditionalGAN, lambda: plain_discriminator(1 + K)),
        (ACGAN, plain_discriminator),
    ],
)
def test_a_model_of_such_networks_trains_samples_and_is_exported(kind, make_discriminator, tmp_path):
    gan = compiled(kind, lambda: generator("integer", "label first"), make_discriminator, ema_half_life_images=8.0)
    before = values_of(gan)
    gan.fit(IMAGES, LABELS, batch_size=4, steps=2, verbose=0)
    moved = {name for name, value in values_of(gan).items() if (value != before[name]).any()}
    assert {name for name in before if name.startswith(("generator/", "ema_generator/"))} <= moved
    images, labels = gan.sample(4, labels=[2, 0, 1, 1])
    assert (images[2] != images[3]).any() and labels.tolist() == [2, 0, 1, 1]
    latents = np.ones((2, Z), "float32")
    of_labels = [gan.predict((latents, y), verbose=0) for y in (np.array([0, 2]), np.eye(K, dtype="f")[[0, 2]])]
    np.testing.assert_array_equal(*of_labels)
    np.testing.assert_allclose(gan((latents, np.array([[0], [2]]))), of_labels[0], rtol=1e-5)
    assert (of_labels[0][0] != of_labels[0][1]).any()
    saved_model.save(gan, tmp_path / "model", 1)
    served = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    exported = served(latents=tf.constant(latents), labels=tf.constant([0, 2]))["images"].numpy()
    assert np.abs(exported - np.round((of_labels[0] + 1) * 127.5)).max() <= 1


def test_a_conditional_model_keeps_an_ema_of_its_own():
    once = generator("one-hot", "data first")
    act = functools.partial(
        compiled, ConditionalGAN, lambda: once, lambda: plain_discriminator(1 + K), ema_half_life_images=8.0
    )
    check_refusal(act, NetworkError, "ema_generator", "get_")


def test_codes_of_an_infogan_may_have_an_input_of_their_own():
    gan = compiled(InfoGAN, lambda: generator("int32", "label first", size=Z + 2), plain_discriminator)
    gan.fit(IMAGES, batch_size=4, steps=1, verbose=0)
    assert gan.sample_grid(2, 3).ndim == 3


@pytest.mark.parametrize(
    ("names", "position"),
    [
        ((None, "label"), 1),
        (("label", None), 0),
        (("class_id", "other"), 0),
        (("z", "y"), 1),
        (("y", "z"), 0),
        (("noise", None), 1),
        ((None, "latents"), 0),
        (("one_hot", "z1"), 0),
    ],
)
def test_inputs_of_the_same_shape_are_told_apart_by_their_names(names, position):
    inputs = [keras.Input((K,), name=name) for name in names]
    network = keras.Model(inputs, layers.Concatenate()(inputs))
    assert find_label_input("generator", network, (K,), K) == position


def test_inputs_of_the_same_shape_are_told_apart_by_their_dtypes():
    inputs = [keras.Input((1,), dtype="int32"), keras.Input((1,))]
    network = keras.Model(
        inputs, layers.Concatenate()([layers.Flatten()(layers.Embedding(K, 2)(inputs[0])), inputs[1]])
    )
    assert find_label_input("generator", network, (1,), K) == 0


def of_inputs(*shapes, names=None):
    inputs = [keras.Input(shape, name=names and names[i]) for i, shape in enumerate(shapes)]
    return keras.Model(inputs, layers.Dense(1)(layers.Concatenate()([layers.Flatten()(value) for value in inputs])))


class TwoArguments(keras.Model):
    def call(self, latents, labels, training=False):
        return latents


class OptionalLabels(keras.Model):
    def call(self, latents, labels=None, training=False):
        return latents


class NamedLabels(keras.Model):
    def call(self, latents, *, class_ids=None, training=False):
        return latents


class AnyNumber(keras.Model):
    def call(self, *inputs):
        return keras.ops.concatenate([inputs[0], keras.ops.cast(inputs[1], "float32")], axis=-1)


class LabelsByName(keras.Model):
    def call(self, latents, **inputs):
        return latents


class OneInput(keras.Model):
    """A subclassed network of one input, whose layers fix the size of its last axis."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, inputs, **options):
        return self.dense(layers.Flatten()(inputs))


def called(network, *inputs):
    network(*inputs)
    return network


def of_text():
    inputs = [keras.Input((Z,)), keras.Input((1,), dtype="string")]
    return keras.Model(inputs, layers.Dense(1)(inputs[0]))


@pytest.mark.parametrize(
    ("role", "network", "shape", "error", "mentions"),
    [
        ("generator", of_inputs((K,), (K,)), (K,), NetworkError, ("(3,)", "label")),
        ("generator", of_inputs((K,), (K,), names=("label_1", "label_2")), (K,), NetworkError, ("(3,)", "label")),
        ("generator", of_inputs((Z,), (K,)), (Z + 1,), NetworkError, ("(4,)", "(5,)", "latent_dim")),
        ("generator", of_inputs((Z,), (K + 1,)), (Z,), NetworkError, ("(4,)", "3 values", "(7,)")),
        ("generator", of_inputs((Z,), (2,)), (Z,), NetworkError, ("(2,)", "(7,)")),
        ("generator", of_inputs((Z,), (K,), (1,)), (Z,), NetworkError, ("(4,)", "(3,)", "(1,)")),
        ("generator", concatenated_generator(Z), (Z,), NetworkError, ("(4,)", "(7,)", "latent_dim")),
        ("generator", TwoArguments(), (Z,), NetworkError, ("TwoArguments", "labels", "list")),
        ("generator", OptionalLabels(), (Z,), NetworkError, ("OptionalLabels", "labels", "list")),
        ("generator", NamedLabels(), (Z,), NetworkError, ("NamedLabels", "class_ids", "list")),
        (
            *("generator", called(AnyNumber(), np.zeros((1, Z), "f"), np.zeros((1, 1), "i")), (Z,)),
            *(NetworkError, ("AnyNumber", "list")),
        ),
        (
            *("generator", called(LabelsByName(), np.zeros((1, Z), "f")), (Z,)),
            *(NetworkError, ("(4,)", "(7,)", "latent_dim")),
        ),
        ("generator", called(OneInput(), np.zeros((1, Z), "f")), (Z,), NetworkError, ("(4,)", "(7,)", "latent_dim")),
        (
            *("discriminator", called(OneInput(), np.zeros((1, *SHAPE), "f")), SHAPE),
            *(NetworkError, ("(6, 6, 1)", "(6, 6, 4)")),
        ),
        ("generator", of_text(), (Z,), NetworkError, ("(4,)", "integer")),
        ("discriminator", plain_discriminator(), SHAPE, NetworkError, ("(6, 6, 1)", "(6, 6, 4)")),
        ("discriminator", of_inputs(SHAPE, (6, 6, K)), SHAPE, NetworkError, ("(6, 6, 3)", "(6, 6, 4)")),
        ("discriminator", of_inputs((5, 5, 1), (K,)), SHAPE, NetworkError, ("(5, 5, 1)", "(6, 6, 1)")),
        ("discriminator", plain_discriminator(2 + K), SHAPE, DataError, ("(6, 6, 1)", "(6, 6, 4)", "(6, 6, 5)")),
    ],
)
def test_other_forms_are_refused(role, network, shape, error, mentions):
    check_refusal(lambda: find_label_input(role, network, shape, K), error, *mentions)


def test_a_subclassed_network_of_one_input_may_be_called_with_other_sizes():
    assert find_label_input("generator", called(OneInput(), np.zeros((1, Z + K), "f")), (Z,), K) is None
    network = called(OneInput(), np.zeros((1, 8, 8, 1 + K), "f"))
    assert find_label_input("discriminator", network, SHAPE, K) is None


def small_embedding(branch):
    latents, label = keras.Input((Z,)), keras.Input((1,), dtype="int32")
    embedding = layers.Embedding(K - 1, 3)
    features = keras.Sequential([keras.Input((1,)), embedding])(label) if branch else embedding(label)
    return keras.Model([latents, label], layers.Concatenate()([latents, layers.Flatten()(features)]))


class OwnsEmbedding(layers.Layer):
    def __init__(self):
        super().__init__()
        self.embedding = layers.Embedding(K - 1, 3, name="embedding")

    def call(self, label):
        return self.embedding(label)


def small_embedding_in_a_layer():
    latents, label = keras.Input((Z,)), keras.Input((1,), dtype="int32")
    return keras.Model([latents, label], layers.Concatenate()([latents, layers.Flatten()(OwnsEmbedding()(label))]))


@pytest.mark.parametrize(
    "network",
    [
        *(small_embedding(False), small_embedding(True), listed(small_embedding(False))),
        small_embedding_in_a_layer(),
    ],
)
def test_embeddings_without_a_row_for_each_class_are_refused(network):
    check_refusal(lambda: find_label_input("generator", network, (Z,), K), NetworkError, "embedding", "2 rows", "3")
    assert find_label_input("generator", network, (Z,), K - 1) == 1


def test_labels_beside_images_are_refused_where_the_model_passes_none():
    gan = compiled(ACGAN, concatenated_generator, plain_discriminator)
    act = functools.partial(type(gan).check_image_shape, gan, SHAPE)
    act()
    gan.discriminator = discriminator("one-hot", "data first")
    check_refusal(act, NetworkError, "discriminator", "(6, 6, 1)", "(3,)")


def test_labels_that_bfloat16_rounds_are_refused():
    def network(dtype):
        label = keras.Input((1,), dtype=dtype, name="label")
        return keras.Model([keras.Input((Z,)), label], layers.Embedding(1000, 2)(label))

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        rounds, keeps = network("float32"), network("int32")
    finally:
        keras.config.set_dtype_policy("float32")
    check_refusal(lambda: find_label_input("generator", rounds, (Z,), 1000), NetworkError, "bfloat16", "int32")
    assert find_label_input("generator", keeps, (Z,), 1000) == find_label_input("generator", rounds, (Z,), 256) == 1


@pytest.fixture(scope="module")
def conditional_gan():
    return compiled(ConditionalGAN, lambda: generator("integer", "label first"), lambda: plain_discriminator(1 + K))


PREDICTIONS = {
    "call": lambda gan, inputs: gan.call(inputs),
    "predict": lambda gan, inputs: gan.predict(inputs, verbose=0),
    "predict_on_batch": lambda gan, inputs: gan.predict_on_batch(inputs),
}
LATENTS = np.ones((2, Z), "float32")
WRONG_INPUTS = [
    ("large", (LATENTS, np.array([0, K])), "labels[1]", str(K)),
    ("negative", (LATENTS, [-1, 0]), "labels[0]", "-1"),
    ("fraction", (LATENTS, tf.constant([0.0, 1.5])), "labels[1]", "1.5"),
    ("nan", (LATENTS, [np.nan, 1]), "labels[0]", "nan"),
    ("soft", (LATENTS, np.full((2, K), 1 / K)), "labels[0]", "one-hot"),
    ("width", (LATENTS, np.eye(K + 1)[[0, 1]]), f"(2, {K + 1})", f"num_classes={K}"),
    ("few", (LATENTS, [1]), "1", "2"),
    ("scalar", (LATENTS, 1), "labels", "()"),
    ("names", [LATENTS, ["cat", "dog"]], "labels", "<U3"),
    ("no labels", LATENTS, "ConditionalGAN", "(latents, labels)"),
    ("only latents", (LATENTS,), "ConditionalGAN", "(latents, labels)"),
    ("three", (LATENTS, [0, 1], [0, 1]), "ConditionalGAN", "(latents, labels)"),
    ("names of inputs", {"latents": LATENTS, "labels": [0, 1]}, "ConditionalGAN", "(latents, labels)"),
    ("one number", (1.0, [0, 1]), "latents", "()"),
]


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize(("inputs", "mentions"), [pytest.param(x, facts, id=name) for name, x, *facts in WRONG_INPUTS])
def test_wrong_labels_of_predictions_are_refused(name, inputs, mentions, conditional_gan):
    check_refusal(lambda: PREDICTIONS[name](conditional_gan, inputs), DataError, *mentions)


def test_predictions_of_batches_and_gradients_of_latents(conditional_gan):
    labels = np.array([0, 2])
    expected = conditional_gan.predict((LATENTS, labels), verbose=0)
    batches = tf.data.Dataset.from_tensors(((LATENTS, labels),))
    np.testing.assert_allclose(conditional_gan.predict(batches, verbose=0), expected, rtol=1e-5)
    latents = tf.constant(LATENTS)
    with tf.GradientTape() as tape:
        tape.watch(latents)
        images = conditional_gan((latents, tf.one_hot(labels, K)))
    assert tf.reduce_any(tape.gradient(images, latents) != 0)
