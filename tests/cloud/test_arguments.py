"""The args of a job are held against the trainer's flags: one sentence for each mistake."""

import pytest

from trainer import architectures, augment, losses, penalties, recipes
from trainer.cloud import known
from trainer.cloud.arguments import asked, check_args, trainer_args
from trainer.cloud.known import OPTIONS, PARTS
from trainer.cloud.pools import Container, PythonPackage
from trainer.config import TrainConfig
from trainer.errors import ConfigError
from trainer.gans import WIRINGS, building


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
        (["--loss=wassertein"], "'wassertein' is an unknown loss; did you mean wasserstein? Known are "),
        (["--architecture=dcgn"], "'dcgn' is an unknown architecture; did you mean dcgan? Known are "),
        (["--penalties=r1,r3"], "'r3' is an unknown penalty; known are gradient_penalty, r1, r2."),
        (["--augment=adda"], "'adda' is an unknown augmentation; did you mean ada? Known are "),
        (["--wiring=cyclegan"], "wiring=cyclegan with dataset_b=None: a second data set belongs to wiring=cyclegan"),
        (["--dataset_b=digits"], "wiring=conditional with dataset_b=digits: a second data set belongs to wiring="),
        (["--recipe=cyclegan", "--balance_classes"], "balance_classes needs classes, which the two data sets of "),
        (["--recipe=cyclegan", "--architecture=mlp"], "wiring=cyclegan needs an architecture that maps images to "),
        (["--metrics=cycle"], "metrics=cycle measures translations, which wiring=conditional does not give; choose "),
        (["--discriminator_repeats=2"], "discriminator_repeats=2 and discriminator_updates=together need update_order"),
        (["--recipe=gan_rmsprop", "--penalties=r1"], "penalties and augmentation need discriminator_updates=together"),
        (
            ["--recipe=two_phase", "--loss=relativistic"],
            "discriminator_updates=separate needs a loss that is a sum of ",
        ),
        (["--recipe=r3gan", "--augment=ada", "--augment_probability=none"], "augment_probability=None adapts to how "),
        (["--architecture=resnet"], "'generator_strides' is an unknown option of architecture resnet; did you mean "),
        (
            ["--recipe=acgan", '--wiring_options={"clas_weight": 2}'],
            "'clas_weight' is an unknown option of wiring acgan",
        ),
        (["--recipe=mine:recipe", "--padding=-1"], "padding=-1 is too small; the least is 0."),
    ],
)
def test_what_the_trainer_would_refuse_is_told(args, sentence):
    with pytest.raises(ConfigError) as caught:
        check_args(args, "workerPoolSpecs[0].containerSpec.args")
    assert str(caught.value).startswith(f"workerPoolSpecs[0].containerSpec.args: {sentence}")
    assert "\n" not in str(caught.value)


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
        ["--recipe=mine:recipe", "--wiring=cyclegan", "--discriminator_repeats=2", '--wiring_options={"mine": 1}'],
    ],
)
def test_what_the_trainer_takes_is_right(args):
    check_args(args, "args")


def test_the_settings_that_args_give_are_told():
    some = asked(["--job-dir=gs://b/x", "--steps=3.0"], "args")
    assert some.given == {"job_dir": "gs://b/x", "steps": 3} and not some.is_dry_run
    assert some.config.steps == 3 and some.config.wiring == "conditional" and not some.has_own_recipe
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
def test_the_args_are_those_of_the_trainer(program, args):
    assert trainer_args(program) == args


def test_the_names_that_are_known_here_are_those_of_this_package():
    registries = {"loss": losses, "architecture": architectures, "penalty": penalties, "augmentation": augment}
    registries["wiring"] = WIRINGS
    assert {kind: sorted(names) for kind, names in PARTS.items()} == {
        kind: module.names() for kind, module in registries.items()
    }


def test_the_options_that_are_known_here_are_those_of_this_package():
    architecture = {name: [*architectures.default_options(name)] for name in architectures.names()}
    wiring = {name: building.wiring_options(name) for name in WIRINGS.names()}
    for kind, found in (("architecture", architecture), ("wiring", wiring)):
        assert {name: sorted(known) for name, known in OPTIONS[kind].items()} == {
            name: sorted(options) for name, options in found.items()
        }


@pytest.mark.parametrize(
    ("setting", "name"),
    [*(("loss", name) for name in losses.names()), *(("wiring", name) for name in WIRINGS.names())],
)
def test_what_the_rules_ask_of_parts_is_known_here(setting, name):
    config = TrainConfig().override(**{setting: name})
    assert known.traits(config) == building.traits(config)


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_let_through(name):
    check_args([f"--recipe={name}"], "args")
