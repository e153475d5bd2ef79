"""Reads JSON documents from outside: with limits of size and depth, and checked against a schema.

A schema is a `Check`: a function that raises an error for a value that it does not accept. `record`, `list_of` and
`map_of` combine the checks of their members.
"""

import itertools
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import DocumentError, TrainerError, escape, quote
from trainer.storage.base import Location
from trainer.storage.local_files import open_regular

MAX_DOCUMENT_BYTES = 16 * 2**20
"""Maximum size of a document, and of one line of a JSON Lines file, in bytes."""
MAX_DEPTH = 64
"""Maximum number of lists and objects around a value."""

Check = Callable[[Any, str], None]
"""Function of a JSON value and of its path in the document, such as `shards[3].file`."""


_MAX_SHOWN_CHARACTERS = 80


class _Problem(Exception):
    """Rest of a sentence that begins with the name of the document."""


def read_json(
    file: Location, check: Check, *, remedy: str, error: type[TrainerError] = DocumentError, origin: object = None
) -> Any:
    """Returns the value in a JSON file. The arguments are those of `parse_json`.

    Raises:
        MissingError: If the file does not exist.
        StorageError: If the file cannot be read.
        DocumentError: If it is larger than `MAX_DOCUMENT_BYTES`.
        TrainerError: If the content is damaged; an exception of type `error`.
    """
    content = file.read_bytes(max_bytes=MAX_DOCUMENT_BYTES)
    return parse_json(content, file if origin is None else origin, check, remedy=remedy, error=error)


def parse_json(
    content: bytes | str,
    origin: object,
    check: Check,
    *,
    remedy: str,
    error: type[TrainerError] = DocumentError,
    allow_nan: bool = False,
) -> Any:
    """Returns the value of a JSON document.

    Args:
        content: Content of the document. Bytes must be UTF-8.
        origin: File or variable that contains the document, for the message.
        check: Schema.
        remedy: What the user can do, for the end of the message.
        error: Type of the exception to raise.
        allow_nan: Whether numbers may be NaN or infinite, which standard JSON does not have.

    Raises:
        TrainerError: If the document is not JSON, has a key twice or text that is not Unicode, is nested too deeply, or
            does not fit the schema; an exception of type `error`.
    """
    try:
        value = _parse(content, allow_nan)
    except _Problem as problem:
        raise error(f"{escape(origin)} {problem}; {remedy}.") from problem.__cause__
    check_json(value, origin, check, remedy=remedy, error=error)
    return value


def check_json(
    value: Any, origin: object, check: Check, *, remedy: str, error: type[TrainerError] = DocumentError
) -> None:
    """Checks a JSON value against a schema. The arguments and errors are those of `parse_json`."""
    try:
        check(value, "")
    except _Problem as problem:
        raise error(f"{escape(origin)} {problem}; {remedy}.") from None


def read_json_lines(path: Path, check: Check) -> tuple[list[dict[str, Any]], int]:
    """Reads a local file of JSON objects, one per line. Numbers may be NaN or infinite.

    Args:
        path: Path of the file.
        check: Schema of a line.

    Returns:
        The readable objects, and the number of other lines. A last line that a kill cut short does not count. Both are
        empty if the file does not exist.

    Raises:
        OSError: If the file cannot be read, or is not a regular file.
    """
    lines: list[dict[str, Any]] = []
    num_unreadable = 0
    if not os.path.lexists(path):
        return lines, num_unreadable
    with open_regular(path, "rb") as file:
        while content := file.readline(MAX_DOCUMENT_BYTES):
            try:
                value = _parse(content, allow_nan=True)
                record({})(value, "")
                check(value, "")
                lines.append(value)
            except _Problem:
                num_unreadable += not _is_cut_short(content)
    return lines, num_unreadable


def _is_cut_short(content: bytes) -> bool:
    """Returns whether an unreadable line looks like the beginning of an object."""
    is_last = not content.endswith(b"\n") and len(content) < MAX_DOCUMENT_BYTES
    return is_last and content.startswith(b"{") and b"\0" not in content


def anything(value: Any, path: str) -> None:
    """Accepts every value."""


def any_whole(value: Any, path: str) -> None:
    """Accepts whole numbers of any size."""
    _expect(isinstance(value, int) and not isinstance(value, bool), value, path, "a whole number")


def whole(minimum: int = 0, maximum: int = 2**63 - 1) -> Check:
    """Returns a check that accepts whole numbers in a range. A whole number has no decimal point."""

    def check(value: Any, path: str) -> None:
        is_whole = isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum
        _expect(is_whole, value, path, f"a whole number from {minimum} to {maximum}")

    return check


def number(value: Any, path: str) -> None:
    """Accepts numbers that a float can hold. Those of a document are finite."""
    is_whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    _expect(is_whole or isinstance(value, float), value, path, "a number")


def numeric(value: Any, path: str) -> None:
    """Accepts numbers, also as text, as the APIs of Google Cloud write them."""
    is_numeric = isinstance(value, str | int | float) and not isinstance(value, bool)
    try:
        float(value if is_numeric else "")
    except (ValueError, OverflowError):
        is_numeric = False
    _expect(is_numeric, value, path, "a number")


def text(pattern: str = "", expected: str = "text") -> Check:
    """Returns a check that accepts text.

    Args:
        pattern: Regular expression that the whole text must match. Empty: any text.
        expected: Description of the accepted text, for the message.
    """
    compiled = re.compile(pattern)

    def check(value: Any, path: str) -> None:
        is_text = isinstance(value, str) and (not pattern or compiled.fullmatch(value) is not None)
        _expect(is_text, value, path, expected)

    return check


@dataclass(frozen=True)
class optional:
    """A check that also accepts `null`, and in a `record` that the key is missing."""

    check: Check

    def __call__(self, value: Any, path: str) -> None:
        """Checks a value that is not `null`."""
        if value is not None:
            self.check(value, path)


def list_of(member: Check, *, length: int | None = None) -> Check:
    """Returns a check that accepts lists.

    Args:
        member: Check of each member.
        length: Number of members. None: any number.
    """

    def check(value: Any, path: str) -> None:
        is_list = isinstance(value, list) and length in (None, len(value))
        _expect(is_list, value, path, "a list" if length is None else f"a list of {length} values")
        for index, item in enumerate(value):
            member(item, f"{path}[{index}]")

    return check


def map_of(member: Check) -> Check:
    """Returns a check that accepts objects with any keys and the same check of each value."""

    def check(value: Any, path: str) -> None:
        _expect(isinstance(value, dict), value, path, "an object")
        for key, item in value.items():
            member(item, _join(path, key))

    return check


def record(fields: Mapping[str, Check]) -> Check:
    """Returns a check that accepts objects with these keys, and with other keys, whose values are not checked.

    Args:
        fields: Check of each value by its key. A key may be missing if its check is `optional`.
    """

    def check(value: Any, path: str) -> None:
        _expect(isinstance(value, dict), value, path, "an object")
        for key, check_field in fields.items():
            if key in value:
                check_field(value[key], _join(path, key))
            elif not isinstance(check_field, optional):
                raise _Problem(f"has no {_join(path, key)[-_MAX_SHOWN_CHARACTERS:]}")

    return check


def _expect(condition: bool, value: Any, path: str, expected: str) -> None:
    """Raises an error that names a value and its path unless a condition holds."""
    if not condition:
        shown = json.dumps(value)
        shown = shown if len(shown) <= _MAX_SHOWN_CHARACTERS else f"{shown[:_MAX_SHOWN_CHARACTERS]}…"
        raise _Problem(f"{f'has {path[-_MAX_SHOWN_CHARACTERS:]}=' if path else 'is '}{shown}, expected {expected}")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _parse(content: bytes | str, allow_nan: bool) -> Any:
    try:
        decoded = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        if not decoded.strip():
            raise _Problem("is empty")
        value = json.loads(decoded, object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        raise _Problem(f"is not UTF-8 text (byte {error.start})") from error
    except RecursionError as error:
        raise _Problem(f"is nested more than {MAX_DEPTH} levels deep") from error
    except json.JSONDecodeError as error:
        raise _Problem(f"is not JSON (line {error.lineno}, column {error.colno})") from error
    except ValueError as error:  # an integer of thousands of digits
        raise _Problem("has a number that is too long") from error
    _check_values(value, allow_nan)
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise _Problem(f"has the key {quote(key)} twice in one object")
        values[key] = value
    return values


def _check_values(value: Any, allow_nan: bool) -> None:
    """Checks depth, numbers and text, level by level, so that a deep document needs no recursion."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        for member in level:
            if isinstance(member, float) and not allow_nan and not math.isfinite(member):
                raise _Problem("has a number that is not finite")
            if isinstance(member, str) and not member.isascii() and re.search("[\ud800-\udfff]", member):
                raise _Problem(f"has text that is not Unicode ({quote(member)})")
        level = [child for member in level for child in _children(member)]
        if not level:
            return
    raise _Problem(f"is nested more than {MAX_DEPTH} levels deep")


def _children(value: Any) -> Iterable[Any]:
    """Returns the members of a list, or the keys and values of an object."""
    if isinstance(value, dict):
        return itertools.chain(value, value.values())
    return value if isinstance(value, list) else ()
