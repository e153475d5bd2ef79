"""Recipes, and the base classes, have the networks, losses and optimizers of the systems that they implement.

The tests in `tests/networks` check the layers of single architectures. These tests check complete recipes.
"""

import itertools

import keras
import numpy as np
import pytest

from trainer.config import recipes
from trainer.data.tfrecord_writer import write_prepared
from trainer.environment import Environment
from trainer.models import GAN, ConditionalGAN, CycleGAN, from_config, losses
from trainer.models.step_plan import step_plan
from trainer.training import complete_config
from trainer.training.schedules import Ramp

KINDS = {
    "Dense": lambda layer: ("dense", layer.units),
    "BatchNormalization": lambda layer: ("batch_norm", layer.momentum),
    "LeakyReLU": lambda layer: ("leaky_relu", pytest.approx(layer.negative_slope)),
    "ReLU": lambda layer: ("relu",),
    "Dropout": lambda layer: ("dropout", layer.rate),
}
SHAPELESS = {"InputLayer", "Flatten", "Reshape", "Concatenate", "Add", "ReflectionPadding2D"}


def described(layer):
    """Returns the kind and the main settings of a layer."""
    name = type(layer).__name__
    if name in KINDS:
        return KINDS[name](layer)
    if isinstance(layer, (keras.layers.Conv2D, keras.layers.Conv2DTranspose)):
        return (name, layer.filters, layer.kernel_size[0], layer.strides[0])
    return (name,)


def stack(network):
    """Describes the layers of a network in order, without inputs and changes of shape."""
    return [described(layer) for layer in network.layers if type(layer).__name__ not in SHAPELESS]


def last_activation(network):
    return [layer for layer in network.layers if hasattr(layer, "activation")][-1].activation.__name__


def repeated(first, *others):
    """Lists each layer of `first`, followed by `others`."""
    return list(itertools.chain.from_iterable((layer, *others) for layer in first))


def recipe(name, shape=(28, 28, 1), num_classes=10, **changes):
    """Returns a recipe's resolved config and its GAN."""
    config = complete_config.resolve(recipes.get(name).override(**changes), Environment())
    return config, from_config(config, shape, num_classes)


def optimizers_of(gan):
    """Returns (class, learning rate, betas) of each phase's optimizer."""
    return {
        phase: (
            type(optimizer).__mro__[1].__name__
            if type(optimizer).__name__ == "FusedAdam"
            else type(optimizer).__name__,
            pytest.approx(float(optimizer.learning_rate)),
            *(pytest.approx(getattr(optimizer, beta)) for beta in ("beta_1", "beta_2") if hasattr(optimizer, beta)),
        )
        for phase, optimizer in gan.optimizers.items()
    }


def both(*settings):
    return dict.fromkeys(("generator", "discriminator"), settings)


def assert_plain(config, average=0.0):
    """Asserts that a config has no penalty, augmentation, schedule or repeats.

    Args:
        config: Resolved config of the recipe.
        average: Half-life of the generator's average in images, which changes nothing that learns.
    """
    assert (config.penalties, config.augment, config.ema_half_life_images) == ((), None, average)
    assert (config.learning_rate_decay, config.beta_2_end, config.discriminator_repeats) == ("none", None, 1)


def test_gan_takes_a_keras_loss_and_a_decaying_rmsprop():
    """A subclass trains in tests/models/test_gan.py. Its discriminator takes real and fake images in one batch."""

    class Snippet(GAN):
        def __init__(self, input_dim):
            super().__init__(input_dim)

        def get_generator(self):
            return keras.Sequential([keras.Input((100,)), keras.layers.Dense(784), keras.layers.Reshape((28, 28, 1))])

        def get_discriminator(self):
            dense = keras.layers.Dense(1, activation="sigmoid")
            return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), dense])

    gan = Snippet(100)
    decay = keras.optimizers.schedules.InverseTimeDecay(1e-3, decay_steps=1, decay_rate=3e-8)
    gan.compile(
        optimizer=keras.optimizers.RMSprop(decay),
        loss=keras.losses.binary_crossentropy,
        discriminator_updates="concatenated",
    )
    assert isinstance(gan, keras.Model)
    assert optimizers_of(gan) == both("RMSprop", 1e-3)
    for optimizer in gan.optimizers.values():
        optimizer.iterations.assign(10**6)
        assert float(optimizer.learning_rate) == pytest.approx(1e-3 / 1.03)
    assert gan.latent_distribution == "normal"
    assert [[phase.name for phase in group.phases] for group in step_plan(gan, 128).groups] == [
        ["discriminator"],
        ["generator"],
    ]


def test_cgan_gives_labels_to_both_networks():
    config, gan = recipe("cgan")
    assert config.model == "conditional" and isinstance(gan, ConditionalGAN)
    assert gan.generator.input_shape == (None, config.latent_dim + 10)
    taken = [tensor.shape[1:] for tensor in gan.discriminator.inputs]
    assert taken in ([(28, 28, 11)], [(28, 28, 1), (10,)])
    assert (gan.sample(20)[1] == np.tile(np.arange(10), 2)).all()


@pytest.mark.parametrize("name", ["gan_rmsprop", "cgan"])
def test_gan_rmsprop_and_cgan_have_their_networks_and_optimizers(name):
    for image_range, activation in (("-1..1", "tanh"), ("0..1", "sigmoid")):
        config, gan = recipe(name, image_range=image_range)
        assert last_activation(gan.generator) == activation
    assert optimizers_of(gan) == both("RMSprop", 1e-4)
    assert config.global_batch_size == 128
    assert config.loss == "non_saturating"
    assert_plain(config, average={"gan_rmsprop": 0.0, "cgan": 50_000}[name])
    for network, dropout in ((gan.generator, set()), (gan.discriminator, {("dropout", 0.4)})):
        layers = stack(network)
        assert {layer for layer in map(str, layers) if "dropout" in layer} == {str(layer) for layer in dropout}
        kernels = [layer.kernel_initializer for layer in network.layers if hasattr(layer, "kernel_initializer")]
        assert kernels and all(isinstance(kernel, keras.initializers.HeNormal) for kernel in kernels)
    assert {layer for layer in stack(gan.generator) if layer[0] == "batch_norm"} == {("batch_norm", 0.9)}
    assert ("relu",) in stack(gan.generator)
    assert {layer[0] for layer in stack(gan.discriminator)} & {"relu", "leaky_relu"} == {"leaky_relu"}
    assert ("leaky_relu", 0.1) in stack(gan.discriminator)
    assert gan.sample_grid(10, 10).shape == (10 * 30 + 2, 10 * 30 + 2, 1)  # with two pixels between images


def test_two_phase_updates_on_real_and_fake_apart_or_together():
    config, gan = recipe("two_phase")
    names = [[phase.name for phase in group.phases] for group in step_plan(gan, 100).groups]
    assert names == [["discriminator_real"], ["discriminator_fake"], ["generator"]]
    _, joint = recipe("two_phase", discriminator_updates="together", loss="least_squares")
    names = [[phase.name for phase in group.phases] for group in step_plan(joint, 100).groups]
    assert names == [["discriminator"], ["generator"]]
    assert isinstance(gan.objective.loss, losses.NonSaturating)
    assert isinstance(joint.objective.loss, losses.LeastSquares)
    assert config.update_order == "alternating"
    assert_plain(config)
    # tests/conformance/test_every_model.py checks that the generator's phase leaves the discriminator as it is.


UP = [("dense", 7 * 7 * 256), ("Conv2DTranspose", 128, 5, 1), ("Conv2DTranspose", 64, 5, 2)]
DOWN = [("Conv2D", 64, 3, 2), ("Conv2D", 128, 3, 2), ("Conv2D", 256, 3, 1)]


@pytest.mark.parametrize("name", ["dcgan_dropout", "dcgan_least_squares"])
def test_dcgan_dropout_and_least_squares_have_their_networks(name):
    _, gan = recipe(name)
    assert stack(gan.generator) == [
        *repeated(UP, ("batch_norm", 0.8), ("leaky_relu", 0.2)),
        ("Conv2DTranspose", 1, 5, 2),
    ]
    assert last_activation(gan.generator) == "tanh"
    assert stack(gan.discriminator) == [
        *(("Conv2D", 32, 3, 2), ("leaky_relu", 0.2), ("dropout", 0.25)),
        *repeated(DOWN, ("batch_norm", 0.8), ("leaky_relu", 0.2), ("dropout", 0.25)),
        ("dense", 1),
    ]


def test_dcgan_dropout_trains_with_cross_entropy_under_adam():
    config, gan = recipe("dcgan_dropout")
    assert optimizers_of(gan) == both("Adam", 2e-4, 0.5, 0.999)
    assert (config.loss, config.global_batch_size, config.latent_dim) == ("non_saturating", 32, 100)
    assert (config.image_range, config.latent_distribution) == ("-1..1", "normal")
    assert_plain(config)


@pytest.mark.parametrize("shape", [(28, 28, 3), (64, 64, 3)], ids=str)
def test_dcgan_least_squares_makes_color_images(shape):
    config, gan = recipe("dcgan_least_squares", shape)
    assert gan.generator.output_shape == (None, *shape)
    assert gan.discriminator.input_shape == (None, *shape)
    assert isinstance(gan.objective.loss, losses.LeastSquares)
    assert float(gan.objective.loss.discriminator(3.0, 2.0)) == 0.5 * ((3 - 1) ** 2 + 2**2)
    assert optimizers_of(gan) == both("Adam", 2e-4, 0.5, 0.999)
    assert config.global_batch_size == 32


def test_lsgan_is_perceptrons_under_least_squares():
    config, gan = recipe("lsgan")
    dense = [("dense", units) for units in (256, 512, 1024)]
    assert stack(gan.generator) == [*repeated(dense, ("batch_norm", 0.8), ("leaky_relu", 0.2)), ("dense", 784)]
    assert stack(gan.discriminator) == [*repeated([("dense", 512), ("dense", 256)], ("leaky_relu", 0.2)), ("dense", 1)]
    assert (last_activation(gan.generator), last_activation(gan.discriminator)) == ("tanh", "linear")
    assert optimizers_of(gan) == both("Adam", 2e-4, 0.5, 0.999)
    assert (config.loss, config.global_batch_size) == ("least_squares", 32)
    assert_plain(config)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("resnet_translator", {"generator_filters": 64, "residual_blocks": 6, "discriminator_filters": 64}),
        ("unet_translator", {"generator_filters": 64, "discriminator_filters": 64}),
    ],
)
def test_cyclegan_at_128_pixels_is_that_of_the_paper(architecture, options):
    config, gan = recipe("cyclegan", (128, 128, 3), architecture=architecture, architecture_options=options)
    assert isinstance(gan, CycleGAN)
    assert (gan.cycle_weight, gan.pool_size) == (10.0, 50) and gan.identity_weight > 0
    assert isinstance(gan.objective.loss, losses.MeanSquaredError)
    assert optimizers_of(gan) == both("Adam", 2e-4, 0.5, 0.999)
    for optimizer in gan.optimizers.values():
        rate = optimizer._learning_rate
        assert isinstance(rate, Ramp) and (rate.shape, rate.end, rate.steps) == ("linear", 0.0, config.steps)
    for side in "ab":
        assert gan.networks[f"pool_{side}"].weights
        convolutions = [layer for layer in stack(gan.networks[f"discriminator_{side}"]) if layer[0] == "Conv2D"]
        patches = [(64, 2), (128, 2), (256, 2), (512, 1), (1, 1)]
        assert convolutions == [("Conv2D", filters, 4, stride) for filters, stride in patches]  # sees 70×70
    for generator in ("generator_ab", "generator_ba"):
        assert gan.networks[generator].output_shape == (None, 128, 128, 3)
        assert ("InstanceNormalization",) in stack(gan.networks[generator])
    assert config.image_range == "-1..1"


def test_dcgan_upsampling_makes_images_of_32_pixels():
    config, gan = recipe("dcgan_upsampling", (32, 32, 1))
    assert config.padding == 2
    hidden = [("dense", 4 * 4 * 256), ("UpsamplingConv2D", 128, 3, 1), ("UpsamplingConv2D", 64, 3, 1)]
    momentum = next(layer.momentum for layer in gan.generator.layers if hasattr(layer, "momentum"))
    assert stack(gan.generator) == [
        *repeated(hidden, ("batch_norm", momentum), ("relu",)),
        *(("Conv2DTranspose", 32, 4, 2), ("relu",)),
        ("Conv2DTranspose", 1, 4, 1),
    ]
    assert (config.image_range, last_activation(gan.generator)) == ("0..1", "sigmoid")
    convolutions = [("Conv2D", 32, 4, 2), ("Conv2D", 64, 4, 2)]
    assert stack(gan.discriminator) == [*repeated(convolutions, ("relu",), ("dropout", 0.3)), ("dense", 1)]
    assert optimizers_of(gan) == both("Adam", 1e-4, 0.9, 0.999)
    assert (config.loss, config.latent_distribution, config.latent_dim) == ("non_saturating", "uniform", 100)
    (group,) = step_plan(gan, config.global_batch_size).groups
    assert [phase.name for phase in group.phases] == ["discriminator", "generator"]
    steps_per_epoch = 5000 // config.global_batch_size
    assert (config.sample_every_steps, config.checkpoint_every_steps) == (steps_per_epoch, 20 * steps_per_epoch)
    assert_plain(config)


def test_mlp_zeros_is_perceptrons_on_the_zeros():
    config, gan = recipe("mlp_zeros")
    assert config.classes == (0,)
    assert (config.image_range, gan.image_range) == ("0..255", (0.0, 255.0))
    assert stack(gan.generator) == [*repeated([("dense", 100), ("dense", 150)], ("relu",)), ("dense", 784)]
    assert last_activation(gan.generator) == "relu"
    assert stack(gan.discriminator) == [*repeated([("dense", 150), ("dense", 100)], ("relu",)), ("dense", 1)]
    assert optimizers_of(gan) == both("Adam", 1e-3, 0.9, 0.999)
    assert {optimizer.epsilon for optimizer in gan.optimizers.values()} == {keras.optimizers.Adam().epsilon}
    assert (config.loss, config.update_order, config.global_batch_size) == ("non_saturating", "alternating", 32)
    assert config.steps == 10 * (5923 // 32)  # ten epochs of the zeros of MNIST, the remainder dropped
    assert_plain(config)


def test_vanilla_is_the_original_gan():
    config, gan = recipe("vanilla")
    up, down = ([("dense", units) for units in widths] for widths in ((256, 512, 1024), (1024, 512, 256)))
    assert gan.generator.input_shape == (None, 100)
    assert stack(gan.generator) == [*repeated(up, ("leaky_relu", 0.2)), ("dense", 784)]
    assert last_activation(gan.generator) == "tanh"
    assert stack(gan.discriminator) == [*repeated(down, ("leaky_relu", 0.2), ("dropout", 0.3)), ("dense", 1)]
    assert optimizers_of(gan) == both("Adam", 2e-4, 0.9, 0.999)
    assert (config.global_batch_size, config.epochs, config.loss) == (100, 200, "non_saturating")
    assert config.steps == 200 * 50
    assert_plain(config)


def test_dcgan_paper_follows_the_rules_of_the_paper():
    config, gan = recipe("dcgan_paper", (64, 64, 1))
    assert 28 + 2 * config.padding == 64
    generator, discriminator = stack(gan.generator), stack(gan.discriminator)
    kinds = [layer[0] for layer in generator + discriminator]
    assert set(kinds) == {"Conv2D", "Conv2DTranspose", "WholeMapConv2D", "batch_norm", "relu", "leaky_relu"}
    assert (kinds.count("Conv2DTranspose"), kinds.count("Conv2D"), kinds.count("WholeMapConv2D")) == (5, 4, 1)
    filters = [layer[1] for layer in generator if layer[0] == "Conv2DTranspose"]
    assert filters == [512, 256, 128, 64, 1]
    assert [layer[1] for layer in discriminator if layer[0] == "Conv2D"] == filters[-2::-1]
    convolutions = [layer for layer in generator[1:] + discriminator[:-1] if "Conv2D" in layer[0]]
    assert {layer[2:] for layer in convolutions} == {(4, 2)}
    assert [layer[0] for layer in generator] == [*["Conv2DTranspose", "batch_norm", "relu"] * 4, "Conv2DTranspose"]
    assert [layer[0] for layer in discriminator] == [
        *("Conv2D", "leaky_relu"),
        *["Conv2D", "batch_norm", "leaky_relu"] * 3,
        "WholeMapConv2D",
    ]
    assert ("leaky_relu", 0.2) in discriminator and last_activation(gan.generator) == "tanh"
    for layer in (*gan.generator.layers, *gan.discriminator.layers):
        if hasattr(layer, "kernel_initializer"):
            assert layer.kernel_initializer.stddev == 0.02 and layer.kernel_initializer.mean == 0
            assert np.std(layer.kernel) == pytest.approx(0.02, rel=0.1)
    assert optimizers_of(gan) == both("Adam", 2e-4, 0.5, 0.999)
    assert_plain(config)


def test_vanilla_trains_on_a_prepared_folder_by_its_path(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (200, 28, 28, 1), dtype=np.uint8)
    about = {"name": "letters", "source": "noise", "license": "none", "attribution": "none"}
    write_prepared(tmp_path, images, np.arange(200) % 4, tuple("abcd"), **about)
    config, gan = recipe("vanilla", (28, 28, 1), 4, dataset=str(tmp_path), epochs=1)
    assert config.steps == 2
    assert gan.generator.output_shape == (None, 28, 28, 1)
    assert config.suite == "photos"
