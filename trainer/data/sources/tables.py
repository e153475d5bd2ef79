"""Images that a CSV names, with the class of each."""

import csv
from pathlib import Path

from trainer.data.sources.base import FilesSource, Item, natural_order
from trainer.errors import DataError
from trainer.storage import Location, locate

_PATHS = ("path", "file", "filename", "image")
_LABELS = ("label", "class", "class_name")


class CsvSource(FilesSource):
    """The images in the column `path` (or `file`, `filename`, `image`) of a CSV with a header, and their classes in
    `label` (or `class`, `class_name`), where there is such a column.

    A path is relative to the CSV, or absolute, or begins with `gs://`.

    Args:
        table: The CSV.
        folder: What paths are relative to.

    Raises:
        DataError: It is not such a file; the message names the line.
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
        self.items = [Item(path, labels[label]) for _, path, label in found]

    def _location(self, index: int) -> Location:
        name = self.items[index].name
        return locate(name) if name.startswith(("gs://", "/")) else self._folder / name
