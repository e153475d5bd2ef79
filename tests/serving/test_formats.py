"""Generators in other formats than SavedModel give the images that TensorFlow computes."""

import functools
import logging

import keras
import numpy as np
import pytest
from conftest import TINY_ARCHITECTURES, tiny_config
from refusals import check_refusal

from trainer.config.choices import ModelFormat
from trainer.errors import ConfigError, DivergenceError, NetworkError
from trainer.models import GAN, from_config
from trainer.serving import formats

FOURIER = {"generator_filters": [64, 64], "generator_strides": [1, 2], "kernel_size": 5, "discriminator_filters": [4]}
CASES = {
    "digits": {"model": "conditional", "architecture": "dcgan"},
    "cgan": {"model": "conditional"},
    "uniform": {"model": "gan", "latent_distribution": "uniform", "image_range": "0..1"},
    "infogan": {"model": "infogan"},
    "classes": {"model": "conditional", "classes": (3, 7)},
    "fourier": {"model": "gan", "architecture": "dcgan", "architecture_options": FOURIER},
    "resnet": {"model": "gan", "architecture": "resnet"},
    "upsampling": {"model": "gan", "architecture": "upsampling"},
    "r3gan": {"model": "gan", "architecture": "r3gan"},
    "r3gan_conditional": {"model": "conditional", "architecture": "r3gan"},
    "cyclegan": {"model": "cyclegan", "architecture": "resnet_translator"},
    "unet": {"model": "cyclegan", "architecture": "unet_translator"},
    "stylegan2": {"model": "stylegan2", "architecture": "stylegan2"},
    "fastgan": {"model": "fastgan", "architecture": "fastgan"},
}
FAST = {("digits", "keras"), ("cgan", "onnx"), ("cgan", "litert"), ("r3gan", "keras")}


def gan_of(case):
    """Returns a GAN with random weights, so that its images have all values."""
    settings = {"architecture_options": TINY_ARCHITECTURES[case.get("architecture", "mlp")], **case}
    gan = from_config(tiny_config(**settings), (28, 28, 1), 10)
    generator = np.random.default_rng(0)
    for network in gan.networks.values():
        for variable in network.variables:
            if variable.dtype.startswith("float"):
                variable.assign(variable.numpy() + generator.normal(0.0, 0.1, variable.shape))
    return gan


@pytest.mark.parametrize(
    ("name", "model_format"),
    [
        pytest.param(name, model_format, marks=() if (name, model_format) in FAST else pytest.mark.slow)
        for name in CASES
        for model_format in ModelFormat.values()
    ],
)
def test_a_model_gives_the_images_of_tensorflow(name, model_format, tmp_path):
    difference = formats.write(gan_of(CASES[name]), ModelFormat(model_format), tmp_path / "model", 1)
    assert difference <= 1
    assert (tmp_path / "model" / formats.file_of(ModelFormat(model_format))).exists()


def test_an_export_to_litert_logs_no_warnings(tmp_path, caplog):
    formats.write(gan_of(CASES["r3gan"]), ModelFormat.LITERT, tmp_path / "model", 1)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def entry(**changes):
    return formats._FORMATS[ModelFormat.KERAS]._replace(**changes)


def fail(error):
    def run(*arguments):
        raise error

    return run


def off_by(difference):
    plain = formats._FORMATS[ModelFormat.KERAS].run

    def run(folder, inputs):
        images = plain(folder, inputs).astype(np.uint8)
        images[-1, -1, -1] = np.where(images[-1, -1, -1] < 128, images[-1, -1, -1] + difference, images[-1, -1, -1] - 3)
        return images

    return run


REFUSED = {
    "different": ({"run": off_by(3)}, NetworkError, "3 of 255"),
    "one-channel": ({"run": lambda folder, inputs: np.zeros((64, 28, 28, 2), np.uint8)}, NetworkError, "keras"),
    "other-shape": ({"run": lambda folder, inputs: np.zeros((64, 1, 1, 1), np.uint8)}, NetworkError, "keras"),
    "unknown-layer": ({"write": fail(RuntimeError("no such op\nand more"))}, NetworkError, "no such op"),
    "no-text": ({"write": fail(ValueError())}, NetworkError, "ValueError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_model_is_refused(name, tmp_path, monkeypatch):
    changes, error, mention = REFUSED[name]
    monkeypatch.setitem(formats._FORMATS, ModelFormat.KERAS, entry(**changes))
    gan = gan_of(CASES["cgan"])
    check_refusal(lambda: formats.write(gan, ModelFormat.KERAS, tmp_path / "model", 1), error, "keras", mention)


def test_the_search_for_random_layers_traces_the_generator_once(tmp_path, monkeypatch):
    gan, traces = gan_of(CASES["cgan"]), []
    generate = gan.generate
    monkeypatch.setattr(gan, "generate", lambda *arguments: traces.append(arguments) or generate(*arguments))
    monkeypatch.setitem(formats._FORMATS, ModelFormat.KERAS, entry(write=fail(RuntimeError("the search has ended"))))
    write = functools.partial(formats.write, gan, ModelFormat.KERAS, tmp_path / "model", 1)
    check_refusal(write, NetworkError, "the search has ended")
    assert len(traces) == 1


@keras.saving.register_keras_serializable("tests")
class Noise(keras.layers.Layer):
    """A random layer that is active during inference."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.seeds)


@pytest.mark.parametrize("model_format", ModelFormat.values())
def test_a_generator_with_random_layers_is_only_a_saved_model(model_format, tmp_path):
    layers = [keras.Input((8,)), keras.layers.Dense(144), Noise(), keras.layers.Reshape((12, 12, 1))]
    discriminator = [keras.Input((12, 12, 1)), keras.layers.Flatten(), keras.layers.Dense(1)]
    networks = {"generator": layers, "discriminator": discriminator}
    gan = GAN(8, networks={name: functools.partial(keras.Sequential, layers) for name, layers in networks.items()})
    gan.compile(optimizer="adam", loss="non_saturating", jit_compile=False)
    if model_format == "savedmodel":
        assert formats.write(gan, ModelFormat.SAVED_MODEL, tmp_path / "model", 1) is None
        assert (tmp_path / "model/saved_model.pb").exists()
    else:
        write = functools.partial(formats.write, gan, ModelFormat(model_format), tmp_path / "model", 1)
        check_refusal(write, NetworkError, model_format, "savedmodel")


@pytest.mark.parametrize("model_format", ModelFormat.values())
def test_weights_that_are_not_finite_are_refused(model_format, tmp_path):
    gan = gan_of(CASES["cgan"])
    gan.ema_generator.variables[0].assign(np.full(gan.ema_generator.variables[0].shape, np.nan))
    with pytest.raises(DivergenceError):
        formats.write(gan, ModelFormat(model_format), tmp_path / "model", 1)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("model_format", "module"),
    [("onnx", "tf2onnx"), ("onnx", "onnxruntime"), ("onnx", "onnx"), ("litert", "ai_edge_litert")],
)
def test_a_missing_converter_is_refused_with_the_command_to_install_it(model_format, module, monkeypatch):
    plain = formats.importlib.util.find_spec
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if name == module else plain(name))
    mentions = f"format={model_format}", module, f"pip install 'gan-trainer[{model_format}]'"
    check_refusal(lambda: formats.check_installed(ModelFormat(model_format)), ConfigError, *mentions)
    formats.check_installed(ModelFormat.KERAS)
