"""Whatever a value contains, an error is one short line without control characters."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hostile import is_clean
from refusals import check_refusal

from trainer import __main__ as commands, data
from trainer.cli import evaluate, export, generate, inspect, jobs, local, merge, prepare, submit, train
from trainer.config import TrainConfig
from trainer.data import loading
from trainer.data.datasets import embedded_digits_dir
from trainer.environment import Environment
from trainer.errors import ConfigError, JobError, TrainerError, count_of, escape, list_some, quote, shorten

VALUES = {
    "long": "x" * 200_000,
    "long path": "x/" * 100_000,
    "lines": "a\nerror: all is well\n" * 9,
    "carriage return": "a\rb",
    "escape sequence": "a\x1b[2J\x1b]0;owned\x07b",
    "eight-bit escape": "a\x9b2Jb",
    "right to left": "a\u202ebc",
    "paragraph": "a\u2029b",
    "deep": "[" * 100_000,
    "digits": "9" * 5000,
    "superscript": "²",
    "infinity": "1e999",
}
NAMES = {
    "recipe": train,
    "steps": train,
    "epochs": train,
    "classes": train,
    "model_options": train,
    "loss": train,
    "augment": train,
    "penalties": train,
    "architecture": train,
    "horizontal_flips": train,
    "dataset": train,
    "resume": train,
}
COMMANDS = {
    **{f"train --{name}": (command, ["--steps=1", f"--{name}={{}}", "--dry_run"]) for name, command in NAMES.items()},
    "train --job_dir": (train, ["--job_dir={}/x\ty"]),
    "train, no flag": (train, ["--{}"]),
    "train, a word": (train, ["{}"]),
    "prepare --source": (prepare, ["--source={}/x\ty", "--out=x"]),
    "prepare --resize": (prepare, ["--source=x", "--out=x", "--resize={}"]),
    "prepare --limit": (prepare, ["--source=x", "--out=x", "--limit={}"]),
    "merge --out": (merge, ["--sources=a,b", "--out={}/x\ty"]),
    "inspect --dataset": (inspect, ["--dataset={}"]),
    "generate --num_images": (generate, ["--job_dir=x", "--out=x.png", "--num_images=-{}"]),
    "generate --out": (generate, ["--job_dir=x", "--out={}"]),
    "generate --seeds": (generate, ["--job_dir=x", "--out=x.png", "--seeds={}"]),
    "generate --init_image": (generate, ["--job_dir=x", "--out=x", "--init_image={}/x\ty"]),
    "generate --checkpoint": (generate, ["--job_dir=x", "--out=x.png", "--checkpoint={}"]),
    "evaluate --job_dir": (evaluate, ["--job_dir={}/x\ty"]),
    "evaluate --images": (evaluate, ["--images={}/x\ty", "--against=digits"]),
    "evaluate --against": (evaluate, ["--images=digits", "--against={}/x\ty"]),
    "evaluate --image_size": (evaluate, ["--images=digits", "--against=digits", "--image_size={}"]),
    "evaluate --metrics": (evaluate, ["--images=digits", "--against=digits", "--metrics={}"]),
    "export --job_dir": (export, ["--job_dir={}/x\ty", "--out=x"]),
    "submit --config": (submit, ["--config={}", "--dry_run"]),
    "submit --regions": (submit, ["--config=x", "--project=p", "--regions={},{}"]),
    "submit --price_table": (submit, ["--config=x", "--dry_run", "--price_table={}.csv"]),
    "local --config": (local, ["--config={}"]),
    "jobs --limit": (jobs, ["list", "--limit={}"]),
    "jobs logs": (jobs, ["logs", "{}", "{}"]),
    "jobs": (jobs, ["describe", "{}", "--project=p", "--region=us-central1"]),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_flag_with_any_value_ends_in_one_line(name, kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command, arguments = COMMANDS[name]
    code = command.main(["command", *(argument.replace("{}", VALUES[kind]) for argument in arguments)])
    error = capsys.readouterr().err
    assert code in (1, 2), (code, error)
    assert error.startswith("error: ") and error.count("\n") == 1 and len(error) < 2100, error[:3000]
    assert is_clean(error[:-1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("variable", ["TF_CONFIG", "CLUSTER_SPEC", "AIP_MODEL_DIR"])
def test_a_variable_with_any_value_ends_in_one_line(variable, kind):
    try:
        Environment.read({variable: VALUES[kind]})
    except TrainerError as error:
        assert is_clean(str(error)) and len(str(error)) < 1000
    else:
        assert variable == "AIP_MODEL_DIR"


@pytest.mark.parametrize("kind", VALUES)
def test_every_error_is_one_short_line(kind):
    for error in (ConfigError(VALUES[kind]), JobError(f"the job {VALUES[kind]} failed; look at its log.", 3)):
        assert is_clean(str(error)) and len(str(error)) < 12_100
    assert str(JobError(f"the job {VALUES[kind]} failed; look at its log.")).endswith("look at its log.")
    assert is_clean(quote(VALUES[kind])) and len(quote(VALUES[kind])) <= 200


def test_short_values_stay_as_they_are():
    assert shorten("x" * 2000) == "x" * 2000 and escape("ü 字 a/b") == "ü 字 a/b" and quote("ü") == "'ü'"
    path = "/home/user/" + "folder/" * 20 + "image.png"  # paths are often this long
    assert quote(path) == f"'{path}'"
    assert len(quote(10**5000)) <= 200 and len(quote([[10**5000]])) <= 200


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (1000, "image", "1,000 images"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (1, "class name", "1 class name"),
    ],
)
def test_a_number_has_its_noun_in_the_right_form(number, noun, text):
    assert count_of(number, noun) == text


@pytest.mark.parametrize(("limit", "text"), [(1, "1, …"), (2, "1, 2, …"), (3, "1, 2, 3"), (4, "1, 2, 3")])
def test_a_list_shows_that_it_is_not_complete(limit, text):
    assert list_some([1, 2, 3], limit) == text and list_some(iter("123"), limit) == text
    assert list_some([], limit) == ""


def test_no_message_has_a_plural_of_a_number_in_a_variable():
    """Numbers that may be 1 are formatted with `count_of`; constants are in capitals."""
    pattern = re.compile(
        r"\{(len\([^{}]*\)|num_[a-z_]+)(:,)?\} (images|files|shards|classes|labels|names|replicas|lines)\b"
    )
    raw_plurals = [
        f"{path.name}: {match[0]}"
        for path in Path(commands.__file__).parent.rglob("*.py")
        for match in pattern.finditer(path.read_text())
    ]
    assert raw_plurals == []


@pytest.mark.parametrize("classes", [("a", "b"), (1.5,), ("0",), (None,), "ab", (10**30,), (-1,)], ids=repr)
def test_classes_that_are_not_numbers_are_refused(classes):
    check_refusal(lambda: data.describe("digits").with_classes(classes), ConfigError, "classes", "9")
    check_refusal(lambda: loading.load("digits", classes=classes), ConfigError, "classes", "9")


@pytest.mark.parametrize("classes", [1, 1.5, True, len], ids=repr)
def test_a_selection_that_is_no_list_is_refused(classes):
    check_refusal(lambda: data.describe("digits").with_classes(classes), ConfigError, "classes", quote(classes))
    check_refusal(lambda: loading.load("digits", classes=classes), ConfigError, "classes", quote(classes))


@pytest.mark.parametrize(
    "classes",
    [[3, 7], {3, 7}, np.array([3, 7]), range(3, 8, 4), iter((3, 7)), dict.fromkeys((3, 7))],
    ids=lambda value: type(value).__name__,
)
def test_every_list_of_classes_selects_them(classes):
    assert set(loading.load("digits", classes=classes).labels) == {3, 7}


@pytest.mark.parametrize("name", [7, None, 1.5, b"digits", ["digits"], Path], ids=repr)
def test_a_dataset_without_a_name_is_refused(name):
    for act in (data.describe, loading.load, loading.open_batches):
        check_refusal(lambda act=act: act(name), ConfigError, "dataset", quote(name), "digits")


@pytest.mark.parametrize("setting", ["padding", "cache_mib"])
@pytest.mark.parametrize("value", [-1, "2", None, float("nan"), [2]], ids=repr)
def test_a_number_of_another_type_is_refused(setting, value):
    check_refusal(lambda: loading.load("digits", **{setting: value}), ConfigError, setting, quote(value))


def test_a_dataset_may_be_a_path(tmp_path):
    shutil.copytree(embedded_digits_dir(), tmp_path / "mine")
    assert data.describe(tmp_path / "mine") == data.describe(f"{tmp_path}/mine")
    assert loading.load(tmp_path / "mine").fingerprint == loading.load("digits").fingerprint


@pytest.mark.parametrize("kind", VALUES)
def test_a_word_that_is_no_command_is_quoted_shortly(kind, capsys):
    assert commands.main(["gan-trainer", VALUES[kind]]) == 2
    first, *usage = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ") and len(first) < 300 and is_clean(first) and usage


@pytest.mark.parametrize("kind", ["missing folder", "missing path", "picture", "folder of images", "empty folder"])
def test_a_dataset_that_is_not_prepared_is_explained(kind, tmp_path):
    (tmp_path / "images/cats").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "cat.png").write_bytes(b"x")
    name = {
        "missing folder": "no_such_folder",
        "missing path": f"{tmp_path}/none",
        "picture": f"{tmp_path}/cat.png",
        "folder of images": f"{tmp_path}/images",
        "empty folder": f"{tmp_path}/empty",
    }[kind]
    expected = {
        "missing folder": "digits",
        "missing path": "exist",
        "picture": "file",
        "folder of images": "prepare --source",
        "empty folder": "prepare --source",
    }[kind]
    for act in (lambda: data.describe(name), lambda: data.num_examples(TrainConfig(dataset=name))):
        check_refusal(act, ConfigError, name, expected)
