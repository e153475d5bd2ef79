"""What README and docs promise."""

import re
from pathlib import Path

import pytest
from shell_commands import check, commands

from trainer.config import recipes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
RECIPES = (ROOT / "docs/recipes.md").read_text()
DATA = (ROOT / "docs/data.md").read_text()
VERTEX = (ROOT / "docs/vertex.md").read_text()


def test_the_subclass_example_runs_as_printed_and_has_fifteen_lines(tmp_path, monkeypatch):
    example, use = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["gan"].step == 5000 // 64
    monkeypatch.chdir(tmp_path)
    exec(compile(use, "README.md", "exec"), names)
    assert names["gan"].step == 3 * (5000 // 64)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("generator.keras", "gan.weights.h5", "samples", "metrics.jsonl", "checkpoints")
    }


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_in_the_table(name):
    assert f"| `{name}` |" in RECIPES


@pytest.mark.parametrize(
    "text",
    [README, RECIPES, DATA, VERTEX, *((ROOT / f"docs/{name}.md").read_text() for name in ("architecture", "security"))],
    ids=["README", "recipes", "data", "vertex", "architecture", "security"],
)
def test_files_that_are_named_exist(text):
    paths = re.findall(r"`((?:trainer|scripts|docs|tests|benchmarks)/[\w./]+)`|\]\((docs/[\w./]+)\)", text)
    for path in {first or second for first, second in paths}:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("text", [RECIPES, DATA, VERTEX], ids=["recipes", "data", "vertex"])
def test_links_between_documents_lead_somewhere(text):
    for name, place in re.findall(r"\]\((\w+\.md)(?:#([\w-]+))?\)", text):
        headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / name).read_text(), re.M)
        assert not place or place in [heading.lower().replace(" ", "-") for heading in headings], (name, place)


@pytest.mark.parametrize("command", dict.fromkeys([*commands(README), *commands(RECIPES), *commands(DATA)]))
def test_every_command_is_one_that_its_program_takes(command, tmp_path):
    check(command, tmp_path)
