"""Networks, losses, penalties, augmentations and data that a GAN refuses, and calls at the wrong time."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_gan, uncompiled_gan
from keras import Sequential, layers
from refusals import check_refusal

from trainer import ACGAN, GAN, ConditionalGAN, CycleGAN, InfoGAN
from trainer.errors import ConfigError, DataError, DivergenceError, NetworkError
from trainer.models import augment, losses, penalties
from trainer.training.rng import StepRng

IMAGES = np.zeros((20, 28, 28, 1), np.uint8)
LABELS = np.arange(20) % 10
SMALL_IMAGES = np.zeros((8, 2, 2, 1), np.uint8)


def row(name, act, error, *mentions):
    return pytest.param(act, error, mentions, id=name)


def network(input_shape, *stack):
    return Sequential([keras.Input(input_shape), *stack])


def tiny_networks():
    """Makers of a generator of 2×2 images from 3 latents, and of its discriminator."""
    return {
        "generator": lambda: network((3,), layers.Dense(4, "tanh"), layers.Reshape((2, 2, 1))),
        "discriminator": lambda: network((2, 2, 1), layers.Flatten(), layers.Dense(1)),
    }


def small_gan(kind=GAN, loss="non_saturating", **changed):
    """A compiled GAN of 2×2 images; `changed` are makers of other networks."""
    gan = kind(3, networks=tiny_networks() | changed)
    gan.compile(optimizer="adam", loss=loss, jit_compile=False)
    return gan


def fit_small(*arguments, **changed):
    small_gan(*arguments, **changed).fit(SMALL_IMAGES, batch_size=4, steps=1, verbose=0)


def fit_penalized(penalty, discriminator):
    gan = GAN(3, networks=tiny_networks() | {"discriminator": discriminator})
    gan.compile(optimizer="adam", penalties=penalty, jit_compile=False)
    gan.fit(SMALL_IMAGES, batch_size=4, steps=1, verbose=0)


class WithoutFake(losses.AdversarialLoss):
    """A loss without its part for fake images."""

    def on_real(self, real_logits):
        return -real_logits

    def generator(self, real_logits, fake_logits):
        return -fake_logits


class WithoutGenerator(losses.Hinge):
    generator = losses.AdversarialLoss.generator


class Nothing(losses.NonSaturating):
    """A loss whose function for real images returns nothing."""

    def on_real(self, real_logits):
        return None


def fit_with(**settings):
    gan = uncompiled_gan()
    gan.compile(optimizer="adam", **settings)
    fit(gan)


def fit(gan, x=IMAGES, y=None, **settings):
    gan.fit(x, y, **({"batch_size": 4, "steps": 1, "verbose": 0} | settings))


def conditional(**makers):
    """A compiled conditional GAN of ten classes, some of whose networks are made otherwise."""
    gan = uncompiled_gan("dcgan", model="conditional")
    for name, make in makers.items():
        setattr(gan, f"get_{name}", make)
    gan.compile(optimizer="adam")
    return gan


class Translator(CycleGAN):
    """A CycleGAN of 8×8 images."""

    def get_generator(self):
        return network((8, 8, 1), layers.Conv2D(1, 3, padding="same", activation="tanh"))

    def get_discriminator(self):
        return network((8, 8, 1), layers.Conv2D(1, 3, 2, padding="same"))


def translator(generator=None, discriminator=None):
    gan = Translator()
    gan.get_generator = generator or gan.get_generator
    gan.get_discriminator = discriminator or gan.get_discriminator
    gan.compile(optimizer="adam")
    return gan


def with_latents(gan, size):
    """A GAN of another latent size than its generator's."""
    gan.latent_dim = size
    return gan


def at_step(step):
    gan = tiny_gan()
    gan.step = step
    return gan


def compiled(**settings):
    uncompiled_gan().compile(**settings)


@pytest.mark.parametrize(
    ("act", "error", "mentions"),
    [
        row("loss", lambda: compiled(loss="hing"), ConfigError, "loss", "hing", "hinge"),
        row("keys", lambda: compiled(optimizer={"generator": "adam"}), ConfigError, "optimizer", "discriminator"),
        row("optimizer", lambda: compiled(optimizer="adm"), ConfigError, "optimizer", "adm", "adam"),
        row("no optimizer", lambda: compiled(optimizer=None), ConfigError, "optimizer", "None"),
        row("a type as precision", lambda: compiled(precision=tf.float32), ConfigError, "precision", "tf.float32"),
        *(
            row(
                "scheduled probability", lambda p=p: compiled(augment="ada", augment_probability=p), ConfigError, "prob"
            )
            for p in (lambda step: 2.0, lambda step: float("nan"))
        ),
        row("precision", lambda: compiled(precision="float16"), ConfigError, "precision", "float16", "bfloat16"),
        row("repeats", lambda: compiled(discriminator_repeats=0), ConfigError, "discriminator_repeats", "0"),
        row("penalty steps", lambda: compiled(penalty_every_steps=0), ConfigError, "penalty_every_steps", "0"),
        row("update order", lambda: compiled(update_order="both"), ConfigError, "update_order", "both", "alternating"),
        row("probability", lambda: compiled(augment="ada", augment_probability=1.5), ConfigError, "probability", "1.5"),
        row("latents", lambda: GAN(4, latent_distribution="flat"), ConfigError, "latent_distribution", "flat"),
        row("image range", lambda: GAN(4, image_range="0..9"), ConfigError, "image_range", "0..9"),
        row("one class", lambda: ConditionalGAN(4, 1), ConfigError, "num_classes", "1"),
        row("classes", lambda: ConditionalGAN(4, 10**12), ConfigError, "num_classes", "1000000000000"),
        row("categories", lambda: InfoGAN(4, 10**9), ConfigError, "num_categories", "1000000000"),
        row("updates", lambda: compiled(discriminator_updates="apart"), ConfigError, "discriminator_updates", "apart"),
        *(
            row(f"{name}={value!r}", lambda name=name, value=value: compiled(**{name: value}), ConfigError, name)
            for name, values in {
                "seed": ("a", 1.5, None, 2**70, True),
                "strategy": ("mirrored", 3, [], 0),
                "jit_compile": ("off", "on", None, 2),
                "update_order": (np.array(["alternating", "simultaneous"]), tf.constant(["alternating"] * 2)),
                "ema_half_life_images": (-1, "x", float("nan"), float("inf"), True, None),
                "penalty_weight": (-1, "x", float("nan"), None),
            }.items()
            for value in values
        ),
        *(
            row(
                f"weight by a schedule {number}",
                lambda weight=weight: compiled(penalty_weight=weight),
                ConfigError,
                "penalty_weight",
            )
            for number, weight in enumerate((lambda: 3, lambda step: -1.0, lambda step: None))
        ),
        row("weight", lambda: compiled(augment="ada", augment_probability="x"), ConfigError, "augment_probability"),
        row("no augmentation", lambda: compiled(augment_probability=None), ConfigError, "augment_probability=None"),
        row("no penalty", lambda: compiled(penalty_weight=5.0), ConfigError, "penalty_weight=5.0", "penalties"),
        row("no penalties", lambda: compiled(penalty_weight=lambda step: 5.0, penalties=()), ConfigError, "penalties"),
        row("no lazy penalty", lambda: compiled(penalty_every_steps=4), ConfigError, "penalty_every_steps=4"),
        row("augmentation", lambda: compiled(augment=lambda images: images), ConfigError, "augmentation", "ada"),
        row("penalties by name", lambda: compiled(penalties={"r1": 1000.0}), ConfigError, "penalties", "r1"),
        row("a number of penalties", lambda: compiled(penalties=3), ConfigError, "penalties", "3"),
        row("penalty", lambda: compiled(penalties=[3]), ConfigError, "3", "penalty"),
        row("cross-entropy of Keras", lambda: compiled(loss="bce"), ConfigError, "bce", "non_saturating"),
        row("other loss of Keras", lambda: compiled(loss="mae"), ConfigError, "mae", "hinge", "mean_absolute_error"),
        row("loss of Keras", lambda: compiled(loss="mse"), ConfigError, "mse", "keras.losses.mean_squared_error"),
        *(
            row(f"classes={value!r}", lambda value=value: ConditionalGAN(4, 3, classes=value), ConfigError, "classes")
            for value in (["a"], [1.5], [None], [3], [-1], [], [float("nan")], {0}, "01")
        ),
        row("a network", lambda: small_gan(generator=tiny_networks()["generator"]()), NetworkError, "generator"),
        row("no function", lambda: small_gan(generator="dcgan"), NetworkError, "generator", "str"),
    ],
)
def test_settings_that_compile_does_not_take_are_refused(act, error, mentions):
    check_refusal(act, error, *mentions)


@pytest.mark.parametrize(
    ("act", "error", "mentions"),
    [
        row("channels", lambda: fit(tiny_gan(), np.zeros((20, 28, 28, 3))), DataError, "(28, 28, 3)", "(28, 28, 1)"),
        row("no channels", lambda: fit(small_gan(), SMALL_IMAGES[..., 0]), DataError, "(2, 2)", "(2, 2, 1)", "newaxis"),
        row("one image", lambda: fit(small_gan(), SMALL_IMAGES[0]), DataError, "one image", "(2, 2, 1)"),
        row("a tuple of images", lambda: fit(small_gan(), (SMALL_IMAGES,)), DataError, str((1, *SMALL_IMAGES.shape))),
        row("nan", lambda: fit(tiny_gan(), np.full(IMAGES.shape, np.nan)), DataError, "x", "finite"),
        row("no numbers", lambda: fit(tiny_gan(), ["a", "b"]), DataError, "x", "<U1"),
        row("too few", lambda: fit(tiny_gan(), batch_size=64), ConfigError, "batch_size", "64", "20"),
        row("no step", lambda: fit(at_step(-1)), ConfigError, "step", "-1"),
        *(
            row(f"step {step!r}", lambda step=step: at_step(step), ConfigError, "step", str(step))
            for step in (2.5, "3", True, None, float("nan"), [1], 2**64)
        ),
        row("no batch", lambda: fit(tiny_gan(), batch_size=0), ConfigError, "batch_size", "0"),
        row("flips", lambda: fit(tiny_gan(), horizontal_flips="no"), ConfigError, "horizontal_flips", "no"),
        row("signal", lambda: fit(tiny_gan(), handle_sigterm="no"), ConfigError, "handle_sigterm", "no"),
        *(
            row(
                f"verbose {verbose}", lambda v=verbose: fit(tiny_gan(), verbose=v), ConfigError, "verbose", str(verbose)
            )
            for verbose in ("x", [1], -1, None)
        ),
        row("no penalty value", lambda: fit_with(penalties=lambda gradients: None), NetworkError, "None"),
        *(
            row(f"a loss without {name}", lambda loss=loss: fit_with(loss=loss), NetworkError, loss.__name__, name)
            for name, loss in (("on_fake", WithoutFake), ("generator", WithoutGenerator))
        ),
        row("no loss value", lambda: fit_with(loss=Nothing), NetworkError, "None"),
        row("balance of a word", lambda: fit(tiny_gan(), balance_classes="no"), ConfigError, "balance_classes", "no"),
        *(
            row(f"seed {seed!r}", lambda seed=seed: small_gan().sample(2, seed=seed), ConfigError, "seed")
            for seed in ("a", 1.5, [1], 2**64)
        ),
        *(
            row(
                f"{name} of {shape}",
                lambda act=act, shape=shape: act(small_gan(), np.zeros(shape, "f")),
                DataError,
                "3",
            )
            for name, act in (
                ("call", GAN.__call__),
                ("predict_on_batch", GAN.predict_on_batch),
                ("predict", lambda gan, latents: gan.predict(latents, verbose=0)),
            )
            for shape in ((2, 4), (2, 2, 2, 1), (2,))
        ),
        *(
            row(f"images from {latents!r}", lambda x=latents: small_gan().images_from(x), DataError, "latents")
            for latents in ([[0.0, 0]], np.zeros((0, 3)), [0.0, 0, 0], [[np.nan, 0, 0]], "abc", [["a", "b", "c"]])
        ),
        row(
            "labels of no class", lambda: small_gan().images_from(np.zeros((2, 3)), [0, 1]), DataError, "labels", "GAN"
        ),
        *(
            row(
                f"image of {labels!r}", lambda x=labels: conditional().images_from(np.zeros((2, 8)), x), DataError, "la"
            )
            for labels in ([0, 10], [0, -1], [0, 1, 2], [0.5, 1], ["a", "b"], np.full((2, 10), np.nan), [[0], [1, 2]])
        ),
        *(
            row(f"latents of {indices!r}", lambda x=indices: small_gan().latents_of(x), DataError, "indices")
            for indices in ([], "a", [1.5], [[1]], [-1], [10**8], 3)
        ),
        row("psi", lambda: small_gan().truncate_latents(np.zeros((1, 3)), np.nan), ConfigError, "psi", "nan"),
        row("truncated", lambda: small_gan().truncate_latents([[np.inf, 0, 0]], 0.5), DataError, "latents"),
        row("network", lambda: small_gan().ema_network("generatr"), ConfigError, "generatr", "generator"),
        row("two generators", lambda: translator().ema_generator, ConfigError, "generator", "generator_ab"),
        row("no latents", lambda: translator().images_from(np.zeros((1, 3))), ConfigError, "images_from", "translate"),
        *(
            row(
                f"{name} of a CycleGAN",
                lambda name=name: getattr(translator(), name)("int8"),
                ConfigError,
                "generator_ab",
            )
            for name in ("save", "export", "quantize")
        ),
        *(
            row(f"translate {name}", lambda x=images: translator().translate(x, "b"), DataError, "images", *mentions)
            for name, images, *mentions in (
                ("text", "x"),
                ("nothing", SMALL_IMAGES[:0]),
                ("other channels", np.zeros((2, 8, 8, 3), np.uint8), "8, 8, 1", "(2, 8, 8, 3)"),
                ("one image", np.zeros((8, 8, 1), np.uint8), "8, 8, 1"),
                ("ragged", [SMALL_IMAGES[0], IMAGES[0]]),
            )
        ),
        row("call", lambda: uncompiled_gan()(np.zeros((2, 64), "f")), ConfigError, "compile"),
        row("no steps", lambda: fit(tiny_gan(), steps_per_execution=0), ConfigError, "steps_per_execution", "0"),
        row("no labels", lambda: fit(conditional()), DataError, "labels", "y", "10"),
        row("label too large", lambda: fit(conditional(), y=[0] * 19 + [12]), DataError, "12", "num_classes", "10"),
        row("label too small", lambda: fit(conditional(), y=[0] * 19 + [-1]), DataError, "y", "-1"),
        row("labels that have no effect", lambda: fit(small_gan(), SMALL_IMAGES, y=[0] * 8), DataError, "y", "GAN"),
        row("few labels", lambda: fit(conditional(), y=[1, 2, 3]), DataError, "y", "3", "20"),
        row("names", lambda: fit(conditional(), y=["cat"] * 20), DataError, "y", "<U3", "one-hot"),
        row("booleans", lambda: fit(conditional(), y=[True] * 20), DataError, "y", "bool", "one-hot"),
        row("objects", lambda: fit(conditional(), y=[None] * 20), DataError, "y", "object", "one-hot"),
        row("balance", lambda: fit(tiny_gan(), balance_classes=True), DataError, "balance_classes", "labels"),
        row("no classes", lambda: tiny_gan().sample(2, labels=3), DataError, "labels", "3", "classes"),
        row("few asked", lambda: conditional().sample(10, labels=[1, 2, 3]), DataError, "labels", "3", "10"),
        row("one domain", lambda: fit(translator(), IMAGES[:, :8, :8]), DataError, "fit", "y"),
        row(
            "domains differ",
            lambda: fit(translator(), IMAGES[:, :8, :8], IMAGES[:, :4, :8]),
            DataError,
            *("x", "[8, 8, 1]", "y", "[4, 8, 1]"),
        ),
        row(
            "small domain",
            lambda: fit(translator(), IMAGES[:, :8, :8], IMAGES[:3, :8, :8]),
            ConfigError,
            *("batch_size", "4", "3"),
        ),
        row("nothing shown", lambda: translator().sample(2), DataError, "Translator", "fit"),
    ],
)
def test_data_that_do_not_fit_are_refused(act, error, mentions):
    check_refusal(act, error, *mentions)


@pytest.mark.parametrize("num_images", [20, 63])
def test_a_batch_that_is_refused_has_the_name_of_the_argument(num_images, two_replicas):
    gan = tiny_gan(strategy=two_replicas) if num_images > 20 else tiny_gan()
    with pytest.raises(ConfigError, match=r"^batch_size=63 "):
        fit(gan, np.zeros((num_images, 28, 28, 1), np.uint8), batch_size=63)


class Forgetful(GAN):
    def __init__(self):
        self.units = 3


class ForgetfulConditional(ConditionalGAN):
    def __init__(self, latent_dim, num_classes):
        pass


@pytest.mark.parametrize("gan", [Forgetful(), ForgetfulConditional(3, 4)], ids=["GAN", "ConditionalGAN"])
def test_a_class_that_does_not_call_the_constructor_of_its_base_class_is_refused(gan):
    assert gan.step == 0
    check_refusal(gan.compile, ConfigError, type(gan).__name__, "super().__init__")
    check_refusal(lambda: gan.fit(SMALL_IMAGES), ConfigError, type(gan).__name__, "compile")


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (lambda: GAN(3), lambda gan: gan.fit(SMALL_IMAGES)),
        (lambda: GAN(3), lambda gan: gan.sample(3)),
        (Translator, lambda gan: gan.fit(IMAGES, IMAGES)),
        (Translator, lambda gan: gan.sample(2)),
        (Translator, lambda gan: gan.translate(IMAGES, "b")),
    ],
)
def test_use_before_compile_is_refused(make, use):
    gan = make()
    check_refusal(lambda: use(gan), ConfigError, type(gan).__name__, "compile")


@pytest.mark.parametrize(
    "use", [lambda gan: gan(np.zeros((2, 3))), lambda gan: gan.predict(np.zeros((2, 3)), verbose=0)]
)
def test_calls_through_keras_before_compile_are_refused(use):
    with pytest.raises(ConfigError, match="compile"):  # Keras adds lines about the arguments
        use(GAN(3))


def three_inputs():
    inputs = [keras.Input((8,)), keras.Input((10,)), keras.Input((1,))]
    return keras.Model(inputs, layers.Dense(4)(layers.Concatenate()(inputs)))


def dense(input_shape, units):
    return network(input_shape, layers.Flatten(), layers.Dense(units))


def several(input_shape, *outputs):
    """A network with several outputs, each by its own dense layer."""
    inputs = keras.Input(input_shape)
    values = [layers.Reshape(shape)(layers.Dense(int(np.prod(shape)))(layers.Flatten()(inputs))) for shape in outputs]
    return keras.Model(inputs, values)


def named(network):
    """The network with its output in a dict."""
    return keras.Model(network.inputs, {"output": network.outputs[0]})


def without_gradient():
    return network((2, 2, 1), layers.Flatten(), layers.Lambda(tf.stop_gradient), layers.Dense(1))


class NormalizedGenerator(layers.Layer):
    """A layer with a spectral normalization that Keras does not list among the layers of a model."""

    def __init__(self):
        super().__init__()
        self.inner = layers.SpectralNormalization(layers.Dense(4))

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs, training=False):
        return self.inner(inputs, training=training)


class NotCalled(keras.Model):
    """A subclassed model whose layers are not built when it is."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)
        self.built = True

    def call(self, inputs):
        return self.dense(layers.Flatten()(inputs))


class Patches(ACGAN):
    """Its discriminator has no dense layer for the second head, or one on maps."""

    def __init__(self, *arguments, units=0):
        super().__init__(*arguments)
        self.units = units

    def get_generator(self):
        return network((self.latent_dim + self.num_classes,), layers.Dense(4))

    def get_discriminator(self):
        return network((8, 8, 1), layers.Conv2D(2, 3), *([layers.Dense(self.units)] if self.units else []))


def with_one_generator(gan):
    """A GAN whose `get_generator` always returns the same network."""
    if not isinstance(gan, CycleGAN):
        gan.set_network_factories(tiny_networks())
    generator = gan.get_generator()
    gan.get_generator = lambda: generator
    gan.compile(optimizer="adam", ema_half_life_images=100.0)


def identity():
    layer = layers.Identity()
    layer.built = True
    return layer


def not_built():
    return Sequential([layers.Dense(4)])


def subclassed():
    def train_step(self, data):
        return {}

    return type("Stepping", (GAN,), {"train_step": train_step})(3)


def no_method(value):
    type("Wrong", (GAN,), {"get_generator": value})(3).compile()


@pytest.mark.parametrize(
    ("act", "error", "mentions"),
    [
        row("no generator", lambda: GAN(4).compile(), NetworkError, "GAN", "get_generator"),
        row("not built", lambda: small_gan(generator=not_built), NetworkError, "get_generator", "keras.Input"),
        row("train_step", subclassed, ConfigError, "Stepping", "train_step", "forward"),
        row("size unknown", lambda: translator(identity), NetworkError, "CycleGAN", "generator"),
        row("no dense end", Patches(4, 10).compile, NetworkError, "discriminator", "Dense(1)"),
        *(
            row(
                f"a {kind} that is no method", lambda value=value: no_method(value), NetworkError, "get_generator", kind
            )
            for kind, value in {
                "Identity": identity(),
                "property": property(lambda self: identity()),
            }.items()
        ),
        row("shared by the EMA", lambda: with_one_generator(GAN(3)), NetworkError, "ema_generator", "get_"),
        row("shared by domains", lambda: with_one_generator(Translator()), NetworkError, "generator_ab", "get_"),
        row(
            "logits",
            lambda: fit_small(discriminator=lambda: dense((2, 2, 1), 10)),
            NetworkError,
            *("discriminator", "(4, 10)", "(B, 1)"),
        ),
        row(
            "images",
            lambda: fit_small(generator=lambda: network((3,), layers.Dense(16), layers.Reshape((4, 4, 1)))),
            (NetworkError, ValueError),
            *("generator", "(4, 4, 1)"),
        ),
        *(
            row(f"several {name}", lambda make=make: fit_small(generator=make), NetworkError, "generator", *mentions)
            for name, make, *mentions in (
                ("images", lambda: several((3,), (2, 2, 1), (2, 2, 1)), "list"),
                ("outputs", lambda: several((3,), (2, 2, 1), (3,)), "list"),
                ("names", lambda: named(tiny_networks()["generator"]()), "dict"),
            )
        ),
        *(
            row(f"logits in {name}", lambda make=make: fit_small(discriminator=make), NetworkError, "(B, 1)", name)
            for name, make in (
                ("list", lambda: several((2, 2, 1), (1,), (3,), (3,))),
                ("dict", lambda: named(tiny_networks()["discriminator"]())),
            )
        ),
        *(
            row(
                f"{penalty} without gradients",
                lambda penalty=penalty: fit_penalized(penalty, without_gradient),
                NetworkError,
                *("generator", "gradient"),
            )
            for penalty in ("r1", "r2", "gradient_penalty")
        ),
        row(
            "colors to rate",
            lambda: fit(translator(discriminator=lambda: dense((8, 8, 3), 1)), IMAGES[:, :8, :8], IMAGES[:, :8, :8]),
            DataError,
            *("discriminator", "(8, 8, 1)", "(8, 8, 3)"),
        ),
        row("no vectors", lambda: fit_small(discriminator=lambda: dense((4,), 1)), DataError, "(2, 2, 1)", "(4,)"),
        row(
            "weights that the generator assigns",
            lambda: fit_small(generator=lambda: network((3,), NormalizedGenerator(), layers.Reshape((2, 2, 1)))),
            NetworkError,
            *("generator", "kernel", "SpectralDense"),
        ),
        row("no weights", lambda: small_gan(discriminator=NotCalled), NetworkError, "discriminator", "keras.Input"),
        row("maps of features", lambda: Patches(4, 10, units=1).compile(), NetworkError, "(6, 6, 2)", "Dense(1)"),
        row("latents to sample", lambda: with_latents(tiny_gan(), 9).sample(2), NetworkError, "(8,)", "(9,)"),
        row("latents to fit", lambda: fit(with_latents(tiny_gan(), 9)), NetworkError, "(8,)", "(9,)"),
        row(
            "no room for labels",
            lambda: fit(conditional(generator=lambda: dense((8,), 784)), y=LABELS),
            NetworkError,
            *("generator", "(8,)", "(18,)", "latent_dim"),
        ),
        row(
            "three inputs",
            lambda: fit(conditional(generator=three_inputs), y=LABELS),
            NetworkError,
            *("generator", "(8,)", "(10,)", "(18,)"),
        ),
        row(
            "no planes of labels",
            lambda: fit(conditional(discriminator=lambda: dense((28, 28, 1), 1)), y=LABELS),
            NetworkError,
            *("discriminator", "(28, 28, 1)", "(28, 28, 11)"),
        ),
        row(
            "no vectors with labels",
            lambda: fit(conditional(discriminator=lambda: dense((794,), 1)), y=LABELS),
            DataError,
            *("discriminator", "(28, 28, 11)", "(794,)"),
        ),
        row(
            "smaller images",
            lambda: fit(conditional(discriminator=lambda: dense((14, 14, 11), 1)), y=LABELS),
            DataError,
            *("discriminator", "(28, 28, 1)", "(28, 28, 11)", "(14, 14, 11)"),
        ),
    ],
)
def test_networks_that_do_not_fit_are_refused(act, error, mentions):
    check_refusal(act, error, *mentions)


class WithArguments(losses.NonSaturating):
    def __init__(self, scale):
        self.scale = scale


def mean_of_batch(y_true, y_pred):
    return tf.reduce_mean(tf.square(y_true - y_pred))


class MeanOfBatch(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return mean_of_batch(y_true, y_pred)


@pytest.mark.parametrize(
    ("loss", "error", "mentions"),
    [
        ("hnge", ConfigError, ("loss", "hnge", "hinge")),
        (3, NetworkError, ("loss", "3")),
        (lambda y_true, y_pred: None, NetworkError, ("None",)),
        (WithArguments, NetworkError, ("loss", "WithArguments", "scale")),
        (dict, NetworkError, ("loss", "dict")),
        (int, NetworkError, ("loss", "int")),
        *(
            (loss, NetworkError, (name, "BinaryCrossentropy"))
            for name in ("categorical_crossentropy", "sparse_categorical_crossentropy", "kl_divergence")
            for loss in (name, getattr(keras.losses, name))
        ),
        *(
            (kind, NetworkError, (kind.__name__, "BinaryCrossentropy"))
            for kind in (keras.losses.CategoricalCrossentropy, keras.losses.CosineSimilarity)
        ),
        (keras.losses.CategoricalCrossentropy(from_logits=True), NetworkError, ("CategoricalCrossentropy",)),
        (lambda y_true, y_pred: y_true[:, 0], NetworkError, ("lambda",)),
    ],
)
def test_what_is_no_loss_is_refused(loss, error, mentions):
    check_refusal(lambda: losses.get(loss), error, *mentions)


@pytest.mark.parametrize("loss", [mean_of_batch, MeanOfBatch(), MeanOfBatch])
def test_a_keras_loss_that_takes_the_mean_is_refused(loss):
    check_refusal(lambda: losses.get(loss), NetworkError, "()", "one number")


@pytest.mark.parametrize(
    "loss",
    [
        *(keras.losses.BinaryCrossentropy(from_logits=True), keras.losses.binary_crossentropy, keras.losses.Poisson),
        *(keras.losses.hinge, keras.losses.CategoricalHinge, keras.losses.log_cosh, keras.losses.MeanAbsoluteError),
        lambda y_true, y_pred: tf.nn.relu(1.0 - (2.0 * y_true - 1.0) * y_pred)[:, 0],
        lambda y_true, y_pred: tf.nn.relu(-y_pred)[:, 0],  # constant for one sign
    ],
)
def test_a_keras_loss_of_one_number_is_taken(loss):
    assert isinstance(losses.get(loss), losses.KerasLoss)


def test_an_unknown_penalty_is_refused_with_the_nearest():
    act = functools.partial(penalties.get, "gradient_penalti")
    check_refusal(act, ConfigError, "penalty", "gradient_penalti", "gradient_penalty")


def augmented(name, channels=1, probability=0.5, **policy):
    return lambda: augment.get(name)(tf.zeros([1, 4, 4, channels]), StepRng(0, 0, 1), probability, **policy)


@pytest.mark.parametrize(
    ("act", "mentions"),
    [
        (lambda: augment.get("difaugment"), ("augmentation", "difaugment", "diffaugment")),
        (augmented("diffaugment", policy=["colour"]), ("colour", "color")),
        (augmented("ada", policy=["cutout"]), ("cutout", "blit, geom, color")),
        *((augmented(name, probability=1.5), ("probability", "1.5")) for name in augment.names()),
        *((augmented(name, channels=5), ("5", "4")) for name in augment.names()),
    ],
)
def test_augmentations_that_cannot_be_are_refused(act, mentions):
    check_refusal(act, ConfigError, *mentions)


def test_a_loss_that_is_not_finite_stops_training(digits):
    gan = tiny_gan(discriminator_learning_rate=1e30, generator_learning_rate=1e30)
    check_refusal(lambda: fit(gan, digits.images, batch_size=16, steps=40), DivergenceError, "steps")


class OwnGenerator(GAN):
    def get_generator(self):
        return tiny_networks()["generator"]()


@pytest.mark.parametrize(("kind", "name"), [(GAN, "encoder"), (OwnGenerator, "generator")])
def test_functions_of_networks_that_no_method_uses_are_refused(kind, name):
    gan = kind(3, networks=tiny_networks() | {name: tiny_networks()["generator"]})
    check_refusal(lambda: gan.compile(optimizer="adam"), NetworkError, name, kind.__name__)
