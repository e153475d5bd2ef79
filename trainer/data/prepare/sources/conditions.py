"""Conditions of images from a CSV file: a column with the path of each image, and a column of numbers per condition."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from trainer.data.conditions import parse_vector, vector_text
from trainer.data.field_names import PATH_NAMES, find_name
from trainer.data.prepare.sources.base import SelectedSource, Source
from trainer.data.prepare.sources.tables import MAX_TABLE_BYTES, find_path, image_path, read_csv, with_composed
from trainer.errors import DataError, count_of, list_some, quote
from trainer.storage import documents, locate

_LARGEST = 10.0
"""Absolute value from which a note advises to scale a condition."""
_MAX_LISTED = 10
_BYTES_PER_VECTOR = 24
"""Bytes of a vector in `dataset.json` besides its text: spaces, quotes, and the number of its images."""
_MAX_BYTES = documents.MAX_DOCUMENT_BYTES - 2**20  # the shards take some


class ConditionedSource(SelectedSource):
    """The images of a source, with a class for each different vector of conditions.

    Args:
        source: Source of the images, whose own classes are not used.
        table: CSV file with the conditions, local or `gs://`.
        max_missing: Largest number of images without conditions to leave out.

    Attributes:
        condition_names: Names of the conditions.

    Raises:
        DataError: If the file is damaged, has no conditions, or has none or two for more images than allowed.
        StorageError: If the file cannot be read.
    """

    def __init__(self, source: Source, table: str, max_missing: int = 0):
        self.condition_names, rows = _read_rows(table)
        vectors = [_find(item.name, rows) for item in source.items]
        super().__init__(source, [index for index, vector in enumerate(vectors) if vector is not None])
        missing = [item.name for item, vector in zip(source.items, vectors, strict=True) if vector is None]
        self.notes = [*source.notes, *_describe_missing(missing, table, max_missing, has_any=bool(self._indices))]
        # Names have the precision of float32, and distinct classes have distinct names.
        values = np.array([vectors[index] for index in self._indices], np.float32)
        distinct, labels = np.unique(values, axis=0, return_inverse=True)
        self.class_names = tuple(map(vector_text, distinct))
        if sum(len(name) + _BYTES_PER_VECTOR for name in self.class_names) > _MAX_BYTES:
            raise DataError(
                f"{table} has {count_of(len(distinct), 'different vector')} of {len(self.condition_names)} conditions, "
                "which are too many to be stored; round the numbers, or use fewer conditions."
            )
        self.items = [
            dataclasses.replace(source.items[index], label=int(label))
            for index, label in zip(self._indices, labels.ravel(), strict=True)
        ]
        for name, low, high in zip(self.condition_names, values.min(axis=0), values.max(axis=0), strict=True):
            if low == high:
                self.notes.append(
                    f"The condition {quote(name)} is {low:g} for all images, so that nothing depends on it."
                )
            elif max(-low, high) > _LARGEST:
                self.notes.append(
                    f"The condition {quote(name)} ranges from {low:g} to {high:g}; scale it to about -1 to 1, because "
                    "large numbers disturb training."
                )


def _read_rows(table: str) -> tuple[tuple[str, ...], Mapping[str, tuple[float, ...]]]:
    """Returns the names of the conditions, and the vector of each path."""
    rows = read_csv(locate(table).read_bytes(max_bytes=MAX_TABLE_BYTES), table)
    _, columns = next(rows, (0, []))
    path_column = None if (name := find_name(PATH_NAMES, columns)) is None else columns.index(name)
    names = tuple(column for index, column in enumerate(columns) if index != path_column)
    if path_column is None or not names or "" in names or len(set(names)) < len(names):
        raise DataError(
            f"{table} has the columns {', '.join(map(quote, columns)) or '(none)'}, expected "
            f"{', '.join(PATH_NAMES[:-1])} or {PATH_NAMES[-1]}, and one column of numbers with its own name for each "
            "condition; correct its first line."
        )
    vectors: dict[str, tuple[float, ...]] = {}
    for line, row in rows:
        origin = f"line {line} of {table}"
        if len(row) != len(columns) or not row[path_column]:
            raise DataError(f"{origin} has {count_of(len(row), 'value')}, expected {len(columns)}; correct it.")
        path = image_path(row[path_column])
        numbers = [value for index, value in enumerate(row) if index != path_column]
        if path in vectors:
            raise DataError(f"{origin} has the second conditions of {quote(path)}; remove one of both lines.")
        vectors[path] = parse_vector(",".join(numbers), names, origin)
    return names, with_composed(vectors)


def _find(name: str, rows: Mapping[str, tuple[float, ...]]) -> tuple[float, ...] | None:
    """Returns the vector of an image by its path, or by the end of its path; None if there is none."""
    parts = name.split("/")
    vectors = (find_path("/".join(parts[start:]), rows) for start in range(len(parts)))
    return next((vector for vector in vectors if vector is not None), None)


def _describe_missing(missing: Sequence[str], table: str, max_missing: int, *, has_any: bool) -> list[str]:
    """Returns a sentence about images without conditions. Rejects too many of them."""
    if not missing:
        return []
    listed = list_some(map(quote, missing), _MAX_LISTED)
    text = f"{table} has no conditions of {count_of(len(missing), 'image')}: {listed}"
    if len(missing) > max_missing or not has_any:
        raise DataError(f"{text}. Add lines, remove images, or allow more than --max_bad_images={max_missing}.")
    return [f"{text}. They are left out."]
