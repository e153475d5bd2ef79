"""Labels from files beside the images: StyleGAN's `dataset.json`, and `metadata.csv` and `metadata.jsonl`.

The last two are those of an `imagefolder` of Hugging Face. Paths in a file are relative to the folder of the file.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from trainer.data.dataset_spec import SPEC_NAME
from trainer.errors import DataError, quote

METADATA_NAMES = (SPEC_NAME, "metadata.csv", "metadata.jsonl")
"""Names of files with labels."""
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "target", "y")
MAX_METADATA_BYTES = 2**26
"""Maximum size of a file with labels in bytes, enough for a million images."""
_FILE_COLUMN = "file_name"


def is_metadata(name: str) -> bool:
    """Returns whether a file may contain labels, by its name."""
    return name.rpartition("/")[2] in METADATA_NAMES


def read_labels(
    names: Iterable[str], read: Callable[[str], bytes], label_field: str | None
) -> tuple[dict[str, str] | None, list[str]]:
    """Reads the labels of images.

    Args:
        names: Names of the files with labels.
        read: Function that returns the content of such a file. The message of its DataError completes a sentence that
            begins with the name.
        label_field: Name of the column with the labels; None for a common name.

    Returns:
        The class name by the name of the image, an empty dict if a file states that there are no labels, or None if no
        file has labels; and sentences about files that are not used.

    Raises:
        DataError: If a file is damaged.
    """
    labels: dict[str, str] = {}
    notes, has_labels = [], False
    for name in names:
        folder = name[: len(name) - len(name.rpartition("/")[2])]
        pairs = _read_pairs(name, read, label_field)
        if pairs is None:
            notes.append(f"{name} is not used, because it has no labels in a known form.")
            continue
        has_labels = True
        for path, label in pairs:
            key = f"{folder}{path.replace(chr(92), '/').removeprefix('./')}"
            if labels.setdefault(key, label) != label:
                raise DataError(f"{name} has two labels for {quote(path)}; keep one.")
    return (labels if has_labels else None), notes


def _read_pairs(name: str, read: Callable[[str], bytes], label_field: str | None) -> list[tuple[str, str]] | None:
    """Returns the paths and the class names in a file; None if it has no labels in a known form."""
    try:
        content = read(name)
    except DataError as error:
        raise DataError(f"{name} {error}.") from error
    if len(content) > MAX_METADATA_BYTES:
        raise DataError(f"{name} has more than {MAX_METADATA_BYTES:,} bytes; delete it, or divide the images.")
    try:
        text = content.decode("utf-8-sig")
        if name.endswith(SPEC_NAME):
            return _from_stylegan(json.loads(text), name) if label_field is None else None
        rows = list(csv.DictReader(io.StringIO(text, ""))) if name.endswith(".csv") else list(_json_lines(text))
    except DataError:
        raise  # a DataError is a ValueError
    except (ValueError, csv.Error, RecursionError) as error:
        raise DataError(
            f"{name} cannot be read as {name.rpartition('.')[2].upper()} ({error}); correct or delete it."
        ) from error
    return _from_rows(rows, name, label_field)


def _from_stylegan(content: Any, name: str) -> list[tuple[str, str]] | None:
    """Returns the labels of `{"labels": [[PATH, NUMBER], …]}`, which is the format of StyleGAN's dataset tool."""
    if not isinstance(content, dict) or "labels" not in content:
        return None
    pairs = content["labels"]
    if pairs is None:
        return []
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str) or type(pair[1]) is not int:
            raise DataError(
                f"{name} has the label {quote(pair)}, expected [path, class number]; correct it, or set its labels to "
                "null."
            )
    return [(path, str(number)) for path, number in pairs]


def _json_lines(text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not an object")
            yield row


def _from_rows(rows: list[dict[str, Any]], name: str, label_field: str | None) -> list[tuple[str, str]] | None:
    """Returns the paths and classes of rows with the column `file_name`."""
    if not rows or not all(_FILE_COLUMN in row for row in rows):
        return None
    columns = [column for column in rows[0] if column is not None]
    if label_field is not None and label_field not in columns:
        raise DataError(
            f"{name} has no column label_field={quote(label_field)}, but {', '.join(map(quote, columns))}; choose one."
        )
    column = label_field or next((column for column in LABEL_COLUMNS if column in columns), None)
    if column is None:
        return None
    pairs = []
    for number, row in enumerate(rows, 1):
        path, label = row[_FILE_COLUMN], row.get(column)
        if not isinstance(path, str) or not isinstance(label, (str, int)) or not str(label).strip():
            raise DataError(
                f"{name} has {_FILE_COLUMN}={quote(path)} and {column}={quote(label)} in row {number}, expected a path "
                "and a class; correct the row."
            )
        pairs.append((path, str(label).strip()))
    return pairs
