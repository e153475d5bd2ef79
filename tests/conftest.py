"""Shared fixtures: deterministic TensorFlow with two virtual CPU devices, and tiny models that train in seconds."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers already use all cores. TensorFlow reads these when it starts; the tests' processes inherit them.
    for _name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.config.train_config import TrainConfig
from trainer.data.loading import Arrays, load
from trainer.models import GAN, ImageTranslator, augment, from_config, xla
from trainer.models.factory import create_gan
from trainer.serving import saved_model
from trainer.training.distributed.strategy import create_mirrored

pytest_plugins = ["browsers", "buckets", "bucket_runs", "distributions", "hostile", "local_vertex"]

# Shells start background processes with SIGINT ignored, nohup with SIGHUP ignored; some tests send these signals.
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
    "fastgan": {"generator_filters": [8, 4], "discriminator_filters": [4, 8]},
    "stylegan2": {"max_filters": 8, "mapping_units": 8, "group_size": 2},
    "resnet_translator": TINY_TRANSLATOR | {"residual_blocks": 1},
    "unet_translator": TINY_TRANSLATOR | {"depth": 2},
}
"""Options of every architecture in its tiny form."""
TINY_MODELS: dict[str, dict[str, object]] = {
    "cyclegan": {
        "architecture": "unet_translator",
        "architecture_options": TINY_TRANSLATOR | {"depth": 2, "discriminator_layers": 1},
        "model_options": {"pool_size": 6},
    },
    "pix2pix": {
        "architecture": "unet_translator",
        "architecture_options": TINY_TRANSLATOR | {"depth": 2, "discriminator_layers": 1, "dropout": 0.3},
        "model_options": {"jitter": 2},
    },
    "fastgan": {"architecture": "fastgan", "architecture_options": TINY_ARCHITECTURES["fastgan"]},
    **{
        name: {"architecture": "stylegan2", "architecture_options": TINY_ARCHITECTURES["stylegan2"]}
        for name in ("stylegan2", "stylegan2_conditional")
    },
}
"""Settings of models that cannot train a tiny perceptron; all other models do."""


@pytest.fixture(scope="session")
def digits() -> Arrays:
    """The embedded digits."""
    return load("digits")


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """A mirrored strategy on two virtual CPU devices."""
    return create_mirrored(["CPU:0", "CPU:1"])


@pytest.fixture(scope="module")
def exported_gan() -> GAN:
    """The model of `exported_model`."""
    return tiny_model("conditional")


@pytest.fixture(scope="module")
def exported_model(exported_gan: GAN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an exported model."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    saved_model.save(exported_gan, folder, 4)
    return folder


@pytest.fixture(autouse=True)
def _no_xla_in_fast_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `GAN.compile` use XLA in fast tests only if they ask for it, because its compilation takes seconds."""
    if request.node.get_closest_marker("slow"):
        return
    resolve = xla.resolve_jit_compile
    monkeypatch.setattr(
        xla,
        "resolve_jit_compile",
        lambda jit_compile, *facts: resolve(False if jit_compile == "auto" else jit_compile, *facts),
    )


@pytest.fixture(autouse=True)
def _no_handler_of_a_command() -> None:
    """Removes the log handler that commands install, so that tests do not depend on their order."""
    logger = logging.getLogger("trainer")
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def trainer_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    """`caplog` with the messages of the package, independent of the handler that a command may have installed."""
    logger = logging.getLogger("trainer")
    monkeypatch.setattr(logger, "propagate", False)
    previous_level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.setLevel(previous_level)


@pytest.fixture
def eager_ada(monkeypatch: pytest.MonkeyPatch) -> None:
    """An adaptive augmentation probability that rises by 0.1 per 64 images, so that a few steps change the state."""
    monkeypatch.setattr(augment, "_TARGET_SIGN", -2.0)
    monkeypatch.setattr(augment, "_ADA_IMAGES", 640)


def tiny_config(architecture: str = "mlp", **changes: object) -> TrainConfig:
    """Returns a config whose steps take milliseconds."""
    settings = {
        "architecture": architecture,
        "architecture_options": TINY_ARCHITECTURES[architecture],
        "latent_dim": 8,
        "global_batch_size": 16,
        "steps": 4,
        "metrics": "none",
        "jit_compile": "off",
        "precision": "float32",
    }
    return TrainConfig(**(settings | changes))


def uncompiled_gan(architecture: str = "mlp", **changes: object) -> GAN:
    """Returns the GAN of `tiny_gan` before `compile`."""
    return create_gan(tiny_config(architecture, **changes), (28, 28, 1), 10)


class ActiveDropout(GAN):
    """A model whose random layers are active during inference."""

    def get_generator(self) -> keras.Model:
        return keras.Sequential(
            [keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(9), keras.layers.Reshape((3, 3, 1))]
        )

    def get_discriminator(self) -> keras.Model:
        return keras.Sequential([keras.Input((3, 3, 1)), keras.layers.Flatten(), keras.layers.Dense(1)])

    def generate(self, latents, labels, network, training):
        return tf.tanh(network(latents, training=True))


def tiny_gan(architecture: str = "mlp", strategy: tf.distribute.Strategy | None = None, **changes: object) -> GAN:
    """Returns the compiled model of a tiny config for 28×28×1 images of ten classes."""
    return from_config(tiny_config(architecture, **changes), (28, 28, 1), 10, strategy)


def tiny_model(model: str, strategy: tf.distribute.Strategy | None = None, **changes: object) -> GAN:
    """Returns a registered model, compiled, in its tiny form for 12×12×1 images of ten classes."""
    config = tiny_config(**({"model": model} | TINY_MODELS.get(model, {}) | changes))
    return from_config(config, (12, 12, 1), 10, strategy, input_channels=int(model == "pix2pix"))


def tiny_data(gan: GAN, digits: Arrays, num_images: int = 64) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns data for `tiny_model`: crops of digits, with labels or their negatives if the model takes them."""
    images = digits.images[:num_images, 8:20, 8:20]
    if isinstance(gan, ImageTranslator):
        return images, 255 - images
    return images, digits.labels[:num_images] if gan.takes_targets else None


def values_of(gan: GAN) -> dict[str, np.ndarray]:
    """Returns a copy of all state of a model, by name."""
    return {name: np.array(variable.numpy()) for name, variable in gan.state.items()}


def differences(values: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns the largest difference of every variable whose bits differ, by name; empty if all are the same."""
    assert values.keys() == expected.keys()
    return {
        name: float(np.abs(value.astype(np.float64) - expected[name].astype(np.float64)).max())
        for name, value in values.items()
        if value.tobytes() != expected[name].tobytes()
    }
