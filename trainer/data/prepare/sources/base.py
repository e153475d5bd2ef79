"""Base classes of sources, and functions for the names of their images."""

import abc
import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from trainer.data.prepare.contents import MAX_FILE_BYTES
from trainer.data.prepare.decoding import FORMATS
from trainer.errors import DataError, MissingError, TrainerError
from trainer.storage import Location, StorageEntry
from trainer.storage.local import LocalLocation

IMAGE_SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""Suffixes of image files, in upper or lower case."""
_BLOCK_BYTES = 2**20


NO_LABELS = "none"
"""Value of `SourceOptions.label_field` that puts all images into one class."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Choices between several readings of a source. A source rejects the ones that do not apply to it.

    Attributes:
        image_root: Folder, local or `gs://`, with all images of a .csv file. None: the folder of the .csv file.
        split: Names of splits to read, such as `train`. Empty: `train` if the source has several splits.
        image_field: Name of the array, column or feature that contains the images. None: the only possible one.
        label_field: Name of the array, column or feature that contains the labels, or `NO_LABELS`. None: the only
            possible one, or the folders of the images.
        image_range: Range of the pixels of an array, one of `ImageRange`. None: the only possible one.
    """

    image_root: str | None = None
    split: tuple[str, ...] = ()
    image_field: str | None = None
    label_field: str | None = None
    image_range: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """An image of a source, before it is read.

    Attributes:
        name: Name of the image for messages.
        label: Index of its class.
    """

    name: str
    label: int


class Source(abc.ABC):
    """A list of images that several threads can read in any order. Close it after use.

    Attributes:
        items: Images in the order of the source.
        class_names: Class names by label.
        notes: Sentences about files that are skipped and about content that looks like a mistake.
        class_notes: Sentences about classes that look like a mistake.
        condition_names: Names of the conditions, if each class is a vector of conditions.
        has_files: Whether `read` returns the bytes of files, which `copy` can write.
        content_digest: Digest of the content of all images. Empty: only reading every image can give it.
        expected_content: Description of the expected content, for the message if there are no items.
        empty_remedy: Advice for the same message.
    """

    items: Sequence[Item]
    class_names: tuple[str, ...]
    notes: Sequence[str] = ()
    class_notes: Sequence[str] = ()
    condition_names: tuple[str, ...] = ()
    has_files = False
    content_digest: str = ""
    expected_content = f"files that end in {', '.join(IMAGE_SUFFIXES)}"
    empty_remedy = "correct the name, or add images"

    @abc.abstractmethod
    def read(self, index: int) -> bytes | np.ndarray:
        """Returns the bytes of the file of an item, or its pixels: uint8 [H, W, C] in [0, 255].

        Raises:
            DataError: If the item is missing or damaged. The message completes a sentence that begins with the item's
                name.
            StorageError: If a bucket cannot be read.
        """

    def path(self, index: int) -> Path | None:
        """Returns the local file of an item, so that a decoding process can read it; None if there is no such file."""
        return None

    def num_bytes(self, index: int) -> int:
        """Returns the size in bytes of what `read` returns, or an upper bound; 0 if it is known to be small."""
        return 0

    def copy(self, index: int, target: Path) -> None:
        """Writes the file of an item to a local file, with little memory.

        Raises:
            DataError, StorageError: As `read`.
        """
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027 (most sources have no open files)
        """Closes open files."""


class SelectedSource(Source):
    """Base class of sources whose items are those of another source, or some of them.

    Args:
        source: The other source.
        indices: Indices of the items in the other source.
    """

    def __init__(self, source: Source, indices: Sequence[int]):
        self._source, self._indices = source, indices
        self.has_files, self.content_digest = source.has_files, source.content_digest

    def read(self, index: int) -> bytes | np.ndarray:
        return self._source.read(self._indices[index])

    def path(self, index: int) -> Path | None:
        return self._source.path(self._indices[index])

    def num_bytes(self, index: int) -> int:
        return self._source.num_bytes(self._indices[index])

    def copy(self, index: int, target: Path) -> None:
        self._source.copy(self._indices[index], target)


class OneFileSource(Source):
    """Base class of sources whose items are ranges of one local file.

    A subclass opens `_file` and sets `_ranges` to the offset and size of each item, by name.
    """

    has_files = True
    _file: BinaryIO
    _ranges: dict[str, tuple[int, int]]

    def read(self, index: int) -> bytes:
        return self._read(self.items[index].name)

    def _read(self, name: str) -> bytes:
        offset, size = self._ranges[name]
        content = os.pread(self._file.fileno(), size, offset)
        if len(content) < size:
            raise DataError("is truncated; copy the file again")
        return content

    def num_bytes(self, index: int) -> int:
        return self._ranges[self.items[index].name][1]

    def copy(self, index: int, target: Path) -> None:
        offset, size = self._ranges[self.items[index].name]
        with target.open("wb") as file:
            while size and (block := os.pread(self._file.fileno(), min(size, _BLOCK_BYTES), offset)):
                file.write(block)
                offset, size = offset + len(block), size - len(block)
        if size:
            raise DataError("is truncated; copy the file again")

    def close(self) -> None:
        self._file.close()


class FilesSource(Source):
    """Base class of sources whose items are separate files, local or in a bucket.

    A subclass sets `_folder`, which contains the file of each item by the name of the item, and `_sizes`, int64 [N],
    the size of each file in bytes.
    """

    has_files = True
    _folder: Location
    _sizes: np.ndarray

    def path(self, index: int) -> Path | None:
        location = self._location(index)
        return location.path if isinstance(location, LocalLocation) else None

    def num_bytes(self, index: int) -> int:
        return int(self._sizes[index])

    def read(self, index: int) -> bytes:
        return read_file(self._location(index), self.num_bytes(index), MAX_FILE_BYTES)

    def copy(self, index: int, target: Path) -> None:
        location = self._location(index)
        with _explain_missing():
            location.parent.download({location.name: target})

    def _location(self, index: int) -> Location:
        return self._folder / self.items[index].name


def read_listing(entries: Iterable[StorageEntry], is_used: Callable[[str], bool]) -> tuple[dict[str, int], str]:
    """Returns the size in bytes of each file by its name, and a digest of the content of those that are used.

    Args:
        entries: Files of a folder, sorted by name.
        is_used: Function that returns whether the content of a file is used, by its name.

    Returns:
        The sizes; and the SHA-256 of the checksums that Cloud Storage lists, or an empty string if it lists none for a
        file, as for local ones.
    """
    sizes: dict[str, int] = {}
    digest, has_checksums = hashlib.sha256(), True
    for entry in entries:
        sizes[entry.name] = entry.num_bytes
        if is_used(entry.name):
            has_checksums = has_checksums and bool(entry.crc32c)
            digest.update(f"{entry.crc32c} {entry.name}\0".encode(errors="surrogateescape"))
    return sizes, digest.hexdigest() if has_checksums else ""


def read_file(location: Location, num_bytes: int, max_bytes: int) -> bytes:
    """Returns the content of a file, local or in a bucket.

    Args:
        location: File.
        num_bytes: Size of the file in bytes when it was listed.
        max_bytes: Maximum size of the file in bytes.

    Raises:
        DataError: If the file does not exist any more, or is too large. The message completes a sentence that begins
            with its name.
        StorageError: If the file cannot be read, which is not a problem of the file.
    """
    if num_bytes > max_bytes:
        raise DataError(f"has {num_bytes:,} bytes, more than the allowed {max_bytes:,}; make it smaller")
    with _explain_missing():
        return location.read_bytes(max_bytes=max_bytes)


@contextlib.contextmanager
def _explain_missing() -> Iterator[None]:
    """Converts the error for a missing file to a DataError. Other errors of the storage may concern intact files."""
    try:
        yield
    except MissingError as error:
        raise DataError(f"cannot be read ({error})") from error


@contextlib.contextmanager
def explain_errors(problem: str, remedy: str) -> Iterator[None]:
    """Converts any error of a library that reads files to a DataError: `PROBLEM (REASON); REMEDY.`"""
    try:
        yield
    except TrainerError:
        raise
    except Exception as error:  # such libraries raise errors of many types for damaged files
        reason = str(error).strip().partition("\n")[0].rstrip(".")[:200] or type(error).__name__
        raise DataError(f"{problem} ({reason}); {remedy}.") from error
