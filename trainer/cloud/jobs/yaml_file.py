"""Reads and writes YAML. Only this module imports PyYAML."""

import os
import re
from types import ModuleType
from typing import Any

from trainer.errors import ConfigError, quote
from trainer.storage import read_named_file

_MAX_BYTES = 2**18
_MAX_VALUES = 10_000
_MAX_DEPTH = 64
_TOO_DEEP = f"is nested more than {_MAX_DEPTH} levels deep; write it with fewer levels"
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

    text = read_named_file(path, _MAX_BYTES)
    try:
        loader = _loader_class(yaml)(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(f"{os.fspath(path)} is not YAML: {' '.join(str(error).split())}; correct it.") from error
    except (ValueError, OverflowError) as error:  # an escape sequence of no character, such as "\UFFFFFFFF"
        raise ConfigError(f"{os.fspath(path)} has a value that is not Unicode text ({error}); correct it.") from error
    except RecursionError as error:
        raise ConfigError(f"{os.fspath(path)} {_TOO_DEEP}.") from error
    except _StructureError as error:
        raise ConfigError(f"{os.fspath(path)} {error}.") from error


def to_yaml(content: Any) -> str:
    """Returns a JSON value as YAML without aliases. PyYAML is installed, because it has read the file."""
    import yaml

    dumper_class: Any = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda self, data: True})
    return yaml.dump(content, Dumper=dumper_class, sort_keys=False, allow_unicode=True, width=120)


def _loader_class(yaml: ModuleType) -> Any:
    """Returns PyYAML's safe loader, changed so that a malformed number or date stays text."""
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

    return loader_class


class _StructureError(Exception):
    """Raised for a file that is YAML but is rejected. The message is the rest of a sentence about the file."""


def _measure(node: Any, sizes: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Returns the number of values in a node and its number of levels, as if every alias were written out.

    Args:
        node: Node of PyYAML. Its value is text, a list of nodes, or a list of pairs of nodes. An alias is the node that
            it refers to.
        sizes: Results by the identity of the node. None: the node is being measured.
    """
    if id(node) in sizes:
        size = sizes[id(node)]
        if size is None:
            raise _StructureError("has an alias that contains itself; write the aliased value out")
        return size
    sizes[id(node)] = None
    if node.id == "mapping":
        children = [child for pair in node.value for child in pair]
    else:
        children = node.value if node.id == "sequence" else []
    child_sizes = [_measure(child, sizes) for child in children]
    num_values = 1 + sum(num_values for num_values, _ in child_sizes)
    num_levels = 1 + max((num_levels for _, num_levels in child_sizes), default=0)
    if num_levels > _MAX_DEPTH:
        raise _StructureError(_TOO_DEEP)
    if num_values > _MAX_VALUES:
        raise _StructureError(f"has more than {_MAX_VALUES:,} values, aliases included; remove some")
    _check_node(node)  # whose messages have written out keys
    sizes[id(node)] = num_values, num_levels
    return num_values, num_levels


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
