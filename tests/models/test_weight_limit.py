"""Networks with too many weights are refused before memory is taken for them."""

import keras
import numpy as np
import pytest
from conftest import TINY_ARCHITECTURES, tiny_config, tiny_gan
from keras import layers
from refusals import check_command_refusal, check_refusal

from trainer import GAN, TrainConfig, task
from trainer.errors import ConfigError, NetworkError
from trainer.models import from_config
from trainer.models.weight_limit import limited_weights, without_weights
from trainer.networks.mlp import DenseWithPlanes


def build(image_shape=(28, 28, 1), **settings):
    return from_config(TrainConfig(metrics="none", **settings), image_shape, 10)


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_every_architecture_is_counted(architecture):
    model = "cyclegan" if "translator" in architecture else "gan"
    config = tiny_config(architecture, model=model, max_weights=10)
    check_refusal(lambda: from_config(config, (28, 28, 1), 10), NetworkError, "max_weights=10")


@pytest.mark.parametrize(
    ("settings", "mentions"),
    [
        ({"architecture": "dcgan", "image_shape": (1024, 1024, 3)}, ("838,860,800",)),
        ({"architecture": "mlp", "image_shape": (1024, 1024, 3)}, ("3145728",)),
        ({"architecture": "dcgan", "latent_dim": 10**9}, ("1000000000",)),
        ({"architecture": "mlp", "latent_dim": 10**12}, ("1000000000000",)),
        ({"architecture": "mlp", "architecture_options": {"generator_units": [10**7]}}, ("10000000",)),
        ({"architecture": "dcgan", "architecture_options": {"generator_filters": [10**8, 10**8]}}, ("max_weights",)),
        ({"architecture": "dcgan", "architecture_options": {"discriminator_filters": [8, 10**8]}}, ("max_weights",)),
    ],
    ids=lambda value: str(value)[:60],
)
def test_sizes_from_flags_are_refused_at_once(settings, mentions):
    check_refusal(lambda: build(**settings), NetworkError, "max_weights", "500,000,000", *mentions)


def never(shape, dtype=None):
    raise AssertionError(f"memory was taken for {shape}")


class InCall(keras.Model):
    """Makes its weights when it is first called, where Keras adds lines to errors."""

    def __init__(self, units=10**6, initializer=never):
        super().__init__()
        self.dense = layers.Dense(units, kernel_initializer=initializer)

    def call(self, inputs):
        return self.dense(inputs)


class InFunctional:
    """Makes a functional model."""

    def __call__(self):
        return keras.Sequential([keras.Input((4,)), layers.Dense(10**6, kernel_initializer=never)])


def called():
    made = InCall()
    made(np.zeros((1, 4), "f"))
    return made


@pytest.mark.parametrize("make", [called, InFunctional()], ids=["call", "functional"])
def test_the_value_of_a_refused_weight_is_not_computed(make):
    gan = GAN(4, networks={"generator": make, "discriminator": make})
    check_refusal(lambda: gan.compile(max_weights=1000), NetworkError, "4,000,000", "(4, 1000000)", "max_weights=1,000")
    assert InCall(2, "zeros")(np.zeros((1, 4), "f")).shape == (1, 2)  # Keras builds nothing of the refused network


def test_the_limit_itself_is_allowed_and_averages_count():
    num_weights = sum(network.count_params() for network in tiny_gan(ema_half_life_images=64.0).networks.values())
    assert tiny_gan(ema_half_life_images=64.0, max_weights=num_weights + 10).networks  # seeds of layers count, too
    with pytest.raises(NetworkError):
        tiny_gan(ema_half_life_images=64.0, max_weights=num_weights - 1)


def test_numbers_that_a_layer_draws_and_does_not_keep_are_limited():
    def act():
        with limited_weights(1000):  # the layer keeps 535 weights
            DenseWithPlanes(5, 12, never)([np.zeros((1, 6), "f"), np.zeros((1, 100), "f")])

    check_refusal(act, NetworkError, "6,030", "max_weights=1,000")


def test_a_network_without_weights_draws_nothing():
    with without_weights():
        DenseWithPlanes(5, 12, never).build([(None, 6), (None, 100)])


def test_other_errors_pass_through():
    with pytest.raises(ZeroDivisionError), limited_weights(10):
        keras.Variable(np.zeros(3, "f"))
        _ = 1 // 0


@pytest.mark.parametrize("value", [0, -1, 2.5, None])
def test_the_limit_is_a_positive_whole_number(value):
    check_refusal(lambda: GAN(4).compile(max_weights=value), ConfigError, "max_weights", str(value))


def test_a_number_beyond_64_bits_is_refused_with_the_limit_that_it_exceeds():
    check_refusal(lambda: GAN(4).compile(max_weights=2**63), ConfigError, "max_weights", str(2**63), "less than 2**63")


def test_a_refused_run_leaves_nothing(tmp_path, capsys):
    job_dir = tmp_path / "run"
    argv = ["task", f"--job_dir={job_dir}", "--recipe=vanilla", "--max_weights=1000", "--strategy=one_device"]
    check_command_refusal(task.main, argv, capsys, 1, "max_weights=1,000")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
