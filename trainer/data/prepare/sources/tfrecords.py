"""Source for TFRecord files of `tf.train.Example` with encoded images."""

import gzip
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.data.field_names import LABEL_NAMES
from trainer.data.prepare.sources.base import NO_LABELS, SourceOptions
from trainer.data.prepare.sources.fields import choose_field, describe_choice
from trainer.data.prepare.sources.records import MAX_RECORD_BYTES, Label, RecordSource, is_encoded_image
from trainer.data.record_files import split_records
from trainer.errors import DataError, quote

_NUMBER_FEATURE = "image/class/label"
_TEXT_FEATURE = "image/class/text"
"""Feature with the class name of the number in the other one."""
Features = Mapping[str, Any]
"""Value of each feature that has exactly one: bytes, int or float."""


class TfrecordSource(RecordSource):
    """Images in a feature of examples, such as `image/encoded`.

    Args:
        files: Local files, by name, in the order in which they are read.
        name: Name of the source, for messages.
        scratch: Local folder for the images.
        options: Options of the source.
        notes: Sentences for the user.

    Raises:
        ConfigError: If several features may contain the images or the labels.
        DataError: If a file is damaged or has no encoded images.
        StorageError: If the disk is too small.
    """

    def __init__(
        self, files: Mapping[str, Path], name: str, scratch: Path, options: SourceOptions, notes: Sequence[str]
    ):
        examples = ((file_name, index, features) for file_name in files for index, features in _read(files, file_name))
        first = next(examples, None)
        fields = None if first is None else _choose_features(first[2], options, name)
        notes = list(notes)
        if fields is not None and fields[1] is None and options.label_field is None:
            notes.append(describe_choice(name, fields[0], None))

        texts: dict[Label, set[str]] = {}

        def records() -> Iterator[tuple[bytes, Label]]:
            if first is None or fields is None:
                return
            for file_name, index, features in itertools.chain([first], examples):
                content, label = _as_record(file_name, index, features, fields[0], fields[1])
                if isinstance(text := features.get(_TEXT_FEATURE), bytes) and fields[1] == _NUMBER_FEATURE:
                    texts.setdefault(label, set()).add(_decode(text, _TEXT_FEATURE, index, file_name))
                yield content, label

        self._store(records(), None, scratch, name, notes)
        names = {str(label): next(iter(spellings)) for label, spellings in texts.items() if len(spellings) == 1}
        if set(names) == set(self.class_names) and len(set(names.values())) == len(names):
            self.class_names = tuple(names[number] for number in self.class_names)


def _read(files: Mapping[str, Path], file_name: str) -> Iterator[tuple[int, Features]]:
    """Yields the number and the features of each record of a file."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    for index, record in enumerate(_read_records(files[file_name], file_name)):
        try:
            features = tf.train.Example.FromString(record).features.feature
        except DecodeError as error:
            raise DataError(
                f"record {index} of {file_name} is not a tf.train.Example; give TFRecord files of images."
            ) from error
        yield (
            index,
            {name: value for name, feature in features.items() if (value := _single_value(feature)) is not None},
        )


def _single_value(feature: Any) -> bytes | int | float | None:
    kind = feature.WhichOneof("kind")
    values: Any = getattr(feature, kind).value if kind else ()
    return values[0] if len(values) == 1 else None


def _read_records(path: Path, file_name: str) -> Iterator[bytes]:
    """Yields the records of a TFRecord file. Lengths and checksums are verified before content is used."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if is_gzip else path.open("rb") as file:
            yield from split_records(file, MAX_RECORD_BYTES)
    except DataError as error:
        raise DataError(f"{file_name} {error}, or is not a TFRecord file; copy it again.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file_name} is not a complete gzip file ({error}); copy it again.") from error


def _choose_features(features: Features, options: SourceOptions, name: str) -> tuple[str, str | None]:
    """Returns the names of the features with the images and with the labels, from the first record."""
    fitting = [key for key, value in features.items() if isinstance(value, bytes) and is_encoded_image(value)]
    images = choose_field("image_field", options.image_field, features, fitting, name)
    if images is None:
        raise DataError(
            f"{name} has the features {', '.join(map(quote, features)) or '(none)'}, expected one with the bytes of an "
            "image file, such as image/encoded; store encoded images."
        )
    if options.label_field == NO_LABELS:
        return images, None
    usual = [key for key in (_NUMBER_FEATURE, *LABEL_NAMES) if key in features][:1]
    return images, choose_field("label_field", options.label_field, features, usual, name)


def _as_record(
    file_name: str, index: int, features: Features, image_feature: str, label_feature: str | None
) -> tuple[bytes, Label]:
    content = features.get(image_feature)
    if not isinstance(content, bytes):
        raise DataError(f"record {index} of {file_name} has no image in {quote(image_feature)}; correct it.")
    if label_feature is None:
        return content, None
    label = features.get(label_feature)
    if not isinstance(label, (int, bytes)):
        raise DataError(
            f"record {index} of {file_name} has the label {quote(label)} in {quote(label_feature)}, expected an "
            f"integer or a text; correct it, or pass --label_field={NO_LABELS}."
        )
    return content, _decode(label, label_feature, index, file_name) if isinstance(label, bytes) else label


def _decode(text: bytes, feature: str, index: int, file_name: str) -> str:
    """Returns a text of a record. Texts that are not UTF-8 are rejected: replaced letters could make them equal."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"record {index} of {file_name} has the text {quote(text)} in {quote(feature)}, which is not UTF-8; save "
            f"it in UTF-8, or pass --label_field={NO_LABELS}."
        ) from error
