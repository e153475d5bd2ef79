"""Args of a job: those that the trainer accepts."""

import pytest

from trainer.cloud.jobs.arguments import check_args, parse_args, trainer_args
from trainer.cloud.jobs.config_checks import needs_labels
from trainer.cloud.jobs.worker_pools import Container, PythonPackage
from trainer.config import recipes


def container(command=(), args=()):
    return Container(command=command, args=args, env={})


def package(module, args=("-a",), uris=()):
    return PythonPackage(package_uris=uris, python_module=module, args=args, env={})


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--recipe=digits", "--steps=3.0"],
        ["--job-dir", "gs://bkt/x"],
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
    parsed = parse_args(["--job-dir=gs://bkt/x", "--steps=3.0"], "args")
    assert parsed.flags == {"job_dir": "gs://bkt/x", "steps": 3} and not parsed.waits_for_lease
    assert parsed.config.steps == 3 and parsed.config.model == "conditional" and not parsed.has_custom_recipe
    assert parse_args(["--wait_for_lease"], "args").waits_for_lease
    assert parse_args(["--recipe=mine:recipe"], "args").has_custom_recipe


@pytest.mark.parametrize(
    ("program", "args"),
    [
        (container(("python", "-m", "trainer.task"), ("--steps=3",)), ("--steps=3",)),
        (container(("python",), ("-m", "trainer.task", "--steps=3")), ("--steps=3",)),
        (container((), ("--steps=3",)), ("--steps=3",)),
        (container(("python", "-m", "trainer", "train"), ("--steps=3",)), ("--steps=3",)),
        (container(("python", "-u", "-m"), ("trainer", "train", "--steps=3")), ("--steps=3",)),
        (container(("gan-trainer", "train"), ("--steps=3",)), ("--steps=3",)),
        (container(("python", "-mtrainer.task"), ("--steps=3",)), ("--steps=3",)),
        (container(("python", "-mtrainer"), ("train", "--steps=3")), ("--steps=3",)),
        (container(("python", "-m", "trainer", "prepare"), ("--out=gs://bkt/x",)), None),
        (container(("bash", "-c"), ("ls",)), None),
        (package("trainer.task"), ("-a",)),
        (package("trainer.task", uris=("gs://bkt/my_gans-0.1.tar.gz",)), ("-a",)),
        (package("mine"), None),
        (package("trainer", ("train", "-a")), ("-a",)),
        (package("trainer", ("prepare",)), None),
    ],
)
def test_trainer_args_of_a_program(program, args):
    assert trainer_args(program) == args


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_accepted(name):
    check_args([f"--recipe={name}", *(["--dataset=digits"] if recipes.takes_context(name) else [])], "args")


@pytest.mark.parametrize(
    ("model", "expected"),
    [("gan", False), ("cyclegan", False), ("infogan", False), ("conditional", True), ("acgan", True)],
)
def test_models_that_need_labels(model, expected):
    assert needs_labels(model) == expected
