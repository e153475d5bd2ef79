"""The recipes of StyleGAN2 have the automatic settings of StyleGAN2-ADA."""

import pytest

from trainer.config import recipes


def config_of(name="stylegan2", side=256, channels=3, **facts):
    facts = {"num_images": 5000, "size": "large", "has_gpu": True} | facts
    return recipes.get(name, recipes.RecipeContext(image_shape=(side, side, channels), **facts))


@pytest.mark.parametrize(
    ("side", "devices", "batch", "rate", "gamma", "half_life", "base"),
    [
        (32, 1, 64, 0.0025, 0.01, 500_000, 32768),
        (64, 1, 32, 0.0025, 0.0256, 10_000, 16384),
        (256, 1, 16, 0.0025, 0.8192, 5_000, 16384),
        (256, 8, 64, 0.0025, 0.2048, 20_000, 16384),
        (512, 8, 64, 0.0025, 0.8192, 20_000, 32768),
        (1024, 8, 32, 0.002, 6.5536, 10_000, 32768),
    ],
)
def test_settings_by_resolution_are_the_published_ones(side, devices, batch, rate, gamma, half_life, base):
    config = config_of(side=side, num_devices=devices)
    assert (config.global_batch_size, config.generator_learning_rate) == (batch, rate)
    assert (config.penalty_weight, config.ema_half_life_images) == (pytest.approx(gamma), half_life)
    assert (config.beta_1, config.beta_2, config.epsilon, config.penalty_every_steps) == (0, 0.99, 1e-8, 16)
    options = config.architecture_options
    assert (options["channel_base"], options["max_filters"], options["mapping_layers"]) == (base, 512, 2)
    assert bool(config.model_options) == (side == 32) != options["residual"]


def test_the_group_size_divides_the_batch_of_a_device():
    assert config_of(side=1024, num_devices=1).architecture_options["group_size"] == 4
    assert config_of(side=32, num_devices=1).architecture_options["group_size"] == 32
    assert config_of(side=32, num_devices=4).architecture_options["group_size"] == 16
    assert config_of(num_images=6).architecture_options["group_size"] == 2
    assert config_of(side=1024, num_devices=64).architecture_options["group_size"] == 1


def test_variants_differ_in_the_model_and_the_augmentation():
    plain, conditional, ada = (config_of(f"stylegan2{suffix}") for suffix in ("", "_conditional", "_ada"))
    assert (plain.model, conditional.model, ada.model) == ("stylegan2", "stylegan2_conditional", "stylegan2")
    assert (plain.augment, ada.augment, ada.augment_probability) == (None, "ada", None)


def test_networks_for_cpus_are_small():
    for side in (16, 32, 64, 128, 256, 1024):
        options = config_of(side=side, size="small", has_gpu=False).architecture_options
        assert options["max_filters"] == 64
        assert options["channel_base"] // side >= 8


def test_a_users_settings_decide():
    config = config_of(settings={"global_batch_size": 8, "epochs": 2.0})
    assert (config.global_batch_size, config.steps) == (8, None)
    assert config.penalty_weight == pytest.approx(0.0002 * 256**2 / 8)


def test_the_intervals_follow_the_length_that_a_user_gives():
    for settings in ({"epochs": 4.0}, {"steps": 1250}):
        config = config_of(settings={"global_batch_size": 16, **settings})
        assert config.evaluate_every_steps == pytest.approx(125, abs=5)
        assert config.sample_every_steps == pytest.approx(62, abs=3)
