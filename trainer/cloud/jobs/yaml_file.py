"""Reads a YAML file: the one place that needs PyYAML."""

import os
from types import ModuleType
from typing import Any

from trainer.errors import ConfigError
from trainer.storage import locate


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The content of a YAML file, local or in a bucket.

    Raises:
        ConfigError: It is not YAML, has a key twice in one place, holds itself, or PyYAML is not installed.
        StorageError: It cannot be read.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{os.fspath(path)} cannot be read without PyYAML; run pip install 'gan-trainer[vertex]'."
        ) from error

    text = locate(path).read_bytes()
    try:
        _check_keys(yaml.compose(text, Loader=yaml.SafeLoader))
        return yaml.load(text, Loader=_loader(yaml))
    except yaml.YAMLError as error:
        raise ConfigError(f"{os.fspath(path)} is not YAML: {' '.join(str(error).split())}; correct it.") from error
    except RecursionError as error:
        raise ConfigError(
            f"{os.fspath(path)} is nested too deeply, or an alias in it stands for what holds it; write that out."
        ) from error
    except _RepeatedKey as repeated:
        raise ConfigError(f"{os.fspath(path)} {repeated}; keep one.") from repeated


def _loader(yaml: ModuleType) -> Any:
    """PyYAML's safe loader, which leaves as text what looks like a number or a moment and is none, as 2026-02-30."""

    kept: Any = type("Loader", (yaml.SafeLoader,), {})

    def add(tag: str) -> None:
        construct = yaml.SafeLoader.yaml_constructors[tag]

        def construct_or_keep(loader: Any, node: Any) -> Any:
            try:
                return construct(loader, node)
            except (ValueError, AttributeError, KeyError):
                return node.value

        kept.add_constructor(tag, construct_or_keep)

    for word in ("int", "float", "timestamp", "bool"):
        add(f"tag:yaml.org,2002:{word}")
    return kept


class _RepeatedKey(Exception):
    """A key that stands twice in one object, of which PyYAML would take the last and say nothing."""


def _check_keys(node: Any) -> None:
    """Refuses keys that are repeated anywhere under a node; a node's value is text, a list, or a list of pairs."""
    if node is None or isinstance(node.value, str):
        return
    if node.id == "sequence":
        for member in node.value:
            _check_keys(member)
        return
    seen: set[str] = set()
    for key, value in node.value:
        if str(key.value) in seen:
            raise _RepeatedKey(f"has the key {key.value} twice in one place, in line {key.start_mark.line + 1}")
        seen.add(str(key.value))
        _check_keys(value)
