"""Source for Parquet files with a column of encoded images, such as those of Hugging Face."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.data.field_names import LABEL_NAMES
from trainer.data.prepare.sources.base import NO_LABELS, SourceOptions, explain_errors
from trainer.data.prepare.sources.fields import choose_field, describe_choice
from trainer.data.prepare.sources.records import MAX_RECORD_BYTES, Label, RecordSource
from trainer.errors import DataError, quote
from trainer.storage import documents, parse_json

_MAX_BATCH_SIZE = 256
_MAX_BATCH_BYTES = 2**26
_MIN_BYTES_PER_ROW = 16
_BYTES = "bytes"
_FEATURES = documents.record({"features": documents.optional(documents.map_of(documents.anything))})
_SCHEMA = documents.record({"info": documents.optional(_FEATURES)})
"""Description of the columns by Hugging Face."""


class ParquetSource(RecordSource):
    """Images in a column of Parquet files: bytes, or Hugging Face's struct of `bytes` and `path`.

    Class names come from Hugging Face's description of the columns, if the files have it.

    Args:
        files: Local files, by name, in the order in which they are read.
        name: Name of the source, for messages.
        scratch: Local folder for the images.
        options: Options of the source.
        notes: Sentences for the user.

    Raises:
        ConfigError: If several columns may contain the images or the labels.
        DataError: If pyarrow is not installed, or a file is damaged or has no images.
        StorageError: If the disk is too small.
    """

    def __init__(
        self, files: Mapping[str, Path], name: str, scratch: Path, options: SourceOptions, notes: Sequence[str]
    ):
        pq = import_parquet(name)
        with explain_parquet_errors(next(iter(files))):
            schema = pq.read_schema(next(iter(files.values())))
            class_columns = class_columns_of(schema.metadata or {})
            image_column = _choose_image_column(schema, options, name)
            label_column = choose_label_column(schema, class_columns, image_column, options, name)
        records = (
            record
            for file_name, path in files.items()
            for record in _read_records(path, file_name, schema, image_column, label_column)
        )
        if label_column is None and options.label_field is None:
            notes = [*notes, describe_choice(name, image_column, None)]
        self._store(records, class_columns.get(label_column or ""), scratch, name, notes)


def import_parquet(name: str) -> Any:
    """Returns the module of pyarrow that reads Parquet files. `name` is the source, for messages.

    Raises:
        DataError: If pyarrow is not installed.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(
            f"{name} needs pyarrow, which is not installed; run pip install 'gan-trainer[data]' or pip install pyarrow."
        ) from error
    return pq


def has_images(files: Mapping[str, Path], name: str) -> bool:
    """Returns whether the first of some Parquet files has a column of encoded images."""
    first_name, path = next(iter(files.items()))
    pq = import_parquet(name)
    with explain_parquet_errors(first_name):
        return any(_is_image_type(field.type) for field in pq.read_schema(path))


def class_columns_of(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Returns the class names of each column of classes, from Hugging Face's description of the columns."""
    content = metadata.get(b"huggingface", b"{}")
    remedy = "save the file again"
    value = parse_json(content, "the description of the columns", _SCHEMA, remedy=remedy, error=DataError)
    features = (value.get("info") or {}).get("features") or {}
    return {
        name: [str(class_name) for class_name in feature["names"]]
        for name, feature in features.items()
        if isinstance(feature, dict) and isinstance(feature.get("names"), list)
    }


def _choose_image_column(schema: Any, options: SourceOptions, name: str) -> str:
    fitting = [field.name for field in schema if _is_image_type(field.type)]
    column = choose_field("image_field", options.image_field, fitting, fitting, f"the columns of images of {name}")
    if column is None:
        raise DataError(
            f"{name} has the columns {', '.join(quote(field.name) for field in schema)}, expected one of encoded "
            "images (binary, or a struct with `bytes`), or of their paths; store the bytes of image files."
        )
    return column


def choose_label_column(
    schema: Any, class_columns: Mapping[str, object], image_column: str, options: SourceOptions, name: str
) -> str | None:
    """Returns the name of the column with the labels; None if there is none, or if the user wants no labels.

    Args:
        schema: Columns of the file.
        class_columns: Class names of the columns of classes, by column.
        image_column: Column with the images, or with their paths.
        options: Options of the source.
        name: Name of the source, for messages.

    Raises:
        ConfigError: If the user names no column of the file, or several columns may contain the labels.
    """
    columns = [field.name for field in schema if field.name != image_column]
    if options.label_field == NO_LABELS:
        return None
    fitting = [column for column in columns if column in class_columns]
    fitting = fitting or [column for column in columns if column.lower() in LABEL_NAMES]
    return choose_field("label_field", options.label_field, columns, fitting, name)


def _is_image_type(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(
            kind.field(index).name == _BYTES and _is_image_type(kind.field(index).type) for index in range(len(kind))
        )
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _read_records(
    path: Path, file_name: str, schema: Any, image_column: str, label_column: str | None
) -> Iterator[tuple[bytes, Label]]:
    """Yields the image and the label of each row of a file, in batches whose size depends on the size of the images."""
    import pyarrow.parquet as pq

    columns = [image_column] + ([label_column] if label_column else [])
    with explain_parquet_errors(file_name), pq.ParquetFile(path) as file:
        _check_columns(file.schema_arrow, schema, columns, file_name)
        if _MIN_BYTES_PER_ROW * file.metadata.num_rows > path.stat().st_size:
            raise DataError(
                f"{file_name} states {file.metadata.num_rows:,} rows, but has only {path.stat().st_size:,} bytes, too "
                "few for different images; check the file."
            )
        row = 0
        for group in range(file.num_row_groups):
            metadata = file.metadata.row_group(group)
            row_bytes = metadata.total_byte_size // max(1, metadata.num_rows)
            if row_bytes > MAX_RECORD_BYTES:
                raise DataError(f"{file_name} has images of more than {MAX_RECORD_BYTES:,} bytes; make them smaller.")
            batch_size = min(_MAX_BATCH_SIZE, max(1, _MAX_BATCH_BYTES // max(1, row_bytes)))
            for batch in file.iter_batches(batch_size, row_groups=[group], columns=columns):
                labels = batch.column(label_column) if label_column else [None] * len(batch)
                for image, label in zip(batch.column(image_column), labels, strict=True):
                    yield _as_record(image, label, label_column, f"row {row} of {file_name}")
                    row += 1


def _check_columns(received: Any, expected: Any, columns: Sequence[str], file_name: str) -> None:
    for column in columns:
        if column not in received.names or received.field(column).type != expected.field(column).type:
            raise DataError(
                f"{file_name} has no column {quote(column)} of the same type as the first file; give files of one "
                "dataset."
            )


def _as_record(image: Any, label: Any, label_column: str | None, name: str) -> tuple[bytes, Label]:
    content = image.as_py()
    content = content.get(_BYTES) if isinstance(content, dict) else content
    if not isinstance(content, bytes):
        raise DataError(f"{name} has no bytes of an image; store the images in the file, not only their paths.")
    if label_column is None:
        return content, None
    value = label.as_py()
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise DataError(
            f"{name} has the label {quote(value)} in {quote(label_column)}, expected an integer or a text; correct it, "
            f"or choose another column with --label_field."
        )
    return content, value


def explain_parquet_errors(name: str) -> contextlib.AbstractContextManager[None]:
    """Returns a context that converts any error of pyarrow to a DataError. `name` is the file, for messages."""
    return explain_errors(f"{name} is not a readable Parquet file", "copy or save it again")
