"""The recipe `photos` has a sensible plan for every size of images, number of images and device."""

import itertools

import pytest
from refusals import check_refusal

from trainer.config import TrainConfig, recipes
from trainer.config.recipes import RecipeContext
from trainer.errors import ConfigError

SIDES = (32, 64, 128, 256, 512, 1024)
SIZES = ("small", "medium", "large")


def plan(height=64, width=None, channels=3, num_images=5000, **facts):
    """Returns the config that photos chooses, with the user's settings."""
    context = RecipeContext(image_shape=(height, width or height, channels), num_images=num_images, **facts)
    return recipes.get("photos", context).override(**context.settings)


@pytest.mark.parametrize(
    ("facts", "size"),
    [
        ({}, "small"),
        ({"has_gpu": True, "device_memory_gib": 7.6}, "small"),
        ({"has_gpu": True, "device_memory_gib": 14.6}, "medium"),  # T4, sold as 16 GB
        ({"has_gpu": True, "device_memory_gib": 22.1}, "medium"),
        ({"has_gpu": True, "device_memory_gib": 31.7}, "medium"),
        ({"has_gpu": True, "device_memory_gib": 39.4}, "large"),
        ({"has_gpu": True, "device_memory_gib": 79.0}, "large"),
        ({"has_gpu": True, "device_memory_gib": None}, "medium"),
        ({"size": "large"}, "large"),
        ({"has_gpu": True, "device_memory_gib": 79.0, "size": "small"}, "small"),
    ],
)
def test_the_size_fits_the_device_unless_it_is_given(facts, size):
    assert plan(**facts).size == size


@pytest.mark.parametrize(
    ("shape", "base"),
    [
        ((28, 28, 1), (7, 7)),
        ((32, 32, 3), (4, 4)),
        ((48, 64, 3), (6, 8)),
        ((8, 8, 3), (4, 4)),
        ((12, 12, 3), (6, 6)),
        ((60, 60, 3), (15, 15)),
        ((64, 68, 3), (16, 17)),
        ((64, 48, 4), (8, 6)),
        ((1024, 1024, 3), (4, 4)),
        ((512, 768, 1), (4, 6)),
        ((96, 128, 3), (6, 8)),
    ],
)
def test_networks_go_down_to_a_small_map(shape, base):
    options = plan(*shape).architecture_options
    halvings = len(options["discriminator_filters"]) - 1
    assert (shape[0] / 2**halvings, shape[1] / 2**halvings) == base
    assert options["generator_filters"] == options["discriminator_filters"][::-1]


@pytest.mark.parametrize(
    ("height", "width", "fitting"),
    [
        (100, 100, "96,96"),
        (30, 30, "32,32"),
        (72, 100, "72,96"),
        (500, 333, "512,320"),
        (4, 4, "8,8"),
        (10, 10, "8,8"),
        (1920, 1080, "1024,576"),
        (2048, 2048, "1024,1024"),
        (76, 76, "80,80"),
        (63, 64, "64,64"),
    ],
)
def test_images_that_cannot_be_halved_are_refused_with_a_size_that_fits(height, width, fitting):
    check_refusal(lambda: plan(height, width), ConfigError, "photos", f"{height}x{width}", f"--image_size={fitting}")
    assert plan(*map(int, fitting.split(","))).steps > 0


@pytest.mark.parametrize(("height", "padding", "fitting"), [(32, 3, 34), (24, 7, 26), (100, 1, 102)])
def test_the_suggested_size_is_that_of_images_without_their_padding(height, padding, fitting):
    settings, side = {"padding": padding}, height + 2 * padding
    mentions = (f"{side}x{side}", f"padding={padding}", f"--image_size={fitting},{fitting} ")
    check_refusal(lambda: plan(side, side, settings=settings), ConfigError, "photos", *mentions)
    assert plan(fitting + 2 * padding, settings=settings).steps > 0


def test_the_suggested_size_is_always_accepted():
    for height, width in itertools.product(range(1, 1500, 37), repeat=2):
        try:
            plan(height, width)
        except ConfigError as error:
            fitting = str(error).rpartition("--image_size=")[2].rstrip(".")
            assert plan(*map(int, fitting.split(","))).steps > 0, (height, width)


@pytest.mark.parametrize("size", SIZES)
def test_batches_fall_with_the_resolution(size):
    plans = [plan(side, num_images=10**6, size=size) for side in SIDES]
    batches = [config.global_batch_size for config in plans]
    assert batches == sorted(batches, reverse=True) and batches[-1] < batches[0]
    widths = [config.architecture_options["discriminator_filters"][0] for config in plans]
    assert widths == sorted(widths, reverse=True) and all(width % 8 == 0 for width in widths)
    assert all(config.steps * config.global_batch_size <= 20.2e6 for config in plans)


@pytest.mark.parametrize("side", SIDES)
def test_larger_sizes_are_wider_and_train_longer_at_lower_rates(side):
    plans = [plan(side, num_images=10**6, size=size) for size in SIZES]
    for smaller, larger in itertools.pairwise(plans):
        for name in ("generator_filters", "discriminator_filters"):
            narrow, wide = (config.architecture_options[name] for config in (smaller, larger))
            assert len(narrow) == len(wide) and all(a <= b for a, b in zip(narrow, wide, strict=True))
        assert smaller.global_batch_size <= larger.global_batch_size
        assert smaller.generator_learning_rate > larger.generator_learning_rate
        assert smaller.steps * smaller.global_batch_size < larger.steps * larger.global_batch_size


@pytest.mark.parametrize("side", [32, 64])
def test_large_networks_have_the_width_of_the_paper(side):
    filters = plan(side, size="large").architecture_options["discriminator_filters"]
    assert filters[-1] == 768


@pytest.mark.parametrize(("size", "side"), [*itertools.product(["medium", "large"], SIDES)])
def test_gamma_of_sizes_for_gpus_is_proportional_to_pixels_over_batch(size, side):
    config, reference = plan(side, size=size), plan(64, size="medium")
    unit = config.penalty_weight * config.global_batch_size / side**2
    assert unit == pytest.approx(reference.penalty_weight * reference.global_batch_size / 64**2, rel=0.01)
    assert config.penalty_weight_end == pytest.approx(config.penalty_weight / 10)
    half = plan(side, size=size, settings={"global_batch_size": config.global_batch_size * 2})
    assert half.penalty_weight == pytest.approx(config.penalty_weight / 2, rel=0.01)


@pytest.mark.parametrize(
    ("num_images", "num_devices", "batch"),
    [(12, 1, 12), (12, 5, 10), (300, 1, 32), (300, 3, 96), (50_000, 2, 64), (10**7, 8, 256), (10**7, 64, 256)],
)
def test_the_batch_fits_images_and_devices(num_images, num_devices, batch):
    config = plan(num_images=num_images, num_devices=num_devices)
    assert config.global_batch_size == batch
    assert config.resolve(num_images, num_devices).steps == config.steps


@pytest.mark.parametrize(("memory_gib", "batch"), [(14.6, 8), (19.5, 8), (22.0, 16), (31.7, 16), (None, 16)])
def test_a_gpu_of_16_gb_gets_half_the_batch(memory_gib, batch):
    facts = {"has_gpu": True, "device_memory_gib": memory_gib, "size": "medium"}
    assert plan(256, **facts).global_batch_size == batch
    assert plan(256, num_devices=2, **facts).global_batch_size == 2 * batch


@pytest.mark.parametrize("num_devices", range(1, 40))
def test_every_number_of_devices_divides_the_batch(num_devices):
    for size, side in itertools.product(SIZES, SIDES):
        assert plan(side, num_devices=num_devices, size=size).global_batch_size % num_devices == 0


@pytest.mark.parametrize("num_images", [12, 100, 300, 4317, 50_000, 10**6, 10**7])
@pytest.mark.parametrize("size", SIZES)
def test_any_number_of_images_has_a_length_and_intervals(num_images, size):
    config = plan(num_images=num_images, size=size).resolve(num_images)
    assert config.steps >= 1000
    for name in ("evaluate", "sample", "checkpoint"):
        assert 5 <= config.steps / getattr(config, f"{name}_every_steps") <= 250
    assert config.ema_half_life_images < config.schedule_images / 20


def test_few_images_are_augmented_and_many_are_not():
    chosen = [plan(num_images=num_images, size="medium") for num_images in (300, 10_000, 100_000, 1_000_000)]
    ends = [config.augment_probability_end or 0 for config in chosen]
    assert ends == sorted(ends, reverse=True) and ends[0] > 0.3 and ends[-1] == 0
    assert [config.augment for config in chosen] == ["ada", "ada", "ada", None]
    assert plan(channels=4, num_images=300).augment == "ada"


@pytest.mark.parametrize(
    ("num_images", "settings", "images", "augment"),
    [
        (12, {}, 200_000, "ada"),
        (300, {}, 200_000, "ada"),
        (1500, {}, 300_000, "ada"),
        (4317, {}, 400_000, None),
        (10**7, {}, 400_000, None),
        (300, {"augment": None}, 400_000, None),
    ],
)
def test_a_cpu_shows_augmented_images_less_often(num_images, settings, images, augment):
    config = plan(64, num_images=num_images, settings=settings)
    assert config.steps * config.global_batch_size == pytest.approx(images, rel=0.05)
    assert config.augment == augment


def test_images_are_shown_less_often_only_if_they_are_augmented():
    for num_images in range(12, 2500, 7):
        config = plan(64, num_images=num_images)
        is_shorter = config.steps < plan(64, num_images=10**6).steps
        assert not is_shorter or config.augment == "ada", num_images


@pytest.mark.parametrize("model", ["gan", "conditional"])
def test_labels_count_only_when_asked_for(model):
    settings = {} if model == "gan" else {"model": model}
    assert plan(num_classes=5, settings=settings).model == model


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"global_batch_size": 16}, {"penalty_weight": 0.2, "penalty_weight_end": 0.02}),
        ({"penalty_weight": 5.0}, {"penalty_weight_end": 0.5}),
        ({"steps": 1000}, {"ema_half_life_images": 800, "evaluate_every_steps": 100, "checkpoint_every_steps": 25}),
        ({"epochs": 4.0}, {"steps": None, "ema_half_life_images": 500, "augment": None}),
        ({"augment": None}, {"augment_probability_end": None}),
        ({"augment": "diffaugment"}, {"augment_probability": 0.0}),
        ({"augment_probability": 0.3}, {"augment": "ada", "augment_probability_end": None}),
        ({"augment_probability_end": 0.5}, {"augment": "ada", "augment_probability": 0.0}),
        ({"horizontal_flips": False}, {"augment": None}),
        ({"architecture": "dcgan"}, {"architecture_options": {}}),
        ({"architecture_options": {"blocks_per_stage": 3}}, {"architecture_options": {"blocks_per_stage": 3}}),
        ({"generator_learning_rate": 1e-5}, {"discriminator_learning_rate": 2e-3}),
    ],
)
def test_choices_follow_the_settings_of_the_user(settings, expected):
    config = plan(settings=settings)
    values = {name: getattr(config, name) for name in {*settings, *expected}}
    assert values == {**settings, **expected}


def test_a_run_that_starts_from_another_one_is_shorter():
    context = RecipeContext(image_shape=(64, 64, 3), num_images=5000, settings={"init_from": "runs/first"})
    assert recipes.get("photos", context).steps == pytest.approx(plan().steps / 2, rel=0.05)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("init_from", [None, "runs/first"])
def test_a_run_is_shortened_for_augmentation_only_if_it_is_augmented(init_from, channels):
    for side, num_images in itertools.product((32, 64, 128), (12, 300, 700, 1200, 1900, 2400, 3000, 10_000)):
        facts = {"image_shape": (side, side, channels), "num_images": num_images}
        settings = {} if init_from is None else {"init_from": init_from}
        chosen = recipes.get("photos", RecipeContext(**facts, settings=settings))
        without = recipes.get("photos", RecipeContext(**facts, settings={**settings, "augment": None}))
        assert chosen.augment == "ada" or chosen.steps == without.steps, (side, num_images)


def test_numbers_of_times_are_counted():
    context = RecipeContext(image_shape=(32, 32, 3), num_images=300, settings={"epochs": 1})
    recipes.get("photos", context)
    assert context.reasons["augment"].endswith("1 time")


def test_every_choice_has_a_reason_unless_the_user_makes_it():
    settings = {"global_batch_size": 16, "augment": "ada"}
    context = RecipeContext(image_shape=(64, 64, 3), num_images=300, num_classes=2, settings=settings)
    config = recipes.get("photos", context)
    assert {"size", "steps", "penalty_weight", "architecture_options", "model"} <= set(context.reasons)
    assert not set(settings) & set(context.reasons) and all(context.reasons.values())
    assert all(hasattr(config, name) for name in context.reasons)


def test_the_recipe_states_only_settings_that_a_config_can_store():
    for size, side in itertools.product(SIZES, SIDES):
        config = plan(side, size=size)
        assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("act", "mentions"),
    [
        (lambda: recipes.get("photos"), ("photos", "RecipeContext")),
        (lambda: recipes.check_settings("photos", {"steps": 3}), ("photos", "dataset")),
        (lambda: recipes.check_settings("vanilla", {"size": "medium"}), ("size=medium", "vanilla")),
        (lambda: recipes.check_settings("photos", {"dataset": "digits", "size": "huge"}), ("size", "huge", "small")),
        (lambda: recipes.check_settings("photo", {}), ("photo", "photos")),
    ],
)
def test_settings_that_do_not_fit_the_recipe_are_refused(act, mentions):
    check_refusal(act, ConfigError, *mentions)


def test_a_custom_recipe_may_take_a_context(tmp_path, monkeypatch):
    (tmp_path / "own_photos.py").write_text(
        "from trainer import recipes\n"
        "from trainer.config.recipes.photos import photos\n"
        "def mine(context):\n    return photos(context).override(loss='hinge')\n"
        "def fixed():\n    return recipes.get('vanilla')\n"
        "def other(size):\n    return recipes.get('vanilla')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    context = RecipeContext(image_shape=(64, 64, 3), num_images=300, size="medium")
    config = recipes.get("own_photos:mine", context)
    assert (config.loss, config.size, config.recipe) == ("hinge", "medium", "own_photos:mine")
    assert recipes.takes_context("own_photos:mine") and not recipes.takes_context("own_photos:fixed")
    assert recipes.get("own_photos:fixed", context).size == "auto"
    check_refusal(lambda: recipes.get("own_photos:other", context), ConfigError, "own_photos:other", "context")
