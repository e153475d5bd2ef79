"""The file `dataset.json`, which describes the shards of a prepared dataset."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from trainer.data.conditions import vectors_of
from trainer.data.image_encodings import ENCODINGS, PNG
from trainer.errors import DataError, MissingError, count_of, quote
from trainer.image_io import MAX_PIXELS, MAX_SIDE
from trainer.storage import Location, check_json, check_relative_name, check_sha256, documents, paths_below, read_json
from trainer.storage.local import LocalLocation

FORMAT_VERSION = 2
_PNG_FORMAT_VERSION = 1
"""Format version of datasets of PNGs, which versions of the package without other encodings can also read."""
SPEC_NAME = "dataset.json"
_REMEDY = "prepare the dataset again"
SHARD_FIELDS = {
    "file": documents.text(),
    "num_examples": documents.whole(),
    "num_bytes": documents.whole(),
    "sha256": documents.text(),
    "crc32c": documents.text(),
}
"""Checks of a shard, which may be empty. The form of names and hashes is checked later, with messages of its own."""
_SCHEMA = documents.record(
    {
        "name": documents.text(),
        "image_shape": documents.list_of(documents.whole(1, MAX_SIDE), length=3),
        "input_channels": documents.optional(documents.whole(0, 4)),
        "condition_names": documents.optional(documents.list_of(documents.text())),
        "encoding": documents.optional(documents.text("|".join(ENCODINGS), f"one of {', '.join(ENCODINGS)}")),
        "num_examples": documents.whole(),
        "class_names": documents.list_of(documents.text()),
        "class_counts": documents.list_of(documents.whole()),
        "shards": documents.list_of(documents.record(SHARD_FIELDS | {"num_examples": documents.whole(1)})),
        "source": documents.text(),
        "license": documents.text(),
        "attribution": documents.text(),
        "options": documents.map_of(documents.anything),
        "conversion": documents.optional(documents.text()),
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One TFRecord file of a prepared dataset."""

    file: str
    """Name of the file in the folder of the dataset."""
    num_examples: int
    """Number of records. A dataset has no shard without records."""
    num_bytes: int
    sha256: str
    """SHA-256 of the file: 64 lowercase hexadecimal digits."""
    crc32c: str
    """CRC32C of the file in base64, as Cloud Storage reports it."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Shard":
        """Returns the shard in a document that fits `SHARD_FIELDS`."""
        return cls(**{name: content[name] for name in SHARD_FIELDS})


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Content of `dataset.json`."""

    name: str
    image_shape: tuple[int, int, int]
    """Height, width and channels of every image in pixels; 1 (gray), 3 (RGB) or 4 (RGBA) channels."""
    num_examples: int
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    """Number of examples of each class, in the order of `class_names`."""
    shards: tuple[Shard, ...]
    source: str
    license: str
    attribution: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options with which the images were selected and resized."""
    input_channels: int = 0
    """Number of channels of the input of each pair, 1, 3 or 4; 0 if the images have no inputs."""
    condition_names: tuple[str, ...] = ()
    """Names of the conditions, if each class is a vector of conditions as `trainer.data.conditions` describes it."""
    encoding: str = PNG
    """Encoding of the images and the inputs in the records: a key of `image_encodings.ENCODINGS`."""
    conversion: str = ""
    """Fingerprint of the conversion that made the shards. Empty: another command or an earlier version made them."""

    @property
    def array_shape(self) -> tuple[int, int, int]:
        """Shape of an example in arrays: height, width, and the channels of the input followed by the image's."""
        height, width, channels = self.image_shape
        return height, width, self.input_channels + channels

    def to_json(self) -> str:
        """Returns the text of `dataset.json`. Equal specs have equal texts."""
        fields = dataclasses.asdict(self)
        for name in ("input_channels", "condition_names", "conversion"):
            if not fields[name]:  # as earlier versions wrote it
                del fields[name]
        if self.encoding == PNG:
            del fields["encoding"]
        return json.dumps({"format_version": _format_version(self.encoding), **fields}, indent=2) + "\n"


def fingerprint_of(shards: Iterable[Shard]) -> str:
    """Returns the SHA-256 of the SHA-256 digests of shards: 64 hexadecimal digits."""
    return hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()


def read_dataset_spec(folder: Location) -> DatasetSpec:
    """Reads and checks the `dataset.json` of a prepared dataset.

    Args:
        folder: Folder of the dataset.

    Raises:
        DataError: If the file is missing, is damaged, belongs to another program, has another format version,
            contradicts itself, or contains a shard name that leads out of `folder` or an invalid SHA-256.
        StorageError: If the file cannot be read.
    """
    path = folder / SPEC_NAME
    try:
        content = read_json(path, documents.record({}), remedy=_REMEDY, error=DataError)
    except MissingError as error:
        raise DataError(f"{path} does not exist; give the folder of a prepared dataset.") from error
    if "format_version" not in content:
        raise DataError(
            f"{path} is not the description of a prepared dataset: it has no format_version. If another program wrote "
            "it beside its images, prepare them: python -m trainer prepare --source=FOLDER --out=NEW_FOLDER."
        )
    if content["format_version"] not in (_PNG_FORMAT_VERSION, FORMAT_VERSION):
        is_newer = isinstance(content["format_version"], int) and content["format_version"] > FORMAT_VERSION
        raise DataError(
            f"{path} has format_version {quote(content['format_version'])}, expected {_PNG_FORMAT_VERSION} or "
            f"{FORMAT_VERSION}; "
            f"{'a newer version of gan-trainer wrote it: update the package, or ' if is_newer else ''}prepare the "
            "dataset again with this version."
        )
    check_json(content, path, _SCHEMA, remedy=_REMEDY, error=DataError)
    spec = _from_json(content)
    if content["format_version"] != _format_version(spec.encoding):
        raise DataError(
            f"{path} has format_version {content['format_version']} and encoding {spec.encoding}, expected version "
            f"{_format_version(spec.encoding)} for this encoding; prepare the dataset again."
        )
    _check_consistency(spec, path)
    for shard in spec.shards:
        check_relative_name(shard.file, path, DataError)
        check_sha256(shard.sha256, path, DataError)
    if isinstance(folder, LocalLocation):
        paths_below(folder.path, [shard.file for shard in spec.shards], path, DataError)
    return spec


def _from_json(content: dict[str, Any]) -> DatasetSpec:
    """Returns the spec in a document that fits the schema."""
    height, width, channels = content["image_shape"]
    return DatasetSpec(
        name=content["name"],
        image_shape=(height, width, channels),
        num_examples=content["num_examples"],
        class_names=tuple(content["class_names"]),
        class_counts=tuple(content["class_counts"]),
        shards=tuple(map(Shard.from_json, content["shards"])),
        source=content["source"],
        license=content["license"],
        attribution=content["attribution"],
        options=content["options"],
        input_channels=content.get("input_channels") or 0,
        condition_names=tuple(content.get("condition_names") or ()),
        encoding=content.get("encoding") or PNG,
        conversion=content.get("conversion") or "",
    )


def _format_version(encoding: str) -> int:
    return _PNG_FORMAT_VERSION if encoding == PNG else FORMAT_VERSION


def _check_consistency(spec: DatasetSpec, path: Location) -> None:
    num_in_shards = sum(shard.num_examples for shard in spec.shards)
    num_in_classes = sum(spec.class_counts)
    if not spec.num_examples == num_in_shards == num_in_classes:
        raise DataError(
            f"{path} states {count_of(spec.num_examples, 'example')}, {num_in_shards} in its shards and "
            f"{num_in_classes} in its "
            "classes, expected three equal numbers; prepare the dataset again."
        )
    if len(spec.class_names) != len(spec.class_counts):
        raise DataError(
            f"{path} has {count_of(len(spec.class_names), 'class name')} and "
            f"{count_of(len(spec.class_counts), 'class count')}, "
            "expected the same number of both; prepare the dataset again."
        )
    if spec.image_shape[2] not in (1, 3, 4):
        raise DataError(
            f"{path} has image_shape {list(spec.image_shape)}, expected [height, width, 1, 3 or 4 channels]; "
            "prepare the dataset again."
        )
    if spec.condition_names:
        vectors_of(spec.class_names, spec.condition_names, f"class_names of {path}")
    if spec.input_channels not in (0, 1, 3, 4):
        raise DataError(
            f"{path} has input_channels {spec.input_channels}, expected 1, 3 or 4; prepare the dataset again."
        )
    if math.prod(spec.image_shape[:2]) > MAX_PIXELS:
        raise DataError(
            f"{path} has image_shape {list(spec.image_shape)}, more than {MAX_PIXELS:,} pixels; prepare the dataset "
            "again with a smaller --image_size."
        )
    _check_encoding(spec, path)


def _check_encoding(spec: DatasetSpec, path: Location) -> None:
    """Checks that images of the stated shape and number can have the encoding, and fit into the shards."""
    encoding = ENCODINGS[spec.encoding]
    height, width, channels = spec.image_shape
    if {channels, spec.input_channels or channels} - {*encoding.channels} or max(height, width) > encoding.max_side:
        raise DataError(
            f"{path} has encoding {spec.encoding}, image_shape {list(spec.image_shape)} and input_channels "
            f"{spec.input_channels}, which no {spec.encoding} has; prepare the dataset again."
        )
    for shard in spec.shards:
        if shard.num_examples * math.prod(spec.array_shape) > encoding.max_pixel_bytes_per_byte * shard.num_bytes:
            raise DataError(
                f"{path} states {count_of(shard.num_examples, 'image')} of {list(spec.image_shape)} in "
                f"{count_of(shard.num_bytes, 'byte')} "
                f"of {quote(shard.file)}, more than {spec.encoding} can compress; prepare the dataset again."
            )
