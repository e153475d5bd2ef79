"""The recipe `r3gan`: the published settings by resolution, and the sizes of its networks."""

import itertools
import math

import pytest
from refusals import check_refusal

from trainer import networks
from trainer.config import recipes
from trainer.errors import ConfigError

RESOLUTIONS = (32, 64, 128, 256)
FILTERS = {
    32: [768, 768, 768, 768],
    64: [384, 768, 768, 768, 768],
    128: [192, 384, 768, 768, 768, 768],
    256: [96, 192, 384, 768, 768, 768, 768],
}
"""Channels of the stages in the paper, from the image to the base map."""
CLASSES, LATENTS = 10, 64


def recipe(shape, name="r3gan", num_images=50_000, **settings):
    """Returns the recipe's config for images of a shape, with the settings of a user."""
    context = recipes.RecipeContext(image_shape=shape, num_images=num_images, num_classes=CLASSES, settings=settings)
    return recipes.get(name, context).override(**settings)


@pytest.mark.parametrize(
    ("resolution", "batch", "gamma", "half_life", "probability"),
    [(32, 512, 0.05, 5e6, 0.55), (64, 256, 2, 5e5, 0.3), (256, 256, 150, 5e5, 0.3)],
)
@pytest.mark.parametrize("name", ["r3gan", "r3gan_conditional"])
def test_the_settings_are_the_published_ones(name, resolution, batch, gamma, half_life, probability):
    config = recipe((resolution, resolution, 3), name)
    assert config.global_batch_size == batch
    assert (config.penalty_weight, config.penalty_weight_end) == (gamma, pytest.approx(gamma / 10))
    assert (config.ema_half_life_images, config.ema_schedule) == (half_life, "cosine")
    assert (config.augment_probability, config.augment_probability_end) == (0, probability)
    assert config.steps == math.ceil(20e6 / batch)
    assert config.resolve(50_000).schedule_images == config.steps * batch
    assert config.generator_learning_rate == config.discriminator_learning_rate == 2e-4
    assert config.learning_rate_end * config.generator_learning_rate == pytest.approx(5e-5)
    assert (config.beta_1, config.beta_2, config.beta_2_end, config.epsilon) == (0, 0.9, 0.99, 1e-8)
    assert (config.loss, config.penalties, config.penalty_every_steps) == ("relativistic", ("r1", "r2"), 1)
    assert config.model == ("conditional" if name.endswith("conditional") else "gan")


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_the_networks_have_the_published_widths(resolution):
    options = recipe((resolution, resolution, 3)).architecture_options
    assert options["discriminator_filters"] == FILTERS[resolution]
    assert options["generator_filters"] == FILTERS[resolution][::-1]


@pytest.mark.parametrize(
    ("shape", "resolution", "num_stages"),
    [
        ((28, 28, 1), 32, 3),
        ((16, 16, 3), 32, 3),
        ((48, 64, 3), 64, 4),
        ((96, 96, 3), 128, 5),
        ((512, 512, 3), 256, 8),
    ],
)
def test_other_sizes_have_the_settings_of_the_nearest_resolution(shape, resolution, num_stages):
    config, square = recipe(shape), recipe((resolution, resolution, 3))
    assert config.penalty_weight == square.penalty_weight
    assert config.global_batch_size == square.global_batch_size
    filters = config.architecture_options["discriminator_filters"]
    assert len(filters) == num_stages
    assert filters == sorted(filters)
    assert filters[-1] == 768


def test_the_penalty_between_two_published_resolutions_is_between_theirs():
    weights = [recipe((side, side, 3)).penalty_weight for side in RESOLUTIONS]
    assert weights == sorted(weights)
    assert weights[2] == pytest.approx(math.sqrt(weights[1] * weights[3]), rel=0.05)


def test_choices_follow_the_settings_that_they_depend_on():
    assert recipe((32, 32, 3), global_batch_size=64).steps == 20_000_000 // 64
    assert recipe((32, 32, 3), penalty_weight=3.0).penalty_weight_end == pytest.approx(0.3)
    assert recipe((32, 32, 3), steps=100).steps == 100
    assert recipe((32, 32, 3), epochs=2.0).steps is None


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("name", ["r3gan", "r3gan_conditional"])
def test_a_size_is_refused(name, size):
    check_refusal(lambda: recipe((32, 32, 3), name, size=size), ConfigError, f"size={size}", "photos")


def expected_weights(filters, size, channels=3, group_size=16, blocks=2):
    """Returns the numbers of weights of generator and discriminator by the formulas of the layers."""
    body = 0
    for width in filters:
        hidden = 2 * width
        body += blocks * (2 * width * hidden + 9 * group_size * hidden + 2 * hidden)
    body += sum(a * b for a, b in itertools.pairwise(filters) if a != b)
    first, last = filters[0], filters[-1]
    ends = channels * first + 16 * last
    return body + ends + (LATENTS + size) * last, body + ends + last + size * last


@pytest.mark.parametrize("condition_size", [0, CLASSES])
@pytest.mark.parametrize("resolution", [32, *(pytest.param(side, marks=pytest.mark.slow) for side in RESOLUTIONS[1:])])
def test_the_networks_have_the_number_of_weights_of_their_layers(resolution, condition_size):
    shape = (resolution, resolution, 3)
    options = recipe(shape).architecture_options
    factories = networks.build("r3gan", shape, LATENTS, condition_size, "tanh", options)
    counts = tuple(factories[name]().count_params() for name in ("generator", "discriminator"))
    assert counts == expected_weights(FILTERS[resolution], condition_size)


def test_choices_follow_the_architecture_and_the_probability_of_the_user():
    config = recipe((32, 32, 3), architecture="dcgan")
    assert (config.architecture, config.architecture_options) == ("dcgan", {})
    config = recipe((32, 32, 3), augment_probability=0.6)
    assert (config.augment, config.augment_probability, config.augment_probability_end) == ("ada", 0.6, None)
    assert recipe((32, 32, 3), augment=None).augment_probability_end is None
