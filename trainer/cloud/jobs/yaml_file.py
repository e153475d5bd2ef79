"""Reads YAML files. Only this module imports PyYAML."""

import os
import re
from types import ModuleType
from typing import Any

from trainer.errors import ConfigError, quote
from trainer.storage import locate

_MAX_BYTES = 2**18
_MAX_VALUES = 10_000
_MAX_DEPTH = 64
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Returns the content of a YAML file, local or in a bucket.

    Raises:
        ConfigError: If the file is not YAML, has a duplicate key, contains itself, has too many values with every alias
            written out, is nested too deeply, or PyYAML is not installed.
        StorageError: If the file cannot be read, or is too large.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ConfigError(f"reading {os.fspath(path)} needs PyYAML; run pip install 'gan-trainer[vertex]'.") from error

    text = locate(path).read_bytes(_MAX_BYTES)
    try:
        return yaml.load(text, Loader=_loader(yaml))
    except yaml.YAMLError as error:
        raise ConfigError(f"{os.fspath(path)} is not YAML: {' '.join(str(error).split())}; correct it.") from error
    except (ValueError, OverflowError) as error:  # an escape sequence of no character, such as "\UFFFFFFFF"
        raise ConfigError(f"{os.fspath(path)} has a value that is not Unicode text ({error}); correct it.") from error
    except _StructureError as error:
        raise ConfigError(f"{os.fspath(path)} {error}.") from error


def _loader(yaml: ModuleType) -> Any:
    """Returns PyYAML's safe loader with limits, changed so that a malformed number or date stays text."""
    loader_class: Any = type("Loader", (yaml.SafeLoader,), {})

    def tolerate(tag: str) -> None:
        construct = yaml.SafeLoader.yaml_constructors[tag]

        def construct_or_keep_text(loader: Any, node: Any) -> Any:
            try:
                return construct(loader, node)
            except (ValueError, AttributeError, LookupError, OverflowError):  # such as 2026-02-30
                return node.value

        loader_class.add_constructor(tag, construct_or_keep_text)

    for name in ("int", "float", "timestamp", "bool"):
        tolerate(f"tag:yaml.org,2002:{name}")

    limits = _Limits()

    def compose_node(loader: Any, parent: Any, index: Any) -> Any:
        is_alias = loader.check_event(yaml.AliasEvent)
        limits.enter()
        node = yaml.SafeLoader.compose_node(loader, parent, index)
        limits.leave(node, is_alias)
        return node

    loader_class.compose_node = compose_node
    return loader_class


class _StructureError(Exception):
    """Raised for a file that is YAML but is rejected. The message is the rest of a sentence about the file."""


class _Limits:
    """Counts the values and levels of a document while it is composed, as if every alias were written out."""

    def __init__(self) -> None:
        self._num_values = 0
        self._open: list[tuple[int, int]] = []
        """Number of values before each node that is not complete, and levels below it."""
        self._sizes: dict[int, tuple[int, int]] = {}
        """Number of values in each complete node, and levels below it, by the identity of the node."""

    def enter(self) -> None:
        """Begins a node."""
        self._open.append((self._num_values, 0))
        self._check(0)

    def leave(self, node: Any, is_alias: bool) -> None:
        """Ends a node.

        Args:
            node: Node of PyYAML. Its value is text, a list of nodes, or a list of pairs of nodes.
            is_alias: Whether the node is an alias of an earlier one.
        """
        num_before, depth = self._open.pop()
        if is_alias:
            if id(node) not in self._sizes:
                raise _StructureError("has an alias that contains itself; write the aliased value out")
            size, depth = self._sizes[id(node)]
            self._num_values = num_before + size
        else:
            _check_node(node)
            self._num_values += 1
            self._sizes[id(node)] = self._num_values - num_before, depth
        if self._open:
            self._open[-1] = (self._open[-1][0], max(self._open[-1][1], depth + 1))
        self._check(depth)

    def _check(self, depth: int) -> None:
        if len(self._open) + depth > _MAX_DEPTH:
            raise _StructureError(f"is nested more than {_MAX_DEPTH} levels deep; write it with fewer levels")
        if self._num_values > _MAX_VALUES:
            raise _StructureError(f"has more than {_MAX_VALUES:,} values, aliases included; remove some")


def _check_node(node: Any) -> None:
    """Rejects text that no process accepts, and duplicate keys, of which PyYAML would silently use the last one."""
    if node.id == "scalar" and _NOT_TEXT.search(node.value):
        raise _StructureError(f"has the value {quote(node.value)}, which is not Unicode text; correct it")
    keys: set[str] = set()
    for key, _ in node.value if node.id == "mapping" else ():
        if str(key.value) in keys:
            raise _StructureError(
                f"has the key {quote(str(key.value))} twice in one object, at line {key.start_mark.line + 1}; keep one"
            )
        keys.add(str(key.value))
