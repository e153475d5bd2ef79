"""Args of a job: those that the trainer takes, and the names that are known without TensorFlow."""

import pytest

from trainer import networks
from trainer.cloud.jobs import known
from trainer.cloud.jobs.arguments import asked, check_args, trainer_args
from trainer.cloud.jobs.known import OPTIONS, PARTS
from trainer.cloud.jobs.worker_pools import Container, PythonPackage
from trainer.config import recipes
from trainer.config.train_config import TrainConfig
from trainer.models import MODELS, augment, factory, losses, penalties


def container(command=(), args=()):
    return Container(image_uri="image", command=command, args=args, env={})


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--recipe=digits", "--steps=3.0"],
        ["--job-dir", "gs://b/x"],
        ["--dry_run"],
        ["--penalties=r1,r2", "--augment=ada"],
        ["--augment=none"],
        ["--recipe=mine:recipe"],
        ["--recipe=mine:recipe", "--loss=mine", "--architecture=mine", "--penalties=mine", "--augment=mine"],
        ["--recipe=mine:recipe", "--model=cyclegan", "--discriminator_repeats=2", '--model_options={"mine": 1}'],
    ],
)
def test_args_that_the_trainer_takes_are_accepted(args):
    check_args(args, "args")


def test_settings_are_parsed_from_args():
    some = asked(["--job-dir=gs://b/x", "--steps=3.0"], "args")
    assert some.given == {"job_dir": "gs://b/x", "steps": 3} and not some.is_dry_run
    assert some.config.steps == 3 and some.config.model == "conditional" and not some.has_own_recipe
    assert asked(["--dry_run"], "args").is_dry_run and asked(["--recipe=mine:recipe"], "args").has_own_recipe


@pytest.mark.parametrize(
    ("program", "args"),
    [
        (container(("python", "-m", "trainer.task"), ("--steps=3",)), ("--steps=3",)),
        (container(("python",), ("-m", "trainer.task", "--steps=3")), ("--steps=3",)),
        (container((), ("--steps=3",)), ("--steps=3",)),
        (container(("bash", "-c"), ("ls",)), None),
        (
            PythonPackage(executor_image_uri="i", package_uris=(), python_module="trainer.task", args=("-a",), env={}),
            ("-a",),
        ),
        (PythonPackage(executor_image_uri="i", package_uris=(), python_module="mine", args=("-a",), env={}), None),
    ],
)
def test_trainer_args_of_a_program(program, args):
    assert trainer_args(program) == args


def test_known_names_are_those_of_the_registries():
    registries = {"loss": losses, "architecture": networks, "penalty": penalties, "augmentation": augment}
    registries["model"] = MODELS
    assert {kind: sorted(names) for kind, names in PARTS.items()} == {
        kind: module.names() for kind, module in registries.items()
    }


def test_known_options_are_those_of_the_registries():
    architecture = {name: [*networks.default_options(name)] for name in networks.names()}
    model = {name: factory.model_options(name) for name in MODELS.names()}
    for kind, found in (("architecture", architecture), ("model", model)):
        assert {name: sorted(known) for name, known in OPTIONS[kind].items()} == {
            name: sorted(options) for name, options in found.items()
        }


@pytest.mark.parametrize(
    ("setting", "name"),
    [*(("loss", name) for name in losses.names()), *(("model", name) for name in MODELS.names())],
)
def test_known_traits_are_those_of_the_parts(setting, name):
    config = TrainConfig().override(**{setting: name})
    assert known.traits(config) == factory.traits(config)


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_accepted(name):
    check_args([f"--recipe={name}"], "args")
