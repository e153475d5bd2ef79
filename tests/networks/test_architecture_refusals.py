"""Options of architectures, and settings of layers, that are refused before a network is made."""

import pytest
from refusals import check_refusal

from trainer import networks
from trainer.errors import ConfigError
from trainer.networks.layers import Dropout, ImagePool, UpsamplingConv2D


def check_build(name, shape, options, *mentions):
    """Asserts that an architecture for images of a shape is refused with these options."""

    def build():
        for factory in networks.build(name, shape, 8, 0, "tanh", options).values():
            factory()

    check_refusal(build, ConfigError, *mentions)


@pytest.mark.parametrize(
    ("name", "options", "value"),
    [
        # Lists of whole numbers above 0, some with a least length.
        ("mlp", {"generator_units": 256}, "256"),
        ("mlp", {"generator_units": [-1]}, "[-1]"),
        ("mlp", {"discriminator_units": [2.5]}, "[2.5]"),
        ("dcgan", {"discriminator_filters": 64}, "64"),
        ("dcgan", {"discriminator_strides": [2, 0]}, "[2, 0]"),
        ("resnet", {"generator_filters": []}, "[]"),
        ("resnet", {"discriminator_filters": [0]}, "[0]"),
        ("upsampling", {"generator_filters": [64]}, "[64]"),
        ("upsampling", {"discriminator_filters": [32, -1]}, "[32, -1]"),
        ("r3gan", {"generator_filters": 16}, "16"),
        ("fastgan", {"generator_filters": []}, "[]"),
        ("fastgan", {"discriminator_filters": []}, "[]"),
        ("r3gan", {"discriminator_filters": [8, -8]}, "[8, -8]"),
        # Whole numbers above 0.
        ("dcgan", {"kernel_size": 0}, "0"),
        ("dcgan", {"discriminator_kernel_size": 2.5}, "2.5"),
        ("upsampling", {"transposed_kernel_size": 0}, "0"),
        ("upsampling", {"discriminator_kernel_size": 2.5}, "2.5"),
        ("r3gan", {"blocks_per_stage": 0}, "0"),
        ("r3gan", {"group_size": 0}, "0"),
        ("r3gan", {"expansion": 1.5}, "1.5"),
        ("resnet_translator", {"residual_blocks": 0}, "0"),
        ("unet_translator", {"depth": "3"}, "'3'"),
        ("unet_translator", {"depth": -1}, "-1"),
        # Numbers of layers.
        ("mlp", {"generator_units": [1] * 100_000}, "100,000"),
        ("dcgan", {"discriminator_strides": [1] * 100_000}, "100,000"),
        ("r3gan", {"blocks_per_stage": 10**9}, "1000000000"),
        ("stylegan2", {"mapping_layers": 10**9}, "1000000000"),
        ("resnet_translator", {"residual_blocks": 10**9}, "1000000000"),
        ("resnet_translator", {"downsamplings": 10**9}, "1000000000"),
        ("unet_translator", {"depth": 10**9}, "1000000000"),
        # Rates.
        ("mlp", {"dropout": "x"}, "'x'"),
        ("mlp", {"leaky_slope": "x"}, "'x'"),
        ("mlp", {"batch_norm_momentum": "x"}, "'x'"),
        ("mlp", {"batch_norm_momentum": 9}, "9"),
        ("dcgan", {"batch_norm_momentum": 1}, "1"),
        ("dcgan", {"batch_norm_momentum": None}, "None"),
        ("upsampling", {"dropout": "x"}, "'x'"),
        ("upsampling", {"dropout": 0.999999}, "0.999999"),
        ("unet_translator", {"depth": 2, "dropout": 1}, "1"),
        # Words.
        ("mlp", {"initializer": "he_norml"}, "he_norml"),
        ("dcgan", {"generator_stem": "conv"}, "conv"),
        ("dcgan", {"discriminator_head": "pool"}, "pool"),
        ("dcgan", {"discriminator_activation": "elu"}, "elu"),
        ("dcgan", {"discriminator_batch_norm": "some"}, "some"),
        ("dcgan", {"spectral_norm": "yes"}, "yes"),
        ("resnet", {"spectral_norm": "on"}, "on"),
        ("upsampling", {"upsampling_kernel_size": 4}, "4"),
        ("upsampling", {"generator_activation": "elu"}, "elu"),
        ("upsampling", {"discriminator_activation": "elu"}, "elu"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_an_option_that_cannot_work_is_refused(name, options, value):
    *_, option = options
    check_build(name, (32, 32, 1), options, option, value)


@pytest.mark.parametrize(
    ("name", "shape", "options", "mentions"),
    [
        ("dcgan", (28, 28, 1), {"discriminator_strides": [2]}, ("discriminator_filters", "discriminator_strides")),
        ("dcgan", (28, 28, 1), {"generator_strides": [2]}, ("generator_filters", "generator_strides", "[2]")),
        (
            "dcgan",
            (28, 28, 1),
            {"discriminator_head": "convolution", "discriminator_dense": [10]},
            ("discriminator_dense", "discriminator_head", "dense"),
        ),
        ("resnet", (32, 32, 1), {"discriminator_downsamples": 3}, ("discriminator_downsamples", "3", "2")),
        ("r3gan", (30, 28, 1), {}, ("30×28", "4")),
        ("r3gan", (28, 21, 1), {}, ("28×21", "4")),
        ("r3gan", (28, 28, 1), {"generator_filters": [16] * 4}, ("generator_filters", "28×28")),
        ("r3gan", (28, 28, 1), {"discriminator_filters": []}, ("discriminator_filters", "28×28")),
        ("r3gan", (28, 28, 1), {"group_size": 12}, ("expansion", "group_size", "12")),
        ("resnet_translator", (30, 21, 3), {}, ("30×21", "downsamplings", "2", "28×20", "32×24")),
        ("resnet_translator", (4, 4, 3), {}, ("4×4", "8×8", "downsamplings", "1")),
        ("unet_translator", (28, 28, 1), {}, ("28×28", "depth", "7", "128×128", "2")),
        ("resnet_translator", (8, 8, 3), {}, ("8×8", "discriminator_layers", "3", "2")),
    ],
)
def test_options_that_do_not_fit_are_refused(name, shape, options, mentions):
    check_build(name, shape, options, *mentions)


@pytest.mark.parametrize(
    ("call", "mentions"),
    [
        (lambda: networks.build("dcgn", (28, 28, 1), 8, 0, "tanh", {}), ("architecture", "dcgn", "dcgan")),
        (lambda: networks.generator_input("unet_translater"), ("architecture", "unet_translater", "unet_translator")),
        (
            lambda: networks.build("mlp", (28, 28, 1), 8, 0, "tanh", {"dropuot": 0.1}),
            ("architecture", "mlp", "dropuot", "dropout"),
        ),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(call, mentions):
    check_refusal(call, ConfigError, *mentions)


def test_an_error_of_a_layer_mentions_the_options():
    initializer = {"class_name": "RandomNormal", "config": {"stddev": "wide"}}
    check_build("mlp", (8, 8, 1), {"initializer": initializer}, "mlp", "architecture_options", "initializer", "wide")


@pytest.mark.parametrize(
    ("make", "mentions"),
    [
        (lambda: Dropout(1.5), ("dropout", "1.5")),
        (lambda: Dropout(0.999999), ("dropout", "0.999999")),
        (lambda: UpsamplingConv2D(8, kernel_size=4), ("UpsamplingConv2D", "kernel_size", "4")),
        (lambda: UpsamplingConv2D(8, kernel_size=3, strides=2), ("UpsamplingConv2D", "strides", "2")),
        (lambda: ImagePool(-1, (2, 3, 1)), ("size", "-1", "0")),
    ],
)
def test_settings_of_layers_are_refused(make, mentions):
    check_refusal(make, ConfigError, *mentions)


def test_an_image_pool_has_a_slot_for_each_replica(two_replicas):
    with two_replicas.scope():
        check_refusal(lambda: ImagePool(1, (2, 3, 1)), ConfigError, "size", "1", "2")
