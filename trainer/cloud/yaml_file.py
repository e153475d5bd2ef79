"""Reads a YAML file: the one place that needs PyYAML."""

import os
from typing import Any

from trainer.errors import ConfigError
from trainer.storage import locate


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The content of a YAML file, local or in a bucket.

    Raises:
        ConfigError: It is not YAML, has a key twice in one place, or PyYAML is not installed.
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
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{os.fspath(path)} is not YAML: {' '.join(str(error).split())}; correct it.") from error
    except _RepeatedKey as repeated:
        raise ConfigError(f"{os.fspath(path)} {repeated}; keep one.") from repeated


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
