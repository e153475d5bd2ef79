"""What README and docs promise."""

import re
from pathlib import Path

import pytest

from trainer import recipes
from trainer.flags import define_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
RECIPES = (ROOT / "docs/recipes.md").read_text()
DATA = (ROOT / "docs/data.md").read_text()


def test_the_subclass_example_runs_as_printed_and_has_fifteen_lines(monkeypatch):
    example = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["gan"].step == 5000 // 64


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_in_the_table(name):
    assert f"| `{name}` |" in RECIPES


@pytest.mark.parametrize(
    "text",
    [README, RECIPES, DATA, (ROOT / "docs/architecture.md").read_text()],
    ids=["README", "recipes", "data", "architecture"],
)
def test_files_that_are_named_exist(text):
    paths = re.findall(r"`((?:trainer|scripts|docs|tests|benchmarks)/[\w./]+)`|\]\((docs/[\w./]+)\)", text)
    for path in {first or second for first, second in paths}:
        assert (ROOT / path).exists(), path


def test_flags_that_are_named_exist():
    from absl import flags

    values = flags.FlagValues()
    define_config(values)
    known = {*values, "help", "dry_run", "num_images", "label", "out", "source", "image_size"}
    commands = re.findall(r"^(?:\./scripts/train_local|\.venv/bin/python -m trainer).*$", README, re.M)
    assert commands
    for command in commands:
        for flag in re.findall(r"--(\w+)", command.split("#")[0]):
            assert flag in known, flag
