"""Reads CSV tables with bounded memory and time, whatever they contain."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import TypeVar

from trainer.errors import DataError

MAX_TABLE_BYTES = 2**28
"""Maximum size of a table in bytes."""
MAX_ROWS = 2_000_000
"""Maximum number of rows. The names and labels of their images are in memory."""
MAX_COLUMNS = 1000
"""Maximum number of values in a row."""
_SEPARATORS = ",;\t"
_MAX_SEARCHED_CHARACTERS = 2**16
_MAX_LINE_CHARACTERS = 2**20
_Value = TypeVar("_Value")


def read_csv(content: bytes, name: object) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of a CSV table with their line numbers, first the header. Empty lines are left out.

    Values are separated by the one of `,`, `;` and tab that divides the header into the most columns. Spaces around
    values are removed.

    Args:
        content: Content of the file, in UTF-8.
        name: Name of the file, for messages.

    Raises:
        DataError: If the content is not a CSV table in UTF-8, or exceeds a limit.
    """
    try:
        header = next(filter(str.strip, _lines(content, name)), "")
        rows = csv.reader(_lines(content, name), delimiter=_separator(header[:_MAX_SEARCHED_CHARACTERS]))
        for count, row in enumerate(filter(None, rows)):
            if count > MAX_ROWS or len(row) > MAX_COLUMNS:
                raise DataError(
                    f"{name} has more than {MAX_ROWS:,} rows, or {len(row):,} columns in line {rows.line_num} of "
                    f"{MAX_COLUMNS:,} allowed ones; divide it."
                )
            yield rows.line_num, [value.strip() for value in row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name} is not a CSV table in UTF-8 ({error}); save it in this format.") from error


def image_path(value: str) -> str:
    r"""Returns the path of an image in a table with `/` as separator, for `a\b.png` too, without `./` at its start."""
    return without_dot(value.replace("\\", "/"))


def without_dot(path: str) -> str:
    """Returns a path without `./` at its start, which names in an archive of `tar cf x.tar .` have."""
    return re.sub(r"^(\./+)+", "", path)


def composed(path: str) -> str:
    """Returns a path in Unicode's form NFC. On macOS, names of files may have the form NFD, which looks the same."""
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def with_composed(values: Mapping[str, _Value]) -> dict[str, _Value]:
    """Returns the values by their paths, and also by the composed paths that differ from all of these."""
    return {composed(path): value for path, value in values.items() if not path.isascii()} | dict(values)


def find_path(path: str, values: Mapping[str, _Value]) -> _Value | None:
    """Returns the value of a path in a result of `with_composed`, in whichever form both are; None if it has none."""
    return values[path] if path in values else values.get(composed(path))


def _separator(header: str) -> str:
    """Returns the separator of a table by its first line."""
    return max(_SEPARATORS, key=lambda separator: len(next(csv.reader([header], delimiter=separator), [])))


def _lines(content: bytes, name: object) -> Iterator[str]:
    """Yields lines of limited length: a row is in memory as a list of its values."""
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    while line := text.readline(_MAX_LINE_CHARACTERS):
        if len(line) == _MAX_LINE_CHARACTERS:
            raise DataError(f"{name} has a line of more than {_MAX_LINE_CHARACTERS:,} characters; shorten it.")
        yield line
