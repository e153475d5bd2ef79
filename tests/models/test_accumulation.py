"""Gradients of micro-batches: the results of the whole batch, or a refusal."""

import keras
import numpy as np
import pytest
from conftest import tiny_gan, tiny_model, values_of
from refusals import check_refusal

from trainer.config import TrainConfig, check_micro_batches
from trainer.errors import ConfigError, NetworkError
from trainer.models import GAN, ConditionalGAN
from trainer.networks.layers import Dropout, NoiseInjection


class RandomLayers(GAN):
    """A model with random numbers per sample in both networks."""

    def get_generator(self):
        return keras.Sequential(
            [
                *(keras.Input((4,)), keras.layers.Dense(36), keras.layers.Reshape((6, 6, 1)), NoiseInjection()),
                *(Dropout(0.3), keras.layers.Activation("tanh")),
            ]
        )

    def get_discriminator(self):
        return keras.Sequential(
            [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(8), Dropout(0.5), keras.layers.Dense(1)]
        )


def trained(accumulate_steps, strategy=None):
    gan = RandomLayers(4)
    gan.compile(
        keras.optimizers.Adam(1e-2, epsilon=1e-3),  # a smaller one amplifies the rounding of gradients near 0
        "non_saturating",
        penalties=["r1", "gradient_penalty"],
        augment="diffaugment",
        augment_probability=None,
        ema_half_life_images=100.0,
        accumulate_steps=accumulate_steps,
        strategy=strategy,
        jit_compile=False,
    )
    images = np.random.RandomState(0).randint(0, 256, (40, 6, 6, 1)).astype(np.uint8)
    history = gan.fit(images, batch_size=12, steps=6, verbose=0, horizontal_flips=True).history
    logs = {name: values for name, values in history.items() if "/" in name}
    return {name: np.asarray(variable) for name, variable in gan.state.items()}, logs


@pytest.fixture(scope="module")
def whole():
    return trained(1)


def check_equal(results, expected):
    for part, whole_part in zip(results, expected, strict=True):
        assert set(part) == set(whole_part)
        for name, values in part.items():
            np.testing.assert_allclose(values, whole_part[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_micro_batches_have_the_results_of_the_whole_batch(whole):
    check_equal(trained(4), whole)


def test_micro_batches_of_two_replicas_have_the_results_of_the_whole_batch(two_replicas, whole):
    check_equal(trained(2, two_replicas), whole)


def test_embeddings_of_labels_have_the_results_of_the_whole_batch():
    """Their gradients are sparse."""

    def network(data_shape, output_shape):
        data, label = keras.Input(data_shape), keras.Input((), dtype="int32", name="label")
        embedded = keras.layers.Embedding(3, 2)(label)
        outputs = keras.layers.Dense(int(np.prod(output_shape)))(
            keras.layers.Concatenate()([keras.layers.Flatten()(data), embedded])
        )
        return keras.Model([data, label], keras.layers.Reshape(output_shape)(outputs))

    def state_after(accumulate_steps):
        networks = {"generator": lambda: network((4,), (2, 2, 1)), "discriminator": lambda: network((2, 2, 1), (1,))}
        gan = ConditionalGAN(4, 3, networks=networks)
        gan.compile(keras.optimizers.Adam(1e-2), accumulate_steps=accumulate_steps, jit_compile=False)
        gan.fit(np.zeros((12, 2, 2, 1), np.uint8), np.arange(12) % 3, batch_size=6, steps=2, verbose=0)
        return values_of(gan)

    check_equal([state_after(2)], [state_after(1)])


@pytest.mark.parametrize("model", ["fastgan", "cyclegan"])
def test_networks_with_batch_statistics_are_refused(model):
    check_refusal(lambda: tiny_model(model, accumulate_steps=2), NetworkError, "accumulate_steps=2")


def test_a_layer_that_declares_that_it_couples_samples_is_refused():
    class Coupled(keras.layers.Flatten):
        couples_samples = True

    gan = GAN(
        2,
        networks={
            "generator": lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)]),
            "discriminator": lambda: keras.Sequential([keras.Input((4,)), Coupled(), keras.layers.Dense(1)]),
        },
    )
    check_refusal(lambda: gan.compile(accumulate_steps=2), NetworkError, "accumulate_steps=2", "Coupled")


class Owner(keras.layers.Layer):
    """A layer with another inside, which `keras.Model.layers` does not have."""

    def __init__(self):
        super().__init__()
        self.inner = [keras.layers.BatchNormalization(name="hidden")]

    def build(self, shape):
        self.inner[0].build(shape)

    def call(self, inputs):
        return self.inner[0](inputs)


@pytest.mark.parametrize(
    "make",
    [
        Owner,
        lambda: keras.layers.TimeDistributed(keras.layers.BatchNormalization(name="hidden")),
        lambda: keras.Sequential([keras.Input((2, 2)), Owner()]),
    ],
    ids=["own layer", "wrapper", "own layer in a network"],
)
def test_batch_statistics_inside_of_a_layer_are_refused(make):
    def discriminator():
        return keras.Sequential([keras.Input((2, 2)), make(), keras.layers.Flatten(), keras.layers.Dense(1)])

    def generator():
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(4), keras.layers.Reshape((2, 2))])

    gan = GAN(2, networks={"generator": generator, "discriminator": discriminator})
    check_refusal(lambda: gan.compile(accumulate_steps=2), NetworkError, "accumulate_steps=2", "hidden")


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
def test_the_number_of_micro_batches_is_checked(value):
    check_refusal(lambda: RandomLayers(4).compile(accumulate_steps=value), ConfigError, "accumulate_steps")


@pytest.mark.parametrize(("batch", "steps", "replicas"), [(10, 4, 1), (12, 4, 2), (2, 4, 1)])
def test_a_batch_that_does_not_divide_is_refused(batch, steps, replicas):
    check_refusal(
        lambda: check_micro_batches(batch, steps, replicas), ConfigError, f"accumulate_steps={steps}", f"{batch}"
    )


def test_a_config_and_fit_refuse_a_batch_that_does_not_divide():
    config = TrainConfig(global_batch_size=10, accumulate_steps=4, steps=1)
    check_refusal(lambda: config.resolve(100), ConfigError, "accumulate_steps=4", "10")
    gan = tiny_gan("mlp", accumulate_steps=4)
    images = np.zeros((40, 28, 28, 1), np.uint8)
    check_refusal(lambda: gan.fit(images, batch_size=10, steps=1, verbose=0), ConfigError, "accumulate_steps=4", "10")
