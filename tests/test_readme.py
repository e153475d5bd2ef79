"""Examples, commands, links, and names in README, CONTRIBUTING and docs work."""

import re
from pathlib import Path

import pytest
from shell_commands import check, commands
from test_layers import LAYERS

from trainer.config import recipes

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md")))
}
README, RECIPES, ARCHITECTURE = PAGES["README.md"], PAGES["docs/recipes.md"], PAGES["docs/architecture.md"]
SHOWN = dict.fromkeys(command for page, text in PAGES.items() if page != "docs/vertex.md" for command in commands(text))
REPLACED_TERMS = re.compile(
    r"\bwirings?\b|\bwindows? of\b|steps_per_window|data_windows|keep_checkpoints|\bslopes?\b|of one's own|of yours\b"
    r"|\bgoes on\b|\bgo on\b|--sheet\b|in_this_environment",
    re.IGNORECASE,
)
"""Words that the docs used for standard terms before. The vocabulary is in docs/architecture.md."""


def anchors(text):
    """Returns the anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_subclass_example_runs_as_printed_and_has_fifteen_lines(tmp_path, monkeypatch):
    example, use = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
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


@pytest.mark.parametrize("name", [name for name in recipes.names() if not recipes.takes_context(name)])
def test_every_recipe_is_in_the_table(name):
    assert f"| `{name}` |" in RECIPES


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page):
    paths = re.findall(r"`((?:trainer|scripts|docs|tests|benchmarks|examples)/[\w./]*)`", PAGES[page])
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        if path.startswith("https://"):
            continue
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("command", SHOWN)
def test_every_command_is_accepted_by_its_program(command, tmp_path):
    check(command, tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_docs_use_the_standard_terms(page):
    assert REPLACED_TERMS.findall(PAGES[page]) == []


def test_the_figure_of_the_layers_is_that_of_the_test():
    (figure,) = re.findall(r"```text\n(.*?)```", ARCHITECTURE, re.DOTALL)
    rows = [set(re.findall(r"[\w.]+", line.partition("│")[0])) for line in figure.splitlines()]
    assert rows == LAYERS


def test_every_module_named_in_the_architecture_has_its_functions():
    for name, file in re.findall(r"`(?:\w+\.)*(\w+)` in `(trainer/[\w/]+\.py)`", ARCHITECTURE):
        assert re.search(rf"\b(?:def|class) {name}\b|\b{name}\b *[:=]", (ROOT / file).read_text(encoding="utf-8")), name
