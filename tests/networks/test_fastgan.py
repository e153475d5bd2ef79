"""FastGAN: its gates, sizes, quarters, and the decoders' loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_model
from refusals import check_refusal

from trainer import networks
from trainer.config import recipes
from trainer.config.image_sizes import num_halvings
from trainer.errors import ConfigError, NetworkError
from trainer.models.fastgan import FastGAN, quarter
from trainer.networks.fastgan import excitation_pairs
from trainer.networks.layers import AdaptiveAveragePooling2D


def build(side, options=None):
    widths = {"generator_filters": [4], "discriminator_filters": [4]}
    factories = networks.build("fastgan", (side, side, 3), 5, 0, "tanh", options or widths)
    return factories["generator"](), factories["discriminator"]()


@pytest.mark.parametrize(
    ("side", "gates", "logits"),
    [
        (32, {32: 4}, 1),
        (64, {64: 4}, 5),
        (128, {64: 4, 128: 8}, 5),
        (256, {64: 4, 128: 8, 256: 16}, 5),
        (512, {64: 4, 128: 8, 256: 16, 512: 32}, 5),
        (1024, {64: 4, 128: 8, 256: 16, 512: 32}, 5),
    ],
)
def test_each_resolution_has_its_gates_and_patches(side, gates, logits):
    pairs = excitation_pairs(num_halvings(side, side))
    assert {4 << stage: 4 << source for stage, source in pairs.items()} == gates
    generator, discriminator = build(side)
    assert generator.output_shape == (None, side, side, 3)
    assert discriminator.output_shape == (None, logits, logits, 1)
    gated = [layer for layer in generator.layers if isinstance(layer, keras.layers.Multiply)]
    assert [layer.output.shape[1] for layer in gated] == list(gates)


def test_gates_are_between_0_and_1_and_depend_on_the_small_map():
    generator, _ = build(32)
    multiply = next(layer for layer in generator.layers if isinstance(layer, keras.layers.Multiply))
    gates = keras.Model(generator.input, multiply.input[1])
    values = gates(np.random.RandomState(0).normal(size=(6, 5)).astype(np.float32)).numpy()
    assert values.shape == (6, 1, 1, 4)
    assert values.min() > 0
    assert values.max() < 1
    assert np.ptp(values, axis=0).max() > 1e-4


@pytest.mark.parametrize(
    ("side", "options", "mentions"),
    [
        (6, {"generator_filters": [4]}, ("6",)),
        (9, {"generator_filters": [4]}, ("9",)),
        (2048, {"generator_filters": [4]}, ("2048",)),
        (16, {"generator_filters": [4, 4, 4, 4]}, ("generator_filters", "[4, 4, 4, 4]", "3")),
        (16, {"discriminator_filters": [4] * 9}, ("discriminator_filters", "3")),
        (16, {"discriminator_filters": [4, 0, 4]}, ("discriminator_filters",)),
    ],
)
def test_sizes_and_widths_that_do_not_fit_are_refused(side, options, mentions):
    check_refusal(lambda: build(side, options), ConfigError, *mentions)


def test_a_quarter_is_the_corner_of_the_image():
    images = np.arange(4 * 6 * 4 * 2).reshape(4, 6, 4, 2)
    corners = images[0, :3, :2], images[1, :3, 2:], images[2, 3:, :2], images[3, 3:, 2:]
    np.testing.assert_array_equal(quarter(tf.constant(images), tf.range(4)), np.stack(corners))


@pytest.mark.parametrize("size", [4, 6, 7, 8])
def test_adaptive_pooling_averages_overlapping_parts(size):
    maps = np.random.RandomState(0).normal(size=(2, size, size, 3)).astype(np.float32)
    parts = [slice(i * size // 4, -(-(i + 1) * size // 4)) for i in range(4)]
    expected = np.stack([np.stack([maps[:, r, c].mean((1, 2)) for c in parts], 1) for r in parts], 1)
    np.testing.assert_allclose(AdaptiveAveragePooling2D((4, 4))(maps), expected, atol=1e-6)


def test_the_decoders_learn_to_reconstruct_the_images():
    gan = tiny_model("fastgan", discriminator_learning_rate=1e-2, generator_learning_rate=0.0)
    gan.discriminator.trainable = False
    images = np.repeat(np.arange(0, 256, 16, dtype=np.uint8), 144).reshape(16, 12, 12, 1)
    losses = []
    log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: losses.append(logs))
    gan.fit(images, batch_size=16, steps=40, steps_per_execution=10, verbose=0, callbacks=[log])
    for name in ("loss/reconstruction_whole", "loss/reconstruction_part"):
        assert losses[-1][name] < 0.7 * losses[0][name]


def test_updates_without_real_images_are_refused():
    check_refusal(lambda: tiny_model("fastgan", discriminator_updates="separate"), ConfigError, "separate", "together")


def test_a_discriminator_without_named_maps_is_refused():
    gan = FastGAN(
        2,
        networks={
            "generator": lambda: keras.Sequential(
                [keras.Input((2,)), keras.layers.Dense(64), keras.layers.Reshape((8, 8, 1))]
            ),
            "discriminator": lambda: keras.Sequential(
                [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(1)]
            ),
        },
    )
    check_refusal(gan.compile, NetworkError, "fastgan", "part_features")


def test_the_recipe_follows_epochs_and_augments_images_with_alpha():
    facts = {"image_shape": (32, 32, 4), "num_images": 300, "size": "small"}
    config = recipes.get("fastgan", recipes.RecipeContext(**facts, settings={"epochs": 200}))
    resolved = config.override(epochs=200).resolve(300)
    assert resolved.augment == "diffaugment"
    assert 0 < resolved.checkpoint_every_steps < resolved.evaluate_every_steps < resolved.steps
