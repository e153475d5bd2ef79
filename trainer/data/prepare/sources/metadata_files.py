"""Labels from files beside the images: StyleGAN's `dataset.json`, and `metadata.csv` and `metadata.jsonl`.

The last two are those of an `imagefolder` of Hugging Face. Paths in a file are relative to the folder of the file.
"""

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from trainer.data.dataset_spec import SPEC_NAME
from trainer.data.field_names import LABEL_NAMES, PATH_NAMES, find_name, find_names
from trainer.data.prepare.sources.fields import choose_field
from trainer.data.prepare.sources.tables import MAX_ROWS, MAX_TABLE_BYTES, image_path, read_csv, without_dot
from trainer.errors import DataError, quote
from trainer.storage import check_json, documents, parse_json

METADATA_NAMES = (SPEC_NAME, "metadata.csv", "metadata.jsonl")
"""Names of files with labels."""
MAX_JSON_BYTES = 2**26
"""Maximum size of a `dataset.json` in bytes, enough for a million images."""
MAX_LINE_BYTES = 2**20
"""Maximum size of a line of a `metadata.jsonl` in bytes."""
MAX_METADATA_BYTES = MAX_TABLE_BYTES
"""Maximum size of any file with labels in bytes."""
_REMEDY = "correct the file, or pass --label_field=none to ignore it"
_Pairs = list[tuple[str, str]]
"""Path and class of each image."""


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
        The class name by the name of the image without parts `.`, an empty dict if a file states that there are no
        labels, or None if no file has labels; and sentences about files that are not used.

    Raises:
        ConfigError: If a file has several columns of labels, and none is chosen.
        DataError: If a file is damaged, or two lines have other labels for an image.
    """
    labels: dict[str, str] = {}
    ends: dict[str, int] = {}
    notes, has_labels = [], False
    for name in names:
        folder = without_dot(name[: name.rfind("/") + 1])
        pairs = _read_pairs(name, read, label_field)
        if pairs is None:
            notes.append(f"{name} is not used, because it has no labels in a known form.")
            continue
        has_labels = True
        for path, label in pairs:
            key = f"{folder}{image_path(path)}"
            if labels.setdefault(key, label) != label:
                position = list(labels).index(key)
                first = next((other for other, end in ends.items() if position < end), name)
                origin = f"{name} has" if first == name else f"{first} and {name} have"
                raise DataError(f"{origin} two labels for {quote(path)}; keep one.")
        ends[name] = len(labels)
    return (labels if has_labels else None), notes


def _read_pairs(name: str, read: Callable[[str], bytes], label_field: str | None) -> _Pairs | None:
    """Returns the paths and the class names in a file; None if it has no labels in a known form."""
    try:
        content = read(name)
    except DataError as error:
        raise DataError(f"{name} {error}.") from error
    if name.endswith(SPEC_NAME):
        return _from_stylegan(content, name) if label_field is None else None
    rows = _csv_rows(content, name) if name.endswith(".csv") else _json_rows(content, name)
    return _from_rows(rows, name, label_field)


def _from_stylegan(content: bytes, name: str) -> _Pairs | None:
    """Returns the labels of `{"labels": [[PATH, NUMBER], …]}`, which is the format of StyleGAN's dataset tool."""
    _check_size(content, MAX_JSON_BYTES, name)
    value = parse_json(content, name, documents.anything, remedy=_REMEDY, error=DataError)
    if not isinstance(value, dict) or "labels" not in value:
        return None
    check_json(value, name, _STYLEGAN_SCHEMA, remedy=_REMEDY, error=DataError)
    return [(path, str(number)) for path, number in value["labels"] or ()]


def _check_pair(value: Any, path: str) -> None:
    """Accepts a path and a class number."""
    documents.list_of(documents.anything, length=2)(value, path)
    documents.text()(value[0], f"{path}[0]")
    documents.whole()(value[1], f"{path}[1]")


_STYLEGAN_SCHEMA = documents.record({"labels": documents.optional(documents.list_of(_check_pair))})


def _json_rows(content: bytes, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields the objects of a JSON Lines file with their line numbers."""
    for number, line in enumerate(io.BytesIO(content), 1):
        if line.strip():
            origin = f"line {number} of {name}"
            _check_size(line, MAX_LINE_BYTES, origin)
            yield number, parse_json(line, origin, documents.record({}), remedy=_REMEDY, error=DataError)


def _csv_rows(content: bytes, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields the rows of a CSV file by their columns, with their line numbers. A missing value is None."""
    rows = read_csv(content, name)
    _, header = next(rows, (0, []))
    labels = find_names(LABEL_NAMES, header)
    if len(set(labels)) < len(labels):
        raise DataError(f"{name} has a column of labels twice: {', '.join(map(quote, labels))}; rename one.")
    for number, row in rows:
        yield number, dict(itertools.zip_longest(header, row[: len(header)]))


def _check_size(content: bytes, max_bytes: int, name: str) -> None:
    if len(content) > max_bytes:
        raise DataError(f"{name} has {len(content):,} bytes, more than {max_bytes:,}; {_REMEDY}, or divide the images.")


def _from_rows(rows: Iterator[tuple[int, Mapping[str, Any]]], name: str, label_field: str | None) -> _Pairs | None:
    """Returns the paths and classes of rows with columns of both."""
    first = next(rows, None)
    columns = {} if first is None else first[1]
    path_column = find_name(PATH_NAMES, columns)
    if first is None or path_column is None:
        return None
    if label_field is not None and label_field not in columns:
        raise DataError(
            f"{name} has no column label_field={quote(label_field)}, but {', '.join(map(quote, columns))}; choose one."
        )
    usual = find_names(LABEL_NAMES, columns)
    column = choose_field("label_field", label_field, columns, usual, name)
    if column is None:
        return None
    pairs = []
    for number, row in itertools.islice(itertools.chain([first], rows), MAX_ROWS + 1):
        path, label = row.get(path_column), row.get(column)
        if not isinstance(path, str) or not isinstance(label, (str, int)) or not str(label).strip():
            raise DataError(
                f"{name} has {path_column}={quote(path)} and {column}={quote(label)} in line {number}, expected a "
                "path and a class; correct the line."
            )
        pairs.append((path, str(label).strip()))
    if len(pairs) > MAX_ROWS:
        raise DataError(f"{name} has more than {MAX_ROWS:,} lines; divide it.")
    return pairs
