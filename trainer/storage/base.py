"""The interface of a file or folder, local or in a bucket."""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StorageEntry:
    """A file in a folder.

    Attributes:
        name: From the folder on, with `/` between the parts.
        num_bytes: Its size.
        crc32c: Its CRC32C in base64, as Cloud Storage states it; None of a local file.
    """

    name: str
    num_bytes: int
    crc32c: str | None = None


class Location(abc.ABC):
    """A file or a folder. Every method raises `StorageError`, one sentence, where it cannot do what it says."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The last part of the path."""

    @property
    @abc.abstractmethod
    def parent(self) -> "Location":
        """The folder that this lies in."""

    @abc.abstractmethod
    def __truediv__(self, name: str) -> "Location":
        """A file or folder in this folder."""

    @abc.abstractmethod
    def exists(self) -> bool:
        """Whether there is a file of this name."""

    @abc.abstractmethod
    def entries(self, *, deep: bool = True) -> Iterator[StorageEntry]:
        """All files in this folder, sorted by name; none where there is no such folder.

        On a disk, links are followed, but for those to a folder that they lie in. What is hidden and cannot be read is
        left out, as is what is deleted meanwhile. In a bucket, a name that is no plain relative one is refused.

        Args:
            deep: Also those in the folders in it. A link that leads nowhere is an error then: it may be one of them.
        """

    @abc.abstractmethod
    def read_bytes(self) -> bytes:
        """The content of this file; `MissingError` where there is none."""

    @abc.abstractmethod
    def write_bytes(self, content: bytes, *, only_new: bool = False) -> None:
        """Writes this file, whole or not at all.

        Args:
            content: What to write.
            only_new: Refuse where there is one already.
        """

    @abc.abstractmethod
    def delete(self, names: Sequence[str]) -> None:
        """Deletes files in this folder in this order, those that are not there left out."""

    @abc.abstractmethod
    def download(self, files: Mapping[str, Path], *, check: Callable[[], object] | None = None) -> None:
        """Copies files in this folder to local paths, several at a time; each arrives whole or not at all.

        Args:
            files: Where each goes, by its name in this folder.
            check: Called before each file: what it raises ends the copying.
        """

    @abc.abstractmethod
    def upload(self, folder: Path, names: Sequence[str], *, only_new: bool = False) -> None:
        """Copies files of a local folder to this one, several at a time; each arrives whole or not at all."""
