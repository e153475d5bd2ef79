"""`GAN.init_from` and `freeze_discriminator_layers`: which weights are taken, and which never change."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_ARCHITECTURES, tiny_data, tiny_gan, tiny_model, uncompiled_gan, values_of
from refusals import check_refusal

from trainer.callbacks import Checkpoint
from trainer.errors import CheckpointError, ConfigError
from trainer.models import MODELS, ConditionalGAN
from trainer.models.frozen_layers import frozen_layers, layers_from_image
from trainer.models.step_plan import step_plan
from trainer.networks.layers import ImagePool
from trainer.training import transfer
from trainer.training.checkpoint.manifest import state_sha256
from trainer.training.checkpoint.store import CheckpointStore
from trainer.training.plan import buffers_of, learned_weights
from trainer.training.step import TrainStep

EMA = {"ema_half_life_images": 40.0}
ADAPTED = {"augment": "diffaugment", "augment_probability": None}


def train(gan, digits, steps, folder):
    """Trains a tiny model with checkpoints in a folder, and returns its state."""
    gan.fit(*tiny_data(gan, digits), batch_size=16, steps=steps, callbacks=[Checkpoint(folder)], verbose=0)
    return values_of(gan)


def step_once(gan, digits, strategy=None):
    """Returns the state after one step without a trace, which would take longer."""
    strategy = strategy or tf.distribute.get_strategy()
    chunk = gan.make_chunk(*tiny_data(gan, digits))
    with strategy.scope():
        TrainStep(step_plan(gan, 16), chunk, strategy)(chunk.tensors(), tf.constant(0, tf.int64))
    return values_of(gan)


def write_checkpoint(gan, folder, step=2):
    """Gives all variables other values, and writes them as a checkpoint. Returns the state."""
    rng = np.random.default_rng(step)
    for name, variable in gan.state.items():
        if not name.startswith("divergence"):
            variable.assign(rng.uniform(0.1, 0.2, variable.shape).astype(variable.dtype))
    store = CheckpointStore(folder)
    store.save(gan.state, step)
    store.wait()
    return values_of(gan)


def part(state, name):
    return {key.partition("/")[2]: value for key, value in state.items() if key.partition("/")[0] == name}


def assert_equal(one, other):
    assert state_sha256(one) == state_sha256(other)


@pytest.mark.parametrize("model", MODELS.names())
def test_every_model_begins_with_the_networks_of_another_run_and_nothing_else(tmp_path, model):
    source = write_checkpoint(tiny_model(model, **EMA, **ADAPTED), tmp_path)
    gan = tiny_model(model, seed=5, **EMA, **ADAPTED)
    before = values_of(gan)
    gan.init_from(tmp_path)
    state = values_of(gan)
    for name, network in gan.networks.items():
        is_state = isinstance(network, ImagePool) or name == "augmenter"
        origin = f"ema_{name}" if name in gan.ema_networks else name
        assert_equal(part(state, name), part(before if is_state else source, origin))
    others = {name for name in state if name.partition("/")[0] not in gan.networks}
    assert_equal({name: state[name] for name in others}, {name: before[name] for name in others})
    assert gan.step == 0


@pytest.mark.parametrize(("source_ema", "own_ema"), [(0.0, 40.0), (40.0, 0.0), (0.0, 0.0), (40.0, 40.0)])
def test_the_first_samples_are_those_of_the_other_run(tmp_path, source_ema, own_ema):
    source = tiny_gan("dcgan", ema_half_life_images=source_ema)
    write_checkpoint(source, tmp_path)
    gan = tiny_gan("dcgan", seed=3, ema_half_life_images=own_ema)
    gan.init_from(f"{tmp_path}@2")
    np.testing.assert_array_equal(gan.sample(4, seed=1)[0], source.sample(4, seed=1)[0])
    assert_equal(part(values_of(gan), "discriminator"), part(values_of(source), "discriminator"))


@pytest.mark.parametrize("architecture", ["resnet", "r3gan", "mlp"])
def test_replicas_begin_with_equal_weights(two_replicas, tmp_path, architecture):
    options = TINY_ARCHITECTURES[architecture] | ({"spectral_norm": True} if architecture == "resnet" else {})
    settings = {"architecture_options": options, **EMA}
    write_checkpoint(tiny_gan(architecture, **settings), tmp_path)
    one, two = (tiny_gan(architecture, strategy, seed=2, **settings) for strategy in (None, two_replicas))
    for gan in (one, two):
        gan.init_from(tmp_path)
    assert_equal(values_of(one), values_of(two))
    for variable in two.networks["ema_generator"].weights:
        np.testing.assert_array_equal(
            *(value.numpy() for value in two_replicas.experimental_local_results(variable.value))
        )


def test_a_fit_with_a_checkpoint_resumes_from_it_instead(tmp_path):
    write_checkpoint(tiny_model("gan"), tmp_path / "source")
    own = write_checkpoint(tiny_model("gan"), tmp_path / "own", step=3)
    gan = tiny_model("gan")
    gan.init_from(tmp_path / "source")
    checkpoint = Checkpoint(tmp_path / "own")
    checkpoint.restore(gan)
    assert_equal(values_of(gan), own)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Checkpoints of tiny models by name."""
    folder = tmp_path_factory.mktemp("sources")
    for model in ("gan", "conditional", "acgan"):
        write_checkpoint(tiny_model(model), folder / model)
    write_checkpoint(tiny_model("gan"), folder / "damaged")
    data = next((folder / "damaged/step-00000002").glob("state.data*"))
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    (folder / "empty").mkdir()
    (folder / "file").write_text("no run")
    return folder


def wider(units):
    return {"architecture_options": TINY_ARCHITECTURES["mlp"] | {"discriminator_units": units}}


MISFITS = {
    "wider": (lambda: tiny_model("gan", **wider([20])), "gan", ("discriminator", "(144, 20)", "(144, 16)")),
    "deeper": (lambda: tiny_model("gan", **wider([16, 16])), "gan", ("(16, 16)", "(16, 1)")),
    "less deep": (lambda: tiny_model("gan", **wider([])), "gan", ("(144, 1)", "(144, 16)")),
    "latents": (lambda: tiny_model("gan", latent_dim=9), "gan", ("generator", "(9, 16)", "(8, 16)")),
    "resolution": (lambda: tiny_gan(), "gan", ("(16, 784)", "(16, 144)")),
    "labels added": (lambda: tiny_model("conditional"), "gan", ("(18, 16)", "(8, 16)")),
    "labels removed": (lambda: tiny_model("gan"), "conditional", ("(8, 16)", "(18, 16)")),
    "head added": (lambda: tiny_model("acgan"), "conditional", ("classifier",)),
    "head removed": (lambda: tiny_model("conditional"), "acgan", ("classifier",)),
    "two domains": (lambda: tiny_model("cyclegan"), "gan", ("generator_ab",)),
}


@pytest.mark.parametrize("name", MISFITS)
def test_networks_with_other_weights_are_refused_and_nothing_changes(sources, name):
    make, source, mentions = MISFITS[name]
    gan = make()
    before = values_of(gan)
    check_refusal(lambda: gan.init_from(sources / source), CheckpointError, f"{source}@2", *mentions)
    assert_equal(values_of(gan), before)


@pytest.mark.parametrize(
    ("source", "error", "mentions"),
    [
        ("{}/gan@7", CheckpointError, ("7", "2")),
        ("{}/damaged", CheckpointError, ("damaged", "SHA-256")),
        ("{}/damaged@latest", CheckpointError, ("damaged", "SHA-256")),
        ("{}/damaged@2", CheckpointError, ("step-00000002",)),
        ("{}/nowhere", CheckpointError, ("nowhere",)),
        ("{}/empty", CheckpointError, ("empty",)),
        ("{}/file", CheckpointError, ("file",)),
        ("{}/gan@newest", CheckpointError, ("newest", "@latest")),
        ("{}/gan@-2", CheckpointError, ("gan@-2", "@STEP")),
        ("s3://bucket/run", ConfigError, ("s3://bucket/run",)),
        ("https://host/run@2", ConfigError, ("https://host/run",)),
        ("gs://", ConfigError, ("gs://",)),
        ("~nobody-of-this-name/run", ConfigError, ("~nobody",)),
        ("@3", ConfigError, ("empty",)),
        ("", ConfigError, ("empty",)),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(sources, source, error, mentions):
    check_refusal(lambda: transfer.read(source.format(sources)), error, *mentions)


def test_weights_are_set_before_the_first_step_only(sources):
    gan = tiny_model("gan")
    gan.step = 1
    check_refusal(lambda: gan.init_from(sources / "gan"), ConfigError, "1")
    check_refusal(lambda: ConditionalGAN(8, 10).init_from(sources / "gan"), ConfigError, "compile")


# Frozen layers.


def frozen_names(gan, count):
    """The names in the state of all variables of the first layers of the discriminators."""
    names = set()
    for name, network in gan.networks.items():
        if name.startswith("discriminator"):
            frozen = {id(variable) for layer in layers_from_image(network)[:count] for variable in layer.weights}
            names |= {key for key, variable in gan.state.items() if id(variable) in frozen}
    return names


@pytest.mark.parametrize("model", MODELS.names())
def test_frozen_layers_of_every_model_never_change(digits, model):
    penalties = {"penalties": ("r1", "gradient_penalty"), "penalty_every_steps": 2}
    gan, usual = (tiny_model(model, freeze_discriminator_layers=count, **penalties) for count in (1, 0))
    before, after = values_of(gan), step_once(gan, digits)
    frozen = frozen_names(gan, 1)
    assert frozen and [name for name in frozen if (before[name] != after[name]).any()] == []
    for name, variable in gan.state.items():
        owner = name.partition("/")[0]
        is_weight = owner in gan.networks and any(variable is v for v in gan.networks[owner].trainable_variables)
        assert not is_weight or (before[name] != after[name]).any(), name
    optimizers = [len(each.optimizers["discriminator"].variables) for each in (gan, usual)]
    assert optimizers[0] == optimizers[1] - 2 * len(frozen)  # Adam has two moments for each weight


NORMALIZED = {
    "dcgan": {"discriminator_batch_norm": "all"},
    "resnet": {"spectral_norm": True},
    "r3gan": {},
}


@pytest.mark.parametrize(("architecture", "num_replicas"), [("dcgan", 1), ("dcgan", 2), ("resnet", 1), ("r3gan", 1)])
def test_moments_and_singular_vectors_of_frozen_layers_never_change(digits, two_replicas, architecture, num_replicas):
    options = TINY_ARCHITECTURES[architecture] | NORMALIZED[architecture]
    strategy = two_replicas if num_replicas == 2 else None
    gan = tiny_model(
        "gan", strategy, architecture=architecture, architecture_options=options, freeze_discriminator_layers=3
    )
    before, after, frozen = values_of(gan), step_once(gan, digits, strategy), frozen_names(gan, 3)
    assert len(frozen) > 3 or architecture == "r3gan"
    assert [name for name in frozen if (before[name] != after[name]).any()] == []
    assert [len(names) for names in frozen_layers(gan.networks).values()] == [3]
    assert any((before[name] != after[name]).any() for name in after if name.startswith("discriminator/"))


@pytest.mark.slow
def test_a_killed_run_with_frozen_layers_ends_with_the_bits_of_an_undisturbed_one(digits, tmp_path):
    settings = {"freeze_discriminator_layers": 1, **EMA}
    reference = train(tiny_model("gan", **settings), digits, 4, tmp_path / "undisturbed")
    train(tiny_model("gan", **settings), digits, 2, tmp_path / "killed")
    assert_equal(train(tiny_model("gan", **settings), digits, 4, tmp_path / "killed"), reference)


def labels_first():
    labels, images = keras.Input((10,), name="labels"), keras.Input((28, 28, 1), name="images")
    embedded = keras.layers.Dense(4, name="of_labels")(labels)
    body = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Conv2D(2, 3, 2, name="inner"), keras.layers.Flatten()]
    )
    features = keras.layers.Dense(4, name="of_image")(keras.ops.relu(body(images)))
    joined = keras.layers.Concatenate()([features, embedded])
    return keras.Model([labels, images], keras.layers.Dense(1, name="logits")(joined))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = keras.layers.Dense(4, name="first"), keras.layers.Dense(1, name="second")

    def call(self, images, training=False):
        return self.second(self.first(tf.reshape(images, [-1, 784])))


def subclassed():
    network = Subclassed()
    network(tf.zeros([1, 28, 28, 1]))
    return network


def with_constants():
    return keras.Sequential([keras.Input((4,)), keras.layers.Normalization(), keras.layers.Dense(1, name="last")])


def frozen_by_the_user():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="frozen", trainable=False)])


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (labels_first, ["inner", "of_image", "logits"]),
        (subclassed, ["first", "second"]),
        (with_constants, ["last"]),
        (frozen_by_the_user, ["frozen"]),
    ],
)
def test_layers_are_counted_from_the_image(network, names):
    assert [layer.name for layer in layers_from_image(network())] == names


@pytest.mark.parametrize("count", [2, 3, 10**6])
def test_at_least_one_layer_stays_trainable(count):
    """The tiny perceptron has two layers with weights."""
    check_refusal(
        lambda: tiny_model("gan", freeze_discriminator_layers=count),
        ConfigError,
        f"freeze_discriminator_layers={count}",
        "2 layers",
    )


@pytest.mark.parametrize("count", [-1, 1.5, "1", True])
def test_a_number_of_layers_is_a_whole_number(count):
    gan = uncompiled_gan()
    check_refusal(lambda: gan.compile(freeze_discriminator_layers=count), ConfigError, "freeze_discriminator_layers")
    gan.compile(freeze_discriminator_layers=1)


def test_weights_that_a_user_has_frozen_are_no_buffers():
    """A mean over three replicas would round some of them."""
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    moments = buffers_of(network)
    assert len(moments) == 2
    network.trainable = False
    assert buffers_of(network) == moments and len(learned_weights(network)) == 4
