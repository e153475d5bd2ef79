"""Examples, commands, links, and names in README, CONTRIBUTING and docs work."""

import re
import runpy
from pathlib import Path

import pytest
from shell_commands import check, commands
from test_layers import LAYERS

import trainer
from trainer import models
from trainer.config import recipes

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md")))
}
README, RECIPES, ARCHITECTURE = PAGES["README.md"], PAGES["docs/recipes.md"], PAGES["docs/architecture.md"]
SHOWN = dict.fromkeys(command for page, text in PAGES.items() if page != "docs/vertex.md" for command in commands(text))


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
        *("grid.png", "generator.keras", "gan.weights.h5", "samples", "metrics.jsonl", "checkpoints")
    }


def test_the_example_of_the_keras_page_runs_as_printed_with_the_class_in_readme(tmp_path, monkeypatch):
    imports_and_class = README.partition("```python\n")[2].partition("\n\n\ngan = ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", PAGES["docs/keras.md"], re.DOTALL)
    assert "epochs=10" in example
    names: dict[str, object] = {}
    exec(compile(imports_and_class, "README.md", "exec"), names)
    names = {"MyGAN": names["MyGAN"]}  # the example has its own imports
    monkeypatch.chdir(tmp_path)
    exec(compile(example.replace("epochs=10", "steps=2"), "keras.md", "exec"), names)
    assert names["gan"].step == 2 and {path.name for path in tmp_path.iterdir()} == {"samples", "checkpoints"}


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_in_the_table(name):
    assert f"| `{name}` |" in RECIPES


def test_the_recipe_with_a_context_runs_as_printed_and_keeps_its_reason():
    (example,) = re.findall(r"```python\n(# my_photos.py\n.*?)```", RECIPES, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, "my_photos.py", "exec"), names)
    for settings in ({}, {"generator_learning_rate": 1e-3}):
        context = recipes.RecipeContext(image_shape=(32, 32, 3), num_images=1000, settings=settings)
        config = names["hinge_photos"](context).override(**settings)
        assert config.loss == "hinge" and config.discriminator_learning_rate == 2 * config.generator_learning_rate
        assert "twice" in context.reasons["discriminator_learning_rate"]


def test_the_settings_page_is_what_its_script_writes():
    script = runpy.run_path(str(ROOT / "scripts/write_settings_page.py"))
    assert script["updated"](PAGES["docs/settings.md"]) == PAGES["docs/settings.md"]


def test_every_model_can_be_imported_from_the_package():
    for name in models.MODELS.names():
        kind = models.MODELS[name]
        if kind.__module__.startswith("trainer."):
            assert getattr(trainer, kind.__name__) is kind and kind.__name__ in trainer.__all__


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


def test_the_figure_of_the_layers_is_that_of_the_test():
    (figure,) = re.findall(r"```text\n(.*?)```", ARCHITECTURE, re.DOTALL)
    rows = [set(re.findall(r"[\w.]+", line.partition("│")[0])) for line in figure.splitlines()]
    assert rows == LAYERS


def test_every_module_named_in_the_architecture_has_its_functions():
    for name, file in re.findall(r"`(?:\w+\.)*(\w+)` in `(trainer/[\w/]+\.py)`", ARCHITECTURE):
        assert re.search(rf"\b(?:def|class) {name}\b|\b{name}\b *[:=]", (ROOT / file).read_text(encoding="utf-8")), name
