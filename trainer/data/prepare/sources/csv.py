"""Images that a CSV names, with the class of each."""

import csv
import os
from pathlib import Path

from trainer.data.prepare.sources.base import FilesSource, Item, natural_order
from trainer.errors import DataError
from trainer.storage import Location, check_relative_name, path_below
from trainer.storage.local import LocalLocation

_PATHS = ("path", "file", "filename", "image")
_LABELS = ("label", "class", "class_name")


class CsvSource(FilesSource):
    """The images in the column `path` (or `file`, `filename`, `image`) of a CSV with a header, and their classes in
    `label` (or `class`, `class_name`), where there is such a column.

    A path is relative to a folder and lies below it. It may begin with the folder's own name, local or `gs://`.

    Args:
        table: The CSV.
        folder: Folder that all images lie in.

    Raises:
        DataError: It is not such a file, or an image lies outside of the folder; the message names the line.
    """

    looked_for = "looked for lines below the header."

    def __init__(self, table: Path, folder: Location):
        self._folder = folder
        try:
            with table.open(newline="", encoding="utf-8-sig") as file:
                rows = csv.DictReader(file)
                columns = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
                path_column = next((columns[name] for name in _PATHS if name in columns), None)
                label_column = next((columns[name] for name in _LABELS if name in columns), None)
                if path_column is None:
                    raise DataError(
                        f"{table} has the columns {', '.join(columns) or '(none)'}; its first line must name "
                        f"{', '.join(_PATHS[:-1])} or {_PATHS[-1]}, and may name {', '.join(_LABELS)}."
                    )
                found = [
                    (rows.line_num, row[path_column], row[label_column] if label_column else table.stem) for row in rows
                ]
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{table} is not a CSV in UTF-8 ({error}); save it as one.") from error
        for line, path, label in found:
            if not path or not label:
                raise DataError(f"line {line} of {table} has no {'label' if path else 'path'}; fill it in.")
        self.class_names = tuple(sorted({label for _, _, label in found}, key=natural_order))
        labels = {name: label for label, name in enumerate(self.class_names)}
        self.items = [
            Item(_checked(path, folder, f"line {line} of {table}"), labels[label]) for line, path, label in found
        ]

    def _location(self, index: int) -> Location:
        return self._folder / self.items[index].name


def _checked(name: str, folder: Location, where: str) -> str:
    """The name of an image below a folder, without `./` or the folder's own name at its beginning."""
    if isinstance(folder, LocalLocation):
        name = name.removeprefix(f"{os.path.abspath(folder.path)}/").removeprefix("./")
        path_below(folder.path, name, where, DataError)
        return name
    return check_relative_name(name.removeprefix(f"{folder}/").removeprefix("./"), where, DataError)
