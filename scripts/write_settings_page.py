"""Writes the tables of docs/settings.md from the registries, signatures, and docstrings.

Run `python scripts/write_settings_page.py` after a change of a name, an option, or a docstring.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from trainer import GAN, augment, callbacks, losses, networks, penalties
from trainer.models import MODELS
from trainer.models.factory import model_options
from trainer.registry import is_from_package

PAGE = Path(__file__).parent.parent / "docs/settings.md"
BEGIN = "<!-- The part below this line is written by: python scripts/write_settings_page.py -->"
_HIDDEN = {"input_channels", "fingerprints", "remote", "mirrors", "reads_only", "lease"}
"""Arguments that follow from the data, and those that only the commands use."""
_IN_PYTHON = {
    "GAN": GAN,
    "GAN.compile": GAN.compile,
    "GAN.fit": GAN.fit,
    "callbacks.SampleGrid": callbacks.SampleGrid,
    "callbacks.Checkpoint": callbacks.Checkpoint,
    "callbacks.Evaluation": callbacks.Evaluation,
}
"""Classes and methods whose arguments the page lists."""


def render() -> str:
    """Returns the written part of the page."""
    models = {name: MODELS[name] for name in MODELS.names() if is_from_package(MODELS[name])}
    lines = ["## Models", "", "`--model=NAME`, or the class in Python.", ""]
    cells = [(f"`{name}`", f"`{model.__name__}`", _first_line(model)) for name, model in models.items()]
    lines += _table(("name", "class", "description"), cells)
    lines += ["", "Options, for `--model_options` as a JSON object, or arguments of the class:", ""]
    names_of: dict[tuple[str, ...], list[str]] = {}
    for name in models:
        for option in _model_options(name):
            names_of.setdefault(option, []).append(f"`{name}`")
    cells = [(", ".join(names), *option) for option, names in names_of.items()]
    lines += _table(("model", "option", "default", "meaning"), cells)
    for heading, flag, parts in (
        ("Losses", "loss", {name: type(losses.get(name)) for name in losses.names()}),
        ("Penalties", "penalties", {name: penalties.get(name) for name in penalties.names()}),
        ("Augmentations", "augment", {name: augment.get(name) for name in augment.names()}),
    ):
        lines += ["", f"## {heading}", "", f"`--{flag}=NAME`, or `compile({flag}=...)`.", ""]
        cells = [(f"`{name}`", _first_line(part)) for name, part in parts.items() if is_from_package(part)]
        lines += _table(("name", "description"), cells)
    lines += ["", "## Architectures", "", "`--architecture=NAME --architecture_options='{\"OPTION\": VALUE}'`, or"]
    lines += ["`trainer.networks.build` in Python. Defaults are JSON, where `null` is None."]
    for name in (name for name in networks.names() if not networks.is_custom(name)):
        lines += ["", f"### `{name}`", "", _first_line(networks.get(name)), ""]
        lines += _table(("option", "default", "meaning"), _architecture_options(name))
    lines += ["", "## Arguments in Python"]
    for name, part in _IN_PYTHON.items():
        lines += ["", f"### `{name}`", "", *_table(("argument", "default", "meaning"), _arguments(part))]
    return "\n".join(lines) + "\n"


def updated(text: str) -> str:
    """Returns a page with its written part as it should be."""
    before, mark, _ = text.partition(BEGIN)
    assert mark, f"{PAGE} has no line {BEGIN!r}"
    return f"{before}{BEGIN}\n\n{render()}"


def _model_options(name: str) -> list[tuple[str, str, str]]:
    """Returns the options of a model with their defaults and meanings; a class inherits those of its bases."""
    kind = MODELS[name]
    bases = [base for base in kind.__mro__[::-1] if issubclass(base, GAN)]
    defaults = {option: p.default for base in bases for option, p in inspect.signature(base).parameters.items()}
    return [_option(kind, option, defaults[option]) for option in model_options(name)]


def _architecture_options(name: str) -> list[tuple[str, str, str]]:
    options = networks.default_options(name).items()
    return [_option(networks.get(name), option, default) for option, default in options if option not in _HIDDEN]


def _option(part: Callable[..., Any], name: str, default: Any) -> tuple[str, str, str]:
    """Returns the cells of an option: name, default as JSON, as a flag takes it, and meaning."""
    return f"`{name}`", f"`{json.dumps(default)}`", _texts(part)[name]


def _arguments(part: Callable[..., Any]) -> list[tuple[str, str, str]]:
    """Returns all arguments with their defaults and meanings, as cells of a table."""
    return [
        (f"`{name}`", "–" if parameter.default is parameter.empty else f"`{parameter.default!r}`", _texts(part)[name])
        for name, parameter in inspect.signature(part).parameters.items()
        if name != "self" and parameter.kind is not parameter.VAR_KEYWORD and name not in _HIDDEN
    ]


def _texts(part: Callable[..., Any]) -> dict[str, str]:
    """Returns the descriptions in the sections `Args` of the docstrings of a function, or of a class and its bases."""
    texts = {}
    for documented in inspect.getmro(part)[::-1] if inspect.isclass(part) else [part]:
        text = f"{inspect.cleandoc(documented.__doc__ or '')}\n"
        section = re.search(r"^Args:\n((?:    .*\n|\n)*)", text, re.MULTILINE)
        entries = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", section[1] if section else "", re.MULTILINE)
        texts |= {name: " ".join(entry.split()) for name, entry in entries}
    return texts


def _first_line(part: Any) -> str:
    return (inspect.getdoc(part) or "").splitlines()[0]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in lines]


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
