"""Reads CSV tables with bounded memory and time, whatever they contain."""

import csv
import io
import re
from collections.abc import Iterator

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
