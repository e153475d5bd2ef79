"""What a source of pictures is."""

import abc
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from trainer.errors import DataError, StorageError
from trainer.storage import Location
from trainer.storage.local import LocalLocation

ENDINGS = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".pnm")
"""What the name of an image ends in, in upper or lower case."""
_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Item:
    """One picture of a source, before it is read.

    Attributes:
        name: What a sentence calls it.
        label: Index of its class.
    """

    name: str
    label: int


class Source(abc.ABC):
    """A list of pictures that can be read in any order and by several threads; to be closed.

    Attributes:
        items: All of them, in the source's own order.
        class_names: By label.
        looked_for: Where there are no items, what would have been one.
    """

    items: Sequence[Item]
    class_names: tuple[str, ...]
    looked_for = f"looked for files that end in {', '.join(ENDINGS)}."

    @abc.abstractmethod
    def read(self, index: int) -> bytes | np.ndarray:
        """The file of an item, or its pixels: uint8 [H, W, C] in [0, 255].

        Raises:
            DataError: What is wrong with this one item: the end of a sentence that begins with its name.
        """

    def path(self, index: int) -> Path | None:
        """The local file that an item is, where it is one: whoever decodes it can read it."""
        return None

    def close(self) -> None:  # noqa: B027 (most sources hold nothing open)
        """Closes what is open."""


class OneFileSource(Source):
    """Items that lie in one local file. A subclass opens `_file`, and notes in `_places` offset and size by name."""

    _file: BinaryIO
    _places: dict[str, tuple[int, int]]

    def read(self, index: int) -> bytes:
        offset, size = self._places[self.items[index].name]
        content = os.pread(self._file.fileno(), size, offset)
        if len(content) < size:
            raise DataError("is cut short; copy the file again")
        return content

    def close(self) -> None:
        self._file.close()


class FilesSource(Source):
    """Pictures that are files of their own, local or in a bucket."""

    @abc.abstractmethod
    def _location(self, index: int) -> Location:
        """Where an item lies."""

    def path(self, index: int) -> Path | None:
        location = self._location(index)
        return location.path if isinstance(location, LocalLocation) else None

    def read(self, index: int) -> bytes:
        try:
            return self._location(index).read_bytes()
        except StorageError as error:
            raise DataError(f"cannot be read ({error})") from error


def natural_order(name: str) -> tuple[int | str, ...]:
    """A key that puts 9 before 10, and numbers before words."""
    parts = _NUMBER.split(f"{name}\0")  # the end is a letter too: numbers come before it
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts))


def image_names(names: Iterable[str]) -> list[str]:
    """Those that are images by their endings, in upper or lower case; hidden files and folders are none."""
    return [
        name
        for name in names
        if name.lower().endswith(ENDINGS) and not any(part.startswith((".", "__MACOSX")) for part in _parts(name))
    ]


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part != "."]


def by_class(names: Sequence[str], flat_class: str) -> tuple[list[Item], tuple[str, ...]]:
    """Items of images named `CLASS/…/FILE`, or of files in no folder, which are all of one class.

    A folder around all others is no class.

    Args:
        names: Relative to the source, with `/` between the parts.
        flat_class: The class of files in no folder.

    Raises:
        DataError: Some lie in folders and some do not.
    """
    paths = {name: _parts(name) for name in names}
    while len({path[0] for path in paths.values()}) == 1 and any(len(path) > 2 for path in paths.values()):
        paths = {name: path[1:] for name, path in paths.items()}
    loose = next((name for name, path in paths.items() if len(path) == 1), None)
    if loose is not None and any(len(path) > 1 for path in paths.values()):
        raise DataError(f"{loose} lies beside the sub-folders, each of which is a class; put it into one of them.")
    class_of = {name: path[0] if len(path) > 1 else flat_class for name, path in paths.items()}
    class_names = tuple(sorted(set(class_of.values()), key=natural_order))
    labels = {name: label for label, name in enumerate(class_names)}
    ordered = sorted(names, key=lambda name: (labels[class_of[name]], natural_order(name)))
    return [Item(name, labels[class_of[name]]) for name in ordered], class_names
