"""Source for shards of a WebDataset: tar files in which the files of an example follow each other.

The files of an example have the same name up to the first dot: `0001.jpg`, `0001.cls`, `0001.json`.
"""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from trainer.data.field_names import LABEL_NAMES
from trainer.data.prepare.sources.archives import explain_tar_errors, read_tar
from trainer.data.prepare.sources.base import IMAGE_SUFFIXES, NO_LABELS, SourceOptions
from trainer.data.prepare.sources.fields import choose_field, describe_choice
from trainer.data.prepare.sources.listing import is_hidden, is_needed
from trainer.data.prepare.sources.records import MAX_RECORD_BYTES, Label, RecordSource
from trainer.errors import DataError, quote
from trainer.storage import documents, parse_json

_CLASS, _TEXT, _JSON = "cls", "txt", "json"
_MAX_TEXT_BYTES = 2**20
_MAX_DIGITS = 9
_NUM_INSPECTED = 100
"""Number of members of a tar file among which the first file of a class is searched."""


class _Example(NamedTuple):
    """Files of an example."""

    key: str
    """Name of its files up to the first dot."""
    origin: str
    """Name for messages."""
    files: dict[str, bytes]
    """Content of its files, by the part of their names after the first dot, in lower case."""


class WebdatasetSource(RecordSource):
    """Images of the examples in tar files.

    The label is the content of the file `cls`, a number or a name, or a field of the file `json`.

    Args:
        files: Local files, by name, in the order in which they are read.
        name: Name of the source, for messages.
        scratch: Local folder for the images.
        options: Options of the source. `image_field` is the end of the names of the images, such as `jpg`;
            `label_field` is `cls`, `txt`, or a field of `json`.
        notes: Sentences for the user.

    Raises:
        ConfigError: If several files or fields may contain the images or the labels.
        DataError: If a file is damaged, or an example has no image or no label.
        StorageError: If the disk is too small.
    """

    expected_content = "examples with an image"
    empty_remedy = "correct the name, or add examples"

    def __init__(
        self, files: Mapping[str, Path], name: str, scratch: Path, options: SourceOptions, notes: Sequence[str]
    ):
        examples = (example for file, path in files.items() for example in _read_examples(file, path, scratch))
        first = next(examples, None)
        if first is None:
            raise DataError(f"{name} has no examples with a file in a format of images; correct the name.")
        image_field = _choose_image_field(first, options, name)
        label_field = _choose_label_field(first, options, name)
        if label_field is None and options.label_field is None:
            if "/" in first.key:
                raise DataError(
                    f"{name} has the image {quote(first.key)} in a folder and without a label, which are not those of "
                    "a WebDataset; unpack the tar files, give one of them, or pass "
                    f"--label_field={NO_LABELS} for one class."
                )
            notes = [*notes, describe_choice(name, image_field or "the only image of each example", None)]
        records = (
            (_image(example, image_field), _label(example, label_field))
            for example in itertools.chain([first], examples)
        )
        self._store(records, None, scratch, name, notes)


def is_webdataset(path: Path, scratch: Path) -> bool:
    """Returns whether one of the first members of a tar file is the class of an example."""
    with explain_tar_errors(path, scratch), contextlib.closing(read_tar(path, is_needed)) as members:
        for _, (_, member) in zip(range(_NUM_INSPECTED), members, strict=False):
            if member.isfile() and _split_name(member.name)[1] == _CLASS and not is_hidden(member.name):
                return True
    return False


def _split_name(name: str) -> tuple[str, str]:
    """Returns the name of the example of a file, and the rest after the first dot, in lower case."""
    folder, _, file = name.removeprefix("./").rpartition("/")
    stem, _, ending = file.partition(".")
    return (f"{folder}/{stem}" if folder else stem), ending.lower()


def _is_image(ending: str) -> bool:
    return f".{ending}".endswith(IMAGE_SUFFIXES)


def _is_used(name: str) -> bool:
    ending = _split_name(name)[1]
    return not is_hidden(name) and (_is_image(ending) or ending in (_CLASS, _TEXT, _JSON))


def _read_examples(name: str, path: Path, scratch: Path) -> Iterator[_Example]:
    """Yields the examples of a tar file. `name` is its name for messages."""
    example = _Example("", "", {})
    with explain_tar_errors(path, scratch):
        for archive, member in read_tar(path, _is_used):
            if member.isdir() or not _is_used(member.name):
                continue
            key, ending = _split_name(member.name)
            if key != example.key:
                if example.files:
                    yield example
                example = _Example(key, f"{key} in {name}", {})
            limit = MAX_RECORD_BYTES if _is_image(ending) else _MAX_TEXT_BYTES
            if ending in example.files or member.size > limit:
                raise DataError(
                    f"{member.name} in {name} has {member.size:,} bytes, expected at most {limit:,}, and one such file "
                    "per example; correct the file."
                )
            example.files[ending] = cast(BinaryIO, archive.extractfile(member)).read()
    if example.files:
        yield example


def _choose_image_field(example: _Example, options: SourceOptions, name: str) -> str | None:
    """Returns the end of the names of the images; None if each example has one image, in whatever format."""
    fitting = [ending for ending in example.files if _is_image(ending)]
    if options.image_field is None and len(fitting) == 1:
        return None
    return choose_field("image_field", options.image_field, fitting, fitting, f"the examples of {name}")


def _choose_label_field(example: _Example, options: SourceOptions, name: str) -> str | None:
    if options.label_field == NO_LABELS:
        return None
    needs_fields = options.label_field not in (None, _CLASS, _TEXT) or _CLASS not in example.files
    fields = _fields(example) if needs_fields else {}
    known = [ending for ending in (_CLASS, _TEXT) if ending in example.files] + [*fields]
    fitting = [_CLASS] if _CLASS in example.files else [field for field in fields if field.lower() in LABEL_NAMES]
    return choose_field("label_field", options.label_field, known, fitting, f"the examples of {name}")


def _fields(example: _Example) -> Mapping[str, Any]:
    """Returns the fields of the file `json`; none if there is no such file."""
    fields: Mapping[str, Any] = parse_json(
        example.files.get(_JSON, b"{}"),
        f"the json of {example.origin}",
        documents.record({}),
        remedy="correct it",
        error=DataError,
    )
    return fields


def _image(example: _Example, image_field: str | None) -> bytes:
    images = [
        ending for ending in example.files if (_is_image(ending) if image_field is None else ending == image_field)
    ]
    if len(images) != 1:
        expected = "one image" if image_field is None else quote(image_field)
        raise DataError(
            f"{example.origin} has the files {', '.join(map(quote, example.files))}, expected {expected}; correct the "
            "example, or choose its image with --image_field=ENDING."
        )
    return example.files[images[0]]


def _label(example: _Example, label_field: str | None) -> Label:
    """Returns the label of an example: an integer if it consists of digits, else a text."""
    if label_field is None:
        return None
    value: Any
    if label_field in (_CLASS, _TEXT) and label_field in example.files:
        try:
            value = example.files[label_field].decode().strip()
        except UnicodeDecodeError as error:
            raise DataError(f"the {label_field} of {example.origin} is not a text in UTF-8; correct it.") from error
        if value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
            return int(value)
    else:
        value = _fields(example).get(label_field)
    if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
        raise DataError(
            f"{example.origin} has the label {quote(value)} in {quote(label_field)}, expected an integer or a text; "
            f"correct it, or pass --label_field={NO_LABELS} for one class."
        )
    return value
