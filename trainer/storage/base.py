"""Interface of a file or folder, local or in a bucket."""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import DocumentError

SCHEME = "gs://"
"""Scheme of the address of a bucket or an object in it."""
PLACEHOLDER_BUCKET = "BUCKET"
"""Name of a bucket in commands of the documentation, and in the output of dry runs. No bucket has it."""


@dataclass(frozen=True, slots=True)
class StorageEntry:
    """A file in a folder.

    Attributes:
        name: Path relative to the folder, with `/` as the separator.
        num_bytes: Size of the file in bytes.
        crc32c: CRC32C in base64, as Cloud Storage reports it; None for a local file.
    """

    name: str
    num_bytes: int
    crc32c: str | None = None


class Location(abc.ABC):
    """A file or a folder. Every method raises `StorageError`, with a message of one sentence, if it fails."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Last part of the path."""

    @property
    @abc.abstractmethod
    def parent(self) -> "Location":
        """Folder that contains this location."""

    @abc.abstractmethod
    def __truediv__(self, name: str) -> "Location":
        """Returns a file or folder in this folder."""

    @abc.abstractmethod
    def exists(self) -> bool:
        """Returns whether this is an existing file."""

    @abc.abstractmethod
    def num_bytes(self) -> int:
        """Returns the size of this file in bytes.

        Raises:
            MissingError: If the file does not exist.
        """

    @abc.abstractmethod
    def entries(self, *, recursive: bool = True) -> Iterator[StorageEntry]:
        """Yields the files in this folder, sorted by name; nothing if the folder does not exist.

        On a local disk, links are followed, except links to a folder that contains them. Hidden files that cannot be
        read and files that are deleted during the listing are skipped. In a bucket, an unsafe name raises an error.

        Args:
            recursive: Whether to include files in subfolders. If True, a broken link is an error, because its target
                may have been a folder.
        """

    @abc.abstractmethod
    def read_bytes(self, max_bytes: int | None = None) -> bytes:
        """Returns the content of this file. Devices and pipes are errors, because they may block or never end.

        Args:
            max_bytes: Maximum size of the file in bytes. At most this number is held in memory. None: any size.

        Raises:
            MissingError: If the file does not exist.
            DocumentError: If the file is larger than `max_bytes`.
        """

    @abc.abstractmethod
    def write_bytes(self, content: bytes, *, only_new: bool = False) -> None:
        """Writes this file completely or not at all.

        Args:
            content: Content of the file.
            only_new: Whether to refuse to overwrite an existing file.
        """

    @abc.abstractmethod
    def delete(self, names: Sequence[str]) -> None:
        """Deletes files in this folder, in this order. Files that do not exist are skipped."""

    @abc.abstractmethod
    def download(self, files: Mapping[str, Path], *, check: Callable[[], object] | None = None) -> None:
        """Copies files in this folder to local paths, several at a time. Each file arrives completely or not at all.

        Args:
            files: Local path of each file, by its name in this folder.
            check: Function to call before each file. An exception that it raises ends the copying.
        """

    @abc.abstractmethod
    def upload(self, folder: Path, names: Sequence[str], *, only_new: bool = False) -> None:
        """Copies files of a local folder into this folder, several at a time. Each file arrives completely or not at
        all.

        Args:
            folder: Local folder.
            names: Names of the files, relative to `folder`.
            only_new: Whether to refuse to overwrite existing files.
        """


def too_large(location: object, max_bytes: int) -> DocumentError:
    """Returns the error for a file that is larger than what is read of it."""
    return DocumentError(
        f"{location} has more than {max_bytes:,} bytes, too many for its kind; correct the name, or replace it."
    )
