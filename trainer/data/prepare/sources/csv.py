"""Source for images that a CSV file lists."""

import contextlib
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from trainer.data.field_names import LABEL_NAMES, PATH_NAMES, find_name, find_names
from trainer.data.prepare.sources.base import NO_LABELS, FilesSource, Item, SourceOptions, read_listing
from trainer.data.prepare.sources.fields import choose_field
from trainer.data.prepare.sources.listing import describe_classes
from trainer.data.prepare.sources.tables import (
    MAX_TABLE_BYTES,
    composed,
    find_path,
    image_path,
    read_csv,
    with_composed,
)
from trainer.errors import ConfigError, DataError, MissingError, quote
from trainer.storage import Location, check_relative_name, path_below
from trainer.storage.local import LocalLocation
from trainer.storage.natural_order import natural_sort_key


class ListedSource(FilesSource):
    """Base class of sources whose images a table lists. Their paths are relative to a folder and stay inside it.

    A subclass calls `_set_items` once, which sets everything else.
    """

    expected_content = "lines after the header"
    empty_remedy = "add one line per image"

    def _set_items(
        self, rows: Sequence[tuple[int, str, str]], folder: Location, describe: Callable[[int], str]
    ) -> None:
        """Sets the items and the class names.

        Args:
            rows: Number, path and class of each row.
            folder: Folder that contains all images.
            describe: Function that returns the name of a row for messages, from its number.

        Raises:
            DataError: If a path or a class is missing, an image is outside the folder, or an image has two classes.
            StorageError: If the sizes of the images cannot be read.
        """
        self._folder = folder
        for number, path, label in rows:
            if not path or not label:
                raise DataError(f"{describe(number)} has no {'label' if path else 'path'}; fill it in.")
        self.class_names = tuple(sorted(dict.fromkeys(label for _, _, label in rows), key=natural_sort_key))
        labels = {name: label for label, name in enumerate(self.class_names)}
        self.class_notes = describe_classes(self.class_names, len(rows))
        names = [_relative_name(path, folder, describe(row)) for row, path, _ in rows]
        names, self._sizes, self.content_digest = _find_files(folder, names)
        self.items = [Item(name, labels[label]) for name, (_, _, label) in zip(names, rows, strict=True)]
        label_of: dict[str, int] = {}
        for (row, _, label), item in zip(rows, self.items, strict=True):
            if (other := label_of.setdefault(item.name, item.label)) != item.label:
                raise DataError(
                    f"{describe(row)} has the class {quote(label)} for {quote(item.name)}, which has the class "
                    f"{quote(self.class_names[other])} before; keep one."
                )


class CsvSource(ListedSource):
    """Images that a CSV file with a header lists.

    The column `path`, or another one of `PATH_NAMES`, contains the paths of the images. The optional column `label`, or
    another one of `LABEL_NAMES`, contains their classes. Paths are relative to a folder and stay inside it. They may
    begin with the name of that folder, local or `gs://`.

    Args:
        table: CSV file.
        folder: Folder that contains all images.
        options: Options of the source. `image_field` and `label_field` are names of columns.

    Raises:
        DataError: If the file is not such a CSV file, or an image is outside the folder; the message includes the line.
        StorageError: If the file or the sizes of the images cannot be read, or the file is too large.
    """

    def __init__(self, table: Path, folder: Location, options: SourceOptions):
        self._set_items(_read_rows(table, options), folder, lambda line: f"line {line} of {table}")


def _find_files(folder: Location, names: Sequence[str]) -> tuple[list[str], np.ndarray, str]:
    """Finds files by their names, also if a table has another Unicode form of a name than the folder.

    Returns:
        The name of each file in the folder; its size in bytes, int64 [N], 0 if it does not exist, which is an error
        once it is read; and a digest of the content of all files as `read_listing` returns it.
    """
    if isinstance(folder, LocalLocation):
        files = [_find_file(folder, name) for name in names]
        content_digest = ""
    else:
        wanted = set(map(composed, names))
        entries = (entry for entry in folder.entries() if composed(entry.name) in wanted)
        sizes, content_digest = read_listing(entries, lambda name: True)
        listed_names = with_composed({name: name for name in sizes})
        files = [(listed, sizes[listed]) if (listed := find_path(name, listed_names)) else (name, 0) for name in names]
    return [name for name, _ in files], np.array([size for _, size in files], np.int64), content_digest


def _find_file(folder: Location, name: str) -> tuple[str, int]:
    """Returns the name and the size of a local file; size 0 if it does not exist."""
    for spelling in dict.fromkeys((name, composed(name), unicodedata.normalize("NFD", name))):
        with contextlib.suppress(MissingError):
            return spelling, (folder / spelling).num_bytes()
    return name, 0


def _read_rows(table: Path, options: SourceOptions) -> list[tuple[int, str, str]]:
    """Returns the line number, the path and the class of each row. Without a label column, all rows have one class."""
    rows = read_csv(LocalLocation(table).read_bytes(max_bytes=MAX_TABLE_BYTES), table)
    _, header = next(rows, (0, []))
    columns = {column: index for index, column in enumerate(header)}
    path_column = _choose_column(columns, "image_field", options.image_field, PATH_NAMES, table)
    if options.label_field is None:
        choose_field("label_field", None, columns, find_names(LABEL_NAMES, header), str(table))  # refuses several
    label_column = _choose_column(columns, "label_field", options.label_field, LABEL_NAMES, table)
    if path_column is None:
        received = quote(", ".join(columns)) if columns else "(none)"
        raise DataError(
            f"{table} has the columns {received}, expected {', '.join(PATH_NAMES[:-1])} or "
            f"{PATH_NAMES[-1]}, and optionally {', '.join(LABEL_NAMES)}, separated by commas, semicolons or tabs; "
            "correct its first line."
        )
    if header.count(name := header[path_column]) > 1:
        raise DataError(f"{table} has the column {quote(name)} of paths {header.count(name)} times; rename the others.")
    return [
        (line, _value(row, path_column), table.stem if label_column is None else _value(row, label_column))
        for line, row in rows
    ]


def _value(row: Sequence[str], column: int) -> str:
    """Returns a value of a row; an empty string if the row is too short."""
    return row[column] if column < len(row) else ""


def _choose_column(
    columns: Mapping[str, int], setting: str, wanted: str | None, usual: Sequence[str], table: Path
) -> int | None:
    """Returns the column that the user names, else the first of the usual ones; None if there is none."""
    if wanted == NO_LABELS:
        return None
    name = find_name(usual if wanted is None else [wanted], columns)
    if wanted is not None and name is None:
        listed = ", ".join(map(quote, columns)) or "(none)"
        raise ConfigError(f"{setting}={quote(wanted)} is not a column of {table}, which has {listed}; choose one.")
    return None if name is None else columns[name]


def _relative_name(name: str, folder: Location, origin: str) -> str:
    """Checks the path of an image and returns it relative to the folder, as `image_path` does."""
    name = image_path(name)
    if isinstance(folder, LocalLocation):
        name = name.removeprefix(f"{os.path.abspath(folder.path)}/")
        path_below(folder.path, name, origin, DataError)
        return name
    return check_relative_name(name.removeprefix(f"{folder}/"), origin, DataError)
