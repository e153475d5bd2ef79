"""The file `dataset.json`, which describes the shards of a prepared data set."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from trainer.errors import DataError, MissingError, count_of, quote
from trainer.image_io import MAX_PIXELS, MAX_SIDE
from trainer.storage import Location, check_json, check_relative_name, check_sha256, documents, path_below, read_json
from trainer.storage.local import LocalLocation

FORMAT_VERSION = 1
SPEC_NAME = "dataset.json"
_REMEDY = "prepare the data set again"
_SHARD_FIELDS = {
    "file": documents.text(),
    "num_examples": documents.whole(),
    "num_bytes": documents.whole(),
    "sha256": documents.text(),
    "crc32c": documents.text(),
}
"""Checks of a shard. The form of names and hashes is checked later, with messages of its own."""
_SCHEMA = documents.record(
    {
        "name": documents.text(),
        "image_shape": documents.list_of(documents.whole(1, MAX_SIDE), length=3),
        "num_examples": documents.whole(),
        "class_names": documents.list_of(documents.text()),
        "class_counts": documents.list_of(documents.whole()),
        "shards": documents.list_of(documents.record(_SHARD_FIELDS)),
        "source": documents.text(),
        "license": documents.text(),
        "attribution": documents.text(),
        "options": documents.map_of(documents.anything),
    }
)
_MAX_PIXEL_BYTES_PER_BYTE = 1032
"""Largest compression ratio of deflate, and therefore of PNG."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One TFRecord file of a prepared data set."""

    file: str
    """Name of the file in the folder of the data set."""
    num_examples: int
    num_bytes: int
    sha256: str
    """SHA-256 of the file: 64 lowercase hexadecimal digits."""
    crc32c: str
    """CRC32C of the file in base64, as Cloud Storage reports it."""


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

    def to_json(self) -> str:
        """Returns the text of `dataset.json`. Equal specs have equal texts."""
        return json.dumps({"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}, indent=2) + "\n"


def fingerprint_of(shards: Iterable[Shard]) -> str:
    """Returns the SHA-256 of the SHA-256 digests of shards: 64 hexadecimal digits."""
    return hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()


def read_dataset_spec(folder: Location) -> DatasetSpec:
    """Reads and checks the `dataset.json` of a prepared data set.

    Args:
        folder: Folder of the data set.

    Raises:
        DataError: If the file is missing, is damaged, belongs to another program, has another format version,
            contradicts itself, or contains a shard name that leads out of `folder` or an invalid SHA-256.
        StorageError: If the file cannot be read.
    """
    path = folder / SPEC_NAME
    try:
        content = read_json(path, documents.record({}), remedy=_REMEDY, error=DataError)
    except MissingError as error:
        raise DataError(f"{path} does not exist; give the folder of a prepared data set.") from error
    if "format_version" not in content:
        raise DataError(
            f"{path} is not the description of a prepared data set: it has no format_version. If another program wrote "
            "it beside its images, prepare them: python -m trainer prepare --source=FOLDER --out=NEW_FOLDER."
        )
    if content["format_version"] != FORMAT_VERSION:
        is_newer = isinstance(content["format_version"], int) and content["format_version"] > FORMAT_VERSION
        raise DataError(
            f"{path} has format_version {quote(content['format_version'])}, expected {FORMAT_VERSION}; "
            f"{'a newer version of gan-trainer wrote it: update the package, or ' if is_newer else ''}prepare the data "
            "set again with this version."
        )
    check_json(content, path, _SCHEMA, remedy=_REMEDY, error=DataError)
    spec = _from_json(content)
    _check_consistency(spec, path)
    for shard in spec.shards:
        check_relative_name(shard.file, path, DataError)
        check_sha256(shard.sha256, path, DataError)
        if isinstance(folder, LocalLocation):
            path_below(folder.path, shard.file, path, DataError)
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
        shards=tuple(Shard(**{name: shard[name] for name in _SHARD_FIELDS}) for shard in content["shards"]),
        source=content["source"],
        license=content["license"],
        attribution=content["attribution"],
        options=content["options"],
    )


def _check_consistency(spec: DatasetSpec, path: Location) -> None:
    num_in_shards = sum(shard.num_examples for shard in spec.shards)
    num_in_classes = sum(spec.class_counts)
    if not spec.num_examples == num_in_shards == num_in_classes:
        raise DataError(
            f"{path} states {count_of(spec.num_examples, 'example')}, {num_in_shards} in its shards and "
            f"{num_in_classes} in its "
            "classes, expected three equal numbers; prepare the data set again."
        )
    if len(spec.class_names) != len(spec.class_counts):
        raise DataError(
            f"{path} has {count_of(len(spec.class_names), 'class name')} and "
            f"{count_of(len(spec.class_counts), 'class count')}, "
            "expected the same number of both; prepare the data set again."
        )
    if spec.image_shape[2] not in (1, 3, 4):
        raise DataError(
            f"{path} has image_shape {list(spec.image_shape)}, expected [height, width, 1, 3 or 4 channels]; "
            "prepare the data set again."
        )
    if math.prod(spec.image_shape[:2]) > MAX_PIXELS:
        raise DataError(
            f"{path} has image_shape {list(spec.image_shape)}, more than {MAX_PIXELS:,} pixels; prepare the data set "
            "again with a smaller --image_size."
        )
    for shard in spec.shards:
        if shard.num_examples * math.prod(spec.image_shape) > _MAX_PIXEL_BYTES_PER_BYTE * shard.num_bytes:
            raise DataError(
                f"{path} states {count_of(shard.num_examples, 'image')} of {list(spec.image_shape)} in "
                f"{count_of(shard.num_bytes, 'byte')} "
                f"of {quote(shard.file)}, more than PNG can compress; prepare the data set again."
            )
