"""One TensorFlow process for all tests: deterministic, with two CPU devices, and tiny networks."""

import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import tensorflow as tf

from trainer.config.train_config import TrainConfig
from trainer.data.loading import Arrays, load
from trainer.models import GAN, CycleGAN, augment, from_config
from trainer.training.distributed.strategy import mirrored

pytest_plugins = ["buckets", "bucket_runs", "distributions", "faults"]

# A shell starts what runs in the background without the one, nohup without the other; some tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
tf.config.experimental.enable_op_determinism()

TINY_MLP = {"generator_units": [16], "discriminator_units": [16], "dropout": 0.3}
TINY_DCGAN = {"generator_filters": [8, 4], "discriminator_filters": [4, 8], "dropout": 0.3}
TINY_FILTERS = {"generator_filters": [8, 4], "discriminator_filters": [4, 8]}
TINY_TRANSLATOR = {"generator_filters": 4, "discriminator_filters": 4, "discriminator_layers": 2}
TINY_ARCHITECTURES = {
    "mlp": TINY_MLP,
    "dcgan": TINY_DCGAN,
    "resnet": TINY_FILTERS,
    "upsampling": {"generator_filters": [8, 8, 4, 4], "discriminator_filters": [4, 8]},
    "r3gan": {"generator_filters": [8, 8], "discriminator_filters": [8, 8], "blocks_per_stage": 1, "group_size": 8},
    "resnet_translator": TINY_TRANSLATOR | {"residual_blocks": 1},
    "unet_translator": TINY_TRANSLATOR | {"depth": 2},
}
TINY_WIRINGS: dict[str, dict[str, object]] = {
    "cyclegan": {
        "architecture": "unet_translator",
        "architecture_options": TINY_TRANSLATOR | {"depth": 2, "discriminator_layers": 1},
        "model_options": {"pool_size": 6},
    },
}
"""What differs from a tiny perceptron's settings; a model that is not named here trains one."""


@pytest.fixture(scope="session")
def digits() -> Arrays:
    """The embedded digits."""
    return load("digits")


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """Two virtual CPU devices."""
    return mirrored(["CPU:0", "CPU:1"])


@pytest.fixture
def eager_ada(monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapted probability that rises by .1 in 64 images, whatever the discriminator does: as state it shows."""
    monkeypatch.setattr(augment, "_TARGET_SIGN", -2.0)
    monkeypatch.setattr(augment, "_IMAGES_FROM_NEVER_TO_ALWAYS", 640)


def tiny_config(architecture: str = "mlp", **changes: object) -> TrainConfig:
    """A config that trains in milliseconds a step."""
    settings = {
        "architecture": architecture,
        "architecture_options": TINY_ARCHITECTURES[architecture],
        "latent_dim": 8,
        "global_batch_size": 16,
        "steps": 4,
        "metrics": "none",
        "jit_compile": "off",
    }
    return TrainConfig(**(settings | changes))


def tiny_gan(architecture: str = "mlp", strategy: tf.distribute.Strategy | None = None, **changes: object) -> GAN:
    """The compiled GAN of a tiny config on 28×28×1 images of ten classes."""
    return from_config(tiny_config(architecture, **changes), (28, 28, 1), 10, strategy)


def tiny_wiring(model: str, strategy: tf.distribute.Strategy | None = None, **changes: object) -> GAN:
    """The compiled GAN of a model in its tiny form, on 12×12×1 images of ten classes."""
    config = tiny_config(**({"model": model} | TINY_WIRINGS.get(model, {}) | changes))
    return from_config(config, (12, 12, 1), 10, strategy)


def tiny_data(gan: GAN, digits: Arrays, num_images: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """What `tiny_wiring` trains on: the middle of some digits; and their labels, or their negatives as other domain."""
    images = digits.images[:num_images, 8:20, 8:20]
    return images, 255 - images if isinstance(gan, CycleGAN) else digits.labels[:num_images]


def values_of(gan: GAN) -> dict[str, np.ndarray]:
    """A copy of all state."""
    return {name: np.array(variable.numpy()) for name, variable in gan.state.items()}
