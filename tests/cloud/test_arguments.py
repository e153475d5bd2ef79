"""The args of a job are held against the trainer's flags: one sentence for each mistake."""

import pytest

from trainer.cloud.arguments import check_args, settings, trainer_args
from trainer.cloud.pools import Container, PythonPackage
from trainer.errors import ConfigError


def container(command=(), args=()):
    return Container(image_uri="image", command=command, args=args, env={})


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--setps=3"], "--setps is not a flag of the trainer; did you mean steps?"),
        (["--zzzzzz=3"], "--zzzzzz is not a flag of the trainer; python -m trainer.task --help lists them."),
        (["--steps=many"], "--steps=many does not fit; --steps takes a whole number, or none."),
        (["--steps=2.5"], "--steps=2.5 does not fit; --steps takes a whole number, or none."),
        (["--wiring_options=[1]"], "--wiring_options=[1] does not fit; --wiring_options takes a JSON object."),
        (["--export_model=maybe"], "--export_model=maybe does not fit; --export_model takes true or false."),
        (["--steps"], "Missing value for flag --steps; write --name=value."),
        (["--steps=0"], "steps=0 is too small; the least is 1."),
        (["--steps=3", "--epochs=2"], "steps=3 and epochs=2 both say how long to train; give one."),
        (["--recipe=vanila"], "'vanila' is an unknown recipe; did you mean vanilla? Known are "),
        (["digits"], "'digits' is not a flag; flags are written --name=value."),
        (["--recipe=mine:recipe", "--padding=-1"], "padding=-1 is too small; the least is 0."),
    ],
)
def test_what_the_trainer_would_refuse_is_told(args, sentence):
    with pytest.raises(ConfigError) as caught:
        check_args(args, "workerPoolSpecs[0].containerSpec.args")
    assert str(caught.value).startswith(f"workerPoolSpecs[0].containerSpec.args: {sentence}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "args", [[], ["--recipe=digits", "--steps=3.0"], ["--job-dir", "gs://b/x"], ["--dry_run"], ["--recipe=mine:recipe"]]
)
def test_what_the_trainer_takes_is_right(args):
    check_args(args, "args")


def test_the_settings_that_args_give_are_told():
    assert settings(["--job-dir=gs://b/x", "--steps=3.0"], "args") == {"job_dir": "gs://b/x", "steps": 3}
    assert settings(["--dry_run"], "args") == {"dry_run": True}


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
def test_the_args_are_those_of_the_trainer(program, args):
    assert trainer_args(program) == args
