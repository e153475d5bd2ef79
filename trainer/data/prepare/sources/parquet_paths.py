"""Source for images that Parquet files list by their paths."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.data.field_names import PATH_NAMES, find_name
from trainer.data.prepare.sources.base import SourceOptions
from trainer.data.prepare.sources.csv import ListedSource
from trainer.data.prepare.sources.fields import choose_field
from trainer.data.prepare.sources.parquet import (
    choose_label_column,
    class_columns_of,
    explain_parquet_errors,
    import_parquet,
)
from trainer.data.prepare.sources.tables import MAX_ROWS, MAX_TABLE_BYTES
from trainer.errors import DataError, quote
from trainer.storage import Location

_MAX_TEXT_BYTES = 2**16
_BATCH_SIZE = 2**16


class ParquetPathsSource(ListedSource):
    """Images whose paths are in a column of Parquet files, as in a CSV file.

    Args:
        files: Local files, by name, in the order in which they are read.
        name: Name of the source, for messages.
        folder: Folder that contains all images.
        options: Options of the source. `image_field` and `label_field` are names of columns.
        notes: Sentences for the user.

    Raises:
        ConfigError: If several columns may contain the paths or the labels.
        DataError: If pyarrow is not installed, a file is damaged or too large, an image is outside the folder, or
            an image has two classes.
        StorageError: If the sizes of the images cannot be read.
    """

    expected_content = "rows"
    empty_remedy = "add one row per image"

    def __init__(
        self, files: Mapping[str, Path], name: str, folder: Location, options: SourceOptions, notes: Sequence[str]
    ):
        pq = import_parquet(name)
        rows: list[tuple[int, str, str]] = []

        def describe(row: int) -> str:
            return f"row {row} of {name}"

        for file_name, path in files.items():
            with explain_parquet_errors(file_name):
                schema = pq.read_schema(path)
                class_columns = class_columns_of(schema.metadata or {})
                path_column = _choose_path_column(schema, options, file_name)
                label_column = choose_label_column(schema, class_columns, path_column, options, file_name)
                columns = [path_column, *([label_column] if label_column else [])]
                names = class_columns.get(label_column or "", [])
                for path_value, *labels in _read_rows(pq, path, columns, file_name, len(rows)):
                    label = _class_name(labels[0], names, describe(len(rows))) if labels else folder.name
                    rows.append((len(rows), _path(path_value, path_column, describe(len(rows))), label))
        self._set_items(rows, folder, describe)
        self.notes = notes


def _choose_path_column(schema: Any, options: SourceOptions, name: str) -> str:
    import pyarrow as pa

    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    fitting = [column for column in texts if find_name(PATH_NAMES, [column]) is not None]
    column = choose_field("image_field", options.image_field, texts, fitting, f"the columns of texts of {name}")
    if column is None:
        raise DataError(
            f"{name} has the columns {', '.join(quote(field.name) for field in schema)}, expected one of encoded "
            f"images (binary, or a struct with `bytes`), or of paths ({', '.join(PATH_NAMES)}); rename it, or choose "
            "it with --image_field."
        )
    return column


def _read_rows(pq: Any, path: Path, columns: Sequence[str], name: str, num_rows: int) -> Any:
    """Yields the values of some columns in each row of a file, after checking that they fit into memory."""
    import pyarrow as pa
    import pyarrow.compute as pc

    with pq.ParquetFile(path, read_dictionary=columns) as file:  # equal texts are not repeated in memory
        groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
        num_bytes = sum(group.total_byte_size for group in groups)
        if num_rows + file.metadata.num_rows > MAX_ROWS or num_bytes > MAX_TABLE_BYTES:
            raise DataError(
                f"{name} has {file.metadata.num_rows:,} rows with {num_bytes:,} bytes, more than {MAX_ROWS:,} in all, "
                f"or than {MAX_TABLE_BYTES:,} bytes; divide it."
            )
        for batch in file.iter_batches(_BATCH_SIZE, columns=list(columns)):
            arrays = [batch.column(column) for column in columns]
            for array in arrays:
                texts = array.dictionary if pa.types.is_dictionary(array.type) else None
                if texts is not None and (pc.max(pc.binary_length(texts)).as_py() or 0) > _MAX_TEXT_BYTES:
                    raise DataError(f"{name} has a text of more than {_MAX_TEXT_BYTES:,} bytes; correct it.")
            yield from zip(*(array.to_pylist() for array in arrays), strict=True)


def _path(value: Any, column: str, row: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{row} has {quote(value)} in {quote(column)}, expected the path of an image; correct it.")
    return value


def _class_name(value: Any, names: Sequence[str], row: str) -> str:
    """Returns the class of a label, which is a name or the number of one."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise DataError(f"{row} has the label {quote(value)}, expected an integer or a text; correct it.")
    if isinstance(value, int) and names:
        if not 0 <= value < len(names):
            raise DataError(f"{row} has the label {value}, expected 0 to {len(names) - 1}; correct it.")
        return names[value]
    return str(value)
