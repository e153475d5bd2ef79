"""Reads YAML files. Only this module imports PyYAML."""

import os
from types import ModuleType
from typing import Any

from trainer.errors import ConfigError
from trainer.storage import locate


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Returns the content of a YAML file, local or in a bucket.

    Raises:
        ConfigError: If the file is not YAML, has a duplicate key, contains itself, or PyYAML is not installed.
        StorageError: If the file cannot be read.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ConfigError(f"reading {os.fspath(path)} needs PyYAML; run pip install 'gan-trainer[vertex]'.") from error

    text = locate(path).read_bytes()
    try:
        _check_keys(yaml.compose(text, Loader=yaml.SafeLoader))
        return yaml.load(text, Loader=_loader(yaml))
    except yaml.YAMLError as error:
        raise ConfigError(f"{os.fspath(path)} is not YAML: {' '.join(str(error).split())}; correct it.") from error
    except RecursionError as error:
        raise ConfigError(
            f"{os.fspath(path)} is nested too deeply or has an alias that contains itself; write the aliased value out."
        ) from error
    except _DuplicateKeyError as error:
        raise ConfigError(f"{os.fspath(path)} {error}; keep one.") from error


def _loader(yaml: ModuleType) -> Any:
    """Returns PyYAML's safe loader, changed so that a malformed number or date, such as 2026-02-30, stays text."""
    loader_class: Any = type("Loader", (yaml.SafeLoader,), {})

    def tolerate(tag: str) -> None:
        construct = yaml.SafeLoader.yaml_constructors[tag]

        def construct_or_keep_text(loader: Any, node: Any) -> Any:
            try:
                return construct(loader, node)
            except (ValueError, AttributeError, KeyError):
                return node.value

        loader_class.add_constructor(tag, construct_or_keep_text)

    for name in ("int", "float", "timestamp", "bool"):
        tolerate(f"tag:yaml.org,2002:{name}")
    return loader_class


class _DuplicateKeyError(Exception):
    """Raised for a key that occurs twice in one object. PyYAML would silently use the last one."""


def _check_keys(node: Any) -> None:
    """Rejects duplicate keys in a node and its descendants. A node's value is text, a list, or a list of pairs."""
    if node is None or isinstance(node.value, str):
        return
    if node.id == "sequence":
        for member in node.value:
            _check_keys(member)
        return
    seen: set[str] = set()
    for key, value in node.value:
        if str(key.value) in seen:
            raise _DuplicateKeyError(f"has the key {key.value} twice in one object, at line {key.start_mark.line + 1}")
        seen.add(str(key.value))
        _check_keys(value)
