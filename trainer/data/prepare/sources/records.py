"""Base class of sources for files of records with encoded images, which are copied to one local file in one pass."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from trainer.data.prepare.sources.base import Item, OneFileSource
from trainer.data.prepare.sources.fields import as_classes
from trainer.data.prepare.sources.listing import describe_classes
from trainer.errors import DataError, StorageError, quote
from trainer.storage.natural_order import natural_sort_key

MAX_RECORDS = 2_000_000
"""Maximum number of images. Their names and labels are in memory."""
MAX_RECORD_BYTES = 2**26
"""Maximum size of an encoded image in bytes. Files of records keep several images in memory."""
Label = int | str | None
"""Class number or class name of a record, or None if the source has no labels."""
_SIGNATURES = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*"),
    *(b"P2", b"P3", b"P5", b"P6"),
)


class RecordSource(OneFileSource):
    """Encoded images of records. A subclass calls `_store` once, which sets everything else."""

    expected_content = "one or more records"
    empty_remedy = "correct the name, or add records"

    def _store(
        self,
        records: Iterable[tuple[bytes, Label]],
        class_names: Sequence[str] | None,
        scratch: Path,
        name: str,
        notes: Sequence[str] = (),
    ) -> None:
        """Copies the images of all records to a file, and sets the items and the class names.

        Args:
            records: Content of the image file and label of each record.
            class_names: Names of the classes 0, 1, …, or None.
            scratch: Local folder.
            name: Name of the source, for messages.
            notes: Sentences for the user.
        """
        path = scratch / "members"
        digest = hashlib.sha256()
        labels: list[Label] = []
        self._ranges = {}
        try:
            with path.open("wb") as file:
                for content, label in records:
                    item = f"image {len(labels)} of {name}"
                    if len(content) > MAX_RECORD_BYTES or len(labels) >= MAX_RECORDS:
                        raise DataError(
                            f"{item} has {len(content):,} bytes, more than {MAX_RECORD_BYTES:,}, or is one of more "
                            f"than {MAX_RECORDS:,}; divide the source."
                        )
                    self._ranges[item] = file.tell(), len(content)
                    file.write(content)
                    digest.update(content)
                    labels.append(label)
        except OSError as error:
            raise StorageError(f"{name} cannot be copied to {scratch} ({error.strerror}); free space there.") from error
        numbers, self.class_names = _number_labels(labels, class_names, name)
        self.items = [Item(item, int(number)) for item, number in zip(self._ranges, numbers, strict=True)]
        self.notes, self.class_notes = notes, describe_classes(self.class_names, len(labels))
        self.content_digest = digest.hexdigest()
        self._file = path.open("rb")


def _number_labels(
    labels: Sequence[Label], class_names: Sequence[str] | None, name: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the class number of each image, int64 [N], and the class names. Without labels, there is one class."""
    kinds = {type(label) for label in labels}
    if len(kinds) > 1:
        index = next(index for index, label in enumerate(labels) if type(label) is not type(labels[0]))
        raise DataError(
            f"image {index} of {name} has the label {quote(labels[index])}, but image 0 has {quote(labels[0])}; give "
            "all labels as integers or all as texts."
        )
    if kinds == {str}:
        names = tuple(sorted(dict.fromkeys(map(str, labels)), key=natural_sort_key))
        numbers = {label: number for number, label in enumerate(names)}
        return np.array([numbers[str(label)] for label in labels], np.int64), names
    if kinds <= {type(None)}:
        return np.zeros(len(labels), np.int64), (name,)
    return as_classes(np.array(labels), len(labels), class_names, name)


def is_encoded_image(content: bytes) -> bool:
    """Returns whether bytes begin like an image file of a common format."""
    is_riff = content[:4] == b"RIFF" and content[8:12] == b"WEBP"
    is_avif = content[4:12] in (b"ftypavif", b"ftypavis")
    return content.startswith(_SIGNATURES) or is_riff or is_avif
