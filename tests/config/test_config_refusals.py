"""Settings, combinations of settings and flags that are refused before a network is built."""

import pytest
from absl import flags as absl_flags
from conftest import tiny_gan
from refusals import check_refusal

from trainer.config import TrainConfig, flags, recipes
from trainer.environment import Environment
from trainer.errors import ConfigError
from trainer.models import MODELS, ConditionalGAN, from_config
from trainer.models.fastgan import FastGAN
from trainer.training import complete_config


def override(name="digits", **changes):
    """Returns a call that overrides settings of a recipe."""
    return lambda: recipes.get(name).override(**changes)


def resolve(**changes):
    """Returns a call that resolves the recipe vanilla with other settings."""
    return lambda: complete_config.resolve(recipes.get("vanilla").override(**changes), Environment())


def options(model, **model_options):
    """Returns a call that builds a GAN with options of its model."""
    config = recipes.get("cyclegan" if model == "cyclegan" else "vanilla")
    config = config.override(model=model, model_options=model_options)
    return lambda: from_config(config, (28, 28, 1), 10)


def batch(num_examples, num_replicas=1):
    """Returns a call that resolves a batch of 100 for data and replicas."""
    return lambda: TrainConfig(global_batch_size=100, steps=1).resolve(num_examples, num_replicas)


def row(name, act, *mentions):
    return pytest.param(act, mentions, id=name)


@pytest.mark.parametrize("argument", ["--steps=3.5", "--architecture_options=[1]", "--beta_1=x"])
def test_a_flag_of_a_wrong_type_is_refused(argument):
    values = absl_flags.FlagValues()
    flags.define_config(values)
    name, value = argument.removeprefix("--").split("=")
    with pytest.raises(absl_flags.Error) as refused:  # absl adds lines of its own; the commands print one
        values(["task", argument])
    assert name in str(refused.value) and value in str(refused.value)


@pytest.mark.parametrize(
    ("act", "mentions"),
    [
        *(row(f"recipe {name}", lambda name=name: recipes.get(name), repr(name)) for name in (None, 3, b"x")),
        row("too small", override(global_batch_size=0), "global_batch_size", "0", "1"),
        row("negative", override(generator_learning_rate=-1.0), "generator_learning_rate", "-1.0"),
        row("no epochs", override(epochs=0.0), "epochs", "0.0"),
        row("fewer than no epochs", override(epochs=-1), "epochs", "-1"),
        row("nan", override(generator_learning_rate=float("nan")), "generator_learning_rate", "nan"),
        row("too large", override(beta_1=1.0), "beta_1", "1.0"),
        row("too many samples", override(num_metric_samples=10**9), "num_metric_samples", f"{10**9}", f"{10**6}"),
        row("not a choice", override(precision="float16"), "precision", "float16", "float32", "bfloat16"),
        row("two lengths", override(steps=3, epochs=2.0), "steps", "3", "epochs", "2"),
        row("no length", lambda: TrainConfig(steps=None, epochs=None).resolve(100), "steps", "epochs"),
        row("batch above data", batch(50), "global_batch_size", "100", "50"),
        row("batch over replicas", batch(500, 8), "global_batch_size", "100", "8", "96", "104"),
        row("setting of another version", lambda: TrainConfig.from_dict({"color": "red"}), "color"),
        row("classes", lambda: ConditionalGAN(4, 10, classes=(3, 12)), "classes", "(3, 12)", "9"),
        row("class names in code", lambda: TrainConfig(classes=("cat",)).class_numbers, "classes", "cat"),
        row("class number", resolve(classes=(10,)), "classes", "10", "digits", "9"),
        row("negative class", resolve(classes=(-1,)), "classes", "-1", "digits", "9"),
        row("class twice", resolve(classes=("3", 3)), "classes", "3"),
    ],
)
def test_a_value_out_of_range_is_refused(act, mentions):
    check_refusal(act, ConfigError, *mentions)


@pytest.mark.parametrize(
    ("act", "mentions"),
    [
        row("recipe", override("vanila"), "recipe", "vanila", "vanilla"),
        row("recipe without module", override("no_such_module:mine"), "recipe", "no_such_module:mine"),
        row("recipe without function", override("json:no_such_function"), "recipe", "json", "no_such_function"),
        row("recipe of another kind", override("os:getcwd"), "recipe", "os:getcwd", "str", "TrainConfig"),
        row("loss", resolve(loss="hing"), "loss", "hing", "hinge"),
        row("penalty", resolve(penalties=("r1", "r3")), "penalty", "r3", "gradient_penalty", "r1", "r2"),
        row("augmentation", resolve(augment="adda"), "augmentation", "adda", "ada"),
        row("model", lambda: tiny_gan(model="conditinal"), "model", "conditinal", "conditional"),
        row("option of a model", options("gan", cycle=3), "model", "gan", "cycle"),
        row("option of a base class", options("infogan", num_classes=3), "model", "infogan", "num_classes"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(act, mentions):
    check_refusal(act, ConfigError, *mentions)


@pytest.mark.parametrize(
    ("act", "mentions"),
    [
        row("whole as text", options("infogan", num_categories="3"), "num_categories", "'3'"),
        row("fewer than none", options("infogan", num_continuous=-1), "num_continuous", "-1"),
        row("list", options("infogan", category_weight=[1]), "category_weight", "[1]"),
        row("text", options("acgan", class_weight="1"), "class_weight", "'1'"),
        row("text for cycles", options("cyclegan", cycle_weight="10"), "cycle_weight", "'10'"),
        row("boolean", options("cyclegan", identity_weight=True), "identity_weight", "True"),
        row("fraction", options("cyclegan", pool_size=2.5), "pool_size", "2.5"),
        row("negative pool", options("cyclegan", pool_size=-1), "pool_size", "-1"),
    ],
)
def test_options_of_models_are_numbers_in_range(act, mentions):
    check_refusal(act, ConfigError, *mentions)


SIMULTANEOUS = {"update_order": "simultaneous"}
SEPARATE = {"discriminator_updates": "separate"}
CYCLE = {"model": "cyclegan", "architecture": "unet_translator", "dataset_b": "inverted:digits"}


@pytest.mark.parametrize(
    ("changes", "mentions"),
    [
        ({"model": "cyclegan"}, ("model", "cyclegan", "dataset_b", "None")),
        ({"dataset_b": "digits"}, ("model", "gan", "dataset_b", "digits")),
        ({"model": "cyclegan", "dataset_b": "digits"}, ("model", "cyclegan", "mlp", "unet_translator")),
        ({"architecture": "unet_translator"}, ("model", "gan", "unet_translator", "mlp")),
        ({"model": "fastgan", "architecture": "dcgan"}, ("model=fastgan", "architecture=dcgan", "one of fastgan.")),
        (
            {"model": "stylegan2", "architecture": "r3gan"},
            ("model=stylegan2", "architecture=r3gan", "one of stylegan2."),
        ),
        (
            {"model": "stylegan2_conditional", "architecture": "fastgan"},
            ("model=stylegan2_conditional", "architecture=fastgan", "one of stylegan2."),
        ),
        ({"model": "infogan", "architecture": "stylegan2"}, ("model=infogan", "architecture=stylegan2", "mlp")),
        ({"model": "acgan", "architecture": "fastgan"}, ("model=acgan", "architecture=fastgan", "dcgan")),
        ({"metrics": "cycle"}, ("metrics", "cycle", "model", "gan", "digits")),
        ({"model": "cyclegan", "metrics": "stacked"}, ("metrics", "stacked", "model", "cyclegan")),
        ({"model": "cyclegan", "metrics": "photos"}, ("metrics", "photos", "model", "cyclegan")),
        ({"model": "cyclegan", "metrics": "inception"}, ("metrics", "inception", "model", "cyclegan")),
        (CYCLE | {"num_metric_samples": 20}, ("num_metric_samples=20", "metrics=cycle")),
        ({"inception_score": True}, ("inception_score", "photos", "inception", "digits")),
        (CYCLE | {"inception_score": True}, ("inception_score", "cycle")),
        ({"inception_score": True, "metrics": "none"}, ("inception_score", "none")),
        ({"stop_on_collapse": True, "metrics": "none"}, ("stop_on_collapse", "none")),
        (SEPARATE | {"loss": "relativistic"}, ("discriminator_updates", "separate", "relativistic", "together")),
        (
            SEPARATE | {"model": "fastgan", "architecture": "fastgan"},
            ("discriminator_updates=separate", "model=fastgan", "together", "concatenated"),
        ),
        (SEPARATE | {"penalties": ("r1",)}, ("penalties", "discriminator_updates", "separate", "together")),
        (SEPARATE | {"discriminator_repeats": 2}, ("discriminator_repeats", "2", "discriminator_updates", "together")),
        (SIMULTANEOUS | {"discriminator_repeats": 2}, ("discriminator_repeats", "2", "update_order", "alternating")),
        (SIMULTANEOUS | SEPARATE, ("discriminator_updates", "separate", "update_order", "alternating")),
        (
            SIMULTANEOUS | {"penalties": ("r1",), "penalty_every_steps": 4},
            ("penalty_every_steps", "4", "update_order", "alternating"),
        ),
        (
            {"augment": "ada", "augment_probability": 0.5, "discriminator_updates": "concatenated"},
            ("augment", "discriminator_updates", "concatenated", "together"),
        ),
        (
            {"augment": "ada", "augment_probability": None, "loss": "wasserstein"},
            ("augment_probability", "None", "wasserstein"),
        ),
        (
            {"model": "cyclegan", "architecture": "unet_translator", "dataset_b": "digits", "balance_classes": True},
            ("balance_classes", "cyclegan"),
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_do_not_fit_each_other_are_refused(changes, mentions):
    check_refusal(resolve(**changes), ConfigError, *mentions)


def test_models_and_architectures_of_users_may_have_any_parts(monkeypatch):
    own = type("Own", (FastGAN,), {"__module__": "own"})
    monkeypatch.setitem(MODELS._members, "own", own)
    resolve(model="own")()
    monkeypatch.setattr("trainer.networks.registry.is_custom", lambda name: name == "mlp")
    resolve(model="fastgan")()


def test_building_a_gan_checks_combinations_too():
    config = recipes.get("vanilla").override(**SEPARATE, penalties=("r1",))
    check_refusal(lambda: from_config(config, (28, 28, 1), 10), ConfigError, "penalties", "separate")


def test_a_failing_import_in_a_recipe_module_is_shown(tmp_path, monkeypatch):
    (tmp_path / "broken_recipe.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    check_refusal(lambda: recipes.get("broken_recipe:mine"), ModuleNotFoundError, "no_such_dependency")


def test_a_run_whose_recipe_is_in_no_package_is_refused(tmp_path, monkeypatch):
    (tmp_path / "plain_module.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    act = lambda: recipes.import_module("plain_module.recipe:mine", tmp_path / "run")  # noqa: E731
    check_refusal(act, ConfigError, "plain_module.recipe")
