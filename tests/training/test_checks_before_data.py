"""Networks that cannot be built, and datasets that do not fit each other, are refused before any image is read."""

import numpy as np
import pytest
from conftest import TINY_MLP
from refusals import check_refusal

from trainer.config import TrainConfig
from trainer.data.tfrecord_writer import write_prepared
from trainer.environment import Environment
from trainer.errors import ConfigError, NetworkError
from trainer.models import from_config, with_compute_settings
from trainer.training import run as training_run
from trainer.training.complete_config import complete, resolve

EXPLICIT = {"metrics": "none", "precision": "float32", "jit_compile": "off"}
HEADLESS = {"discriminator_head": "convolution"}
PAIRS = "gray_to_color:cifar10"


@pytest.fixture(autouse=True)
def _no_images(monkeypatch):
    def load(*_):
        raise AssertionError("images are read")

    monkeypatch.setattr(training_run, "load_training_data", load)


@pytest.fixture
def stream(tmp_path):
    """A prepared dataset of 12x9 images in two classes, whose shards are missing."""
    about = {"name": "set", "source": "", "license": "", "attribution": ""}
    images, folder = np.zeros((8, 12, 9, 3), np.uint8), tmp_path / "set"
    write_prepared(folder, images, np.arange(8) % 2, ["a", "b"], num_shards=4, **about)
    for shard in folder.glob("*.tfrecord"):
        shard.unlink()
    return str(folder)


UNKNOWN_OPTIONS = {
    "model option": ({"model": "infogan", "model_options": {"num_code": 3}}, ("num_code",)),
    "model option of a model without any": ({"model_options": {"num_codes": 3}}, ("num_codes",)),
    "architecture option": (
        {"architecture": "mlp", "architecture_options": {"generator_unit": [8]}},
        ("generator_un",),
    ),
}


@pytest.mark.parametrize("name", UNKNOWN_OPTIONS)
def test_an_unknown_option_is_refused_before_the_dataset_is_described(name):
    changes, mentions = UNKNOWN_OPTIONS[name]
    config = TrainConfig(dataset="/no/such/folder", **changes)
    check_refusal(lambda: resolve(config, Environment()), ConfigError, *mentions)


REFUSALS = {
    "acgan without a dense output": (
        {"model": "acgan", "architecture": "dcgan", "architecture_options": HEADLESS},
        NetworkError,
        ("Dense",),
    ),
    "infogan without a dense output": (
        {"model": "infogan", "architecture": "dcgan", "architecture_options": HEADLESS, "precision": "auto"},
        NetworkError,
        ("Dense",),
    ),
    "images without an input": ({"model": "pix2pix", "architecture": "unet_translator"}, ConfigError, ("pix2pix",)),
    "pairs for a model of images": ({"dataset": PAIRS, "model": "gan"}, ConfigError, (PAIRS,)),
    "options that do not fit each other": (
        {"architecture": "dcgan", "architecture_options": {"generator_strides": [2, 2, 2]}},
        ConfigError,
        ("generator_strides",),
    ),
    "statistics of the batch with micro-batches": (
        {"architecture": "dcgan", "accumulate_steps": 2},
        NetworkError,
        ("accumulate_steps=2",),
    ),
    "too many weights": ({"architecture": "dcgan", "max_weights": 1000}, NetworkError, ("max_weights=1,000",)),
    "too many weights with the moving average": (
        {"architecture": "mlp", "architecture_options": TINY_MLP, "max_weights": 30_000, "ema_half_life_images": 9.0},
        NetworkError,
        ("max_weights=30,000",),
    ),
    "domains of other shapes": (
        {"model": "cyclegan", "architecture": "unet_translator", "dataset_b": "cifar10"},
        ConfigError,
        ("dataset_b=cifar10", "28×28×1", "32×32×3"),
    ),
    "held-out pairs of another shape": (
        {
            "model": "pix2pix",
            "architecture": "unet_translator",
            "dataset": PAIRS,
            "dataset_b": "gray_to_color:tinted:digits",
        },
        ConfigError,
        ("dataset_b", "32×32×3", "28×28×3"),
    ),
}


def config_of(tmp_path, **changes):
    return resolve(TrainConfig(job_dir=str(tmp_path / "run"), steps=2, **EXPLICIT | changes), Environment())


@pytest.mark.parametrize("name", REFUSALS)
def test_a_run_that_cannot_be_built_is_refused_before_images_are_read(tmp_path, name):
    changes, error, mentions = REFUSALS[name]
    config = config_of(tmp_path, **changes)
    check_refusal(lambda: training_run.train(config, Environment()), error, *mentions)
    check_refusal(lambda: complete(config, Environment()), error, *mentions)
    assert not list((tmp_path / "run").glob("*"))


def test_more_frozen_layers_than_there_are_are_refused_before_images_are_read(tmp_path):
    config = config_of(tmp_path, architecture="mlp", architecture_options=TINY_MLP, freeze_discriminator_layers=2)
    act = lambda: with_compute_settings(config, (28, 28, 1), 10, can_use_bfloat16=False)  # noqa: E731
    check_refusal(act, ConfigError, "freeze_discriminator_layers=2")


def test_as_many_weights_as_allowed_are_accepted_before_images_are_read(tmp_path):
    changes = {"architecture": "mlp", "architecture_options": TINY_MLP, "ema_half_life_images": 9.0}
    gan = from_config(config_of(tmp_path, **changes), (28, 28, 1), 10)
    count = sum(network.count_params() for network in gan.networks.values())

    def check(max_weights):
        config = config_of(tmp_path, **changes, max_weights=max_weights)
        with_compute_settings(config, (28, 28, 1), 10, can_use_bfloat16=False)

    check(count + 9)  # the seeds of dropout count, too
    check_refusal(lambda: check(count - 1), NetworkError, "max_weights")


def test_a_stream_is_described_and_not_read(tmp_path, stream):
    config = config_of(
        tmp_path, dataset=stream, num_chunks=2, model="fastgan", architecture="fastgan", global_batch_size=4
    )
    check_refusal(lambda: training_run.train(config, Environment()), ConfigError, "12×9")


def test_a_resumed_run_is_checked_too(tmp_path, monkeypatch):
    monkeypatch.undo()
    changes = {"architecture": "mlp", "architecture_options": TINY_MLP, "model": "acgan", "global_batch_size": 8}
    training_run.train(config_of(tmp_path, export_model=False, **changes), Environment())
    _no_images.__wrapped__(monkeypatch)
    changes |= {"architecture": "dcgan", "architecture_options": HEADLESS, "allow_config_change": True}
    config = config_of(tmp_path, **changes).override(steps=4)
    check_refusal(lambda: training_run.train(config, Environment()), NetworkError, "Dense")
