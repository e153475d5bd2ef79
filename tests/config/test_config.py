"""Settings: one source for defaults, ranges, choices, help and flags."""

import dataclasses
import json

import pytest
from absl import flags as absl_flags
from refusals import check_refusal

from trainer.config import TrainConfig, choices, flags, recipes
from trainer.config.choices import Choice
from trainer.errors import ConfigError

STABLE_FLAGS = {
    "recipe",
    "job_dir",
    "dataset",
    "classes",
    "steps",
    "epochs",
    "global_batch_size",
    "seed",
    "strategy",
    "num_virtual_devices",
    "steps_per_execution",
    "jit_compile",
    "precision",
    "loss",
    "generator_learning_rate",
    "discriminator_learning_rate",
    "ema_half_life_images",
    "sample_every_steps",
    "checkpoint_every_steps",
    "evaluate_every_steps",
    "max_to_keep",
    "resume",
}


def parse(*arguments):
    values = absl_flags.FlagValues()
    flags.define_config(values)
    values(["task", *arguments])
    return flags.parsed_settings(values)


def test_stable_flags_exist():
    names = {spec.name for spec in dataclasses.fields(TrainConfig)}
    assert names >= STABLE_FLAGS


def test_every_setting_has_help_and_survives_json():
    for spec in dataclasses.fields(TrainConfig):
        assert len(spec.metadata["help"]) > 10 and spec.metadata["help"].endswith("."), spec.name
    config = TrainConfig(classes=(0, 3), architecture_options={"dropout": 0.1}, steps=5)
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_choices_are_plain_strings_in_configs_and_json():
    config = TrainConfig(strategy=choices.StrategyName.MIRRORED)
    for spec in dataclasses.fields(TrainConfig):
        if spec.metadata["choices"]:
            assert type(spec.default) is str and spec.default in spec.metadata["choices"], spec.name
    assert type(config.strategy) is str
    assert config == TrainConfig(strategy="mirrored")
    assert json.loads(config.to_json())["strategy"] == "mirrored"


@pytest.mark.parametrize("kind", Choice.__subclasses__(), ids=lambda kind: kind.__name__)
def test_members_of_choices_behave_like_their_strings(kind):
    for member in kind:
        assert member == member.value and hash(member) == hash(member.value)
        assert f"{member}" == str(member) == member.value
        assert json.dumps(member) == json.dumps(member.value)
    assert kind.values() == tuple(member.value for member in kind)


def test_flags_give_typed_values_of_the_settings_on_the_command_line():
    settings = parse(
        "--steps=30.0", "--classes=0,cat", "--loss=hinge", '--architecture_options={"a": 1}', "--epochs=2.5"
    )
    assert settings == {
        "steps": 30,
        "classes": ("0", "cat"),
        "loss": "hinge",
        "architecture_options": {"a": 1},
        "epochs": 2.5,
    }


def test_flags_take_lists_and_none():
    assert parse("--penalties=r1,r2", "--augment_probability=none", "--classes=none") == {
        "penalties": ("r1", "r2"),
        "augment_probability": None,
        "classes": None,
    }
    assert parse("--penalties=") == {"penalties": ()}
    assert parse("--classes= 0, polar bear ,") == {"classes": ("0", "polar bear")}


def test_steps_and_epochs_replace_each_other():
    assert recipes.get("vanilla").override(steps=7).epochs is None
    assert recipes.get("digits").override(epochs=2.0).steps is None


def test_epochs_become_steps_of_whole_batches():
    config = TrainConfig(global_batch_size=64, epochs=3.0)
    assert config.resolve(1000).steps == 45


def test_intervals_in_epochs_become_steps():
    config = TrainConfig(global_batch_size=100, epochs=50.0, sample_every_epochs=1.0, checkpoint_every_epochs=20.0)
    resolved = config.resolve(1050)
    assert (resolved.sample_every_steps, resolved.checkpoint_every_steps) == (10, 200)


def test_a_new_interval_in_steps_replaces_that_of_the_recipe_in_epochs():
    recipe = recipes.get("dcgan_upsampling")
    changed = recipe.override(checkpoint_every_steps=100, sample_every_steps=0).resolve(60_000)
    assert (changed.checkpoint_every_steps, changed.sample_every_steps) == (100, 0)
    assert recipe.override(checkpoint_every_epochs=10.0).resolve(60_000).checkpoint_every_steps == 4680


@pytest.mark.parametrize("name", ["sample_every", "checkpoint_every"])
def test_an_interval_in_steps_and_in_epochs_is_refused(name):
    both = {f"{name}_steps": 5, f"{name}_epochs": 2.0}
    check_refusal(lambda: TrainConfig().override(**both), ConfigError, f"{name}_steps=5", f"{name}_epochs=2")


def test_schedules_end_with_the_run_unless_schedule_images_is_given():
    decaying = TrainConfig(global_batch_size=10, steps=7, learning_rate_decay="linear")
    assert decaying.resolve(100).schedule_images == 70
    assert decaying.override(schedule_images=30).resolve(100).schedule_images == 30
    assert TrainConfig(steps=7).resolve(100).schedule_images is None
    assert decaying.resolve(100).fingerprint != decaying.override(steps=9).resolve(100).fingerprint


@pytest.mark.parametrize(
    ("settings", "suite"),
    [
        ({}, "digits"),
        ({"dataset": "stacked:digits"}, "stacked"),
        ({"model": "cyclegan", "dataset_b": "inverted:digits"}, "cycle"),
        ({"dataset": "tinted:digits"}, "digits"),
        ({"dataset": "inverted:stacked:digits"}, "photos"),
        ({"dataset": "tinted:photos"}, "photos"),
        ({"dataset": "cifar10"}, "photos"),
        ({"dataset": "gs://bucket/photos"}, "photos"),
        ({"dataset": "gs://bucket/photos", "inception_weights": "download"}, "inception"),
        ({"dataset": "digits", "inception_weights": "download"}, "digits"),
        ({"dataset": "digits", "metrics": "photos"}, "photos"),
        ({"model": "cyclegan", "dataset": "photos", "dataset_b": "others"}, "cycle"),
        ({"metrics": "none"}, "none"),
    ],
)
def test_metrics_auto_depends_on_the_data(settings, suite):
    config = TrainConfig(steps=1, **settings).resolve(100)
    assert config.suite == suite and type(config.suite) is str
    assert config.has_metrics == (suite != "none")


def test_only_length_and_intervals_may_change_on_resume():
    config = TrainConfig(steps=5)
    assert config.fingerprint == config.override(steps=9, sample_every_steps=2, job_dir="x").fingerprint
    assert config.fingerprint != config.override(seed=1).fingerprint
    assert config.fingerprint != config.override(loss="hinge").fingerprint


def test_paths_in_mounted_buckets_name_the_buckets():
    paths = {"job_dir", "dataset", "dataset_b", "init_from", "inception_weights"}
    mounted = TrainConfig(**dict.fromkeys([*paths, "recipe"], "/gcs/bucket/name")).without_mounts()
    assert {name for name, value in mounted.to_dict().items() if value == "gs://bucket/name"} == paths
    assert TrainConfig().without_mounts() == TrainConfig()


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_complete_and_described(name):
    config = recipes.get(name, recipes.RecipeContext(image_shape=(64, 64, 3), num_images=5000))
    assert config.recipe == name
    assert config.resolve(5000).steps > 0
    assert recipes.summary(name).endswith((".", ","))


@pytest.mark.parametrize("name", [name for name in recipes.names() if recipes.takes_context(name)])
def test_no_recipe_chooses_steps_if_the_user_sets_the_length(name):
    facts = {"image_shape": (64, 64, 3), "num_images": 5000}
    for settings in ({"epochs": 2.0}, {"steps": 7}, {"steps": None}):
        context = recipes.RecipeContext(**facts, settings=settings)
        assert recipes.get(name, context).steps == settings.get("steps")
        assert "steps" not in context.reasons
