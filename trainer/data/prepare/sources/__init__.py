"""Where pictures to prepare come from: folders, buckets, archives, arrays, tables; each can be read in any order."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from trainer.data.prepare.sources.archives import TarSource, ZipSource
from trainer.data.prepare.sources.arrays import IdxSource, NpzSource, labels_beside
from trainer.data.prepare.sources.base import Item, Source
from trainer.data.prepare.sources.csv import CsvSource
from trainer.data.prepare.sources.folders import FolderSource
from trainer.data.prepare.sources.tfds import TfdsSource
from trainer.errors import ConfigError, DataError
from trainer.storage import Location, locate, path_below
from trainer.storage.local import LocalLocation

__all__ = ["Item", "Source", "opened"]

_READERS: dict[Callable[[Path, Path], Source], tuple[str, ...]] = {
    ZipSource: (".zip",),
    TarSource: (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"),
    NpzSource: (".npz",),
}
"""What reads a file alone, by the ending of its name."""
_IDX = ("-ubyte", "-ubyte.gz", ".idx", ".idx.gz")
_TFDS = "tfds:"


@contextlib.contextmanager
def opened(given: str, image_root: str | None = None) -> Iterator[Source]:
    """The source that a user named; what it needs on the disk is gone afterwards.

    Args:
        given: A folder, an archive, a .npz, an IDX file, a .csv, each also as `gs://`; or `tfds:NAME`.
        image_root: Folder, local or `gs://`, that all images of a .csv lie in. None: the folder of the .csv.

    Raises:
        ConfigError: `image_root` is given for another source than a .csv.
        DataError: There is nothing of that name, or it holds no image.
        StorageError: A bucket cannot be read.
    """
    with (
        tempfile.TemporaryDirectory(prefix="gan-trainer-") as scratch,
        contextlib.closing(_of(given, Path(scratch), image_root)) as source,
    ):
        if not source.items:
            raise DataError(f"{given} holds no images; {source.looked_for}")
        yield source


def _of(given: str, scratch: Path, image_root: str | None) -> Source:
    if image_root is not None and not given.lower().endswith(".csv"):
        raise ConfigError(f"image_root={image_root} is for a .csv alone, and source={given} is none; leave it out.")
    if given.startswith(_TFDS):
        return TfdsSource(given.removeprefix(_TFDS), scratch)
    location = locate(given)
    name = location.name.lower()
    if name.endswith(".csv"):
        folder = locate(image_root) if image_root else location.parent
        return CsvSource(_on_this_machine(location, scratch), folder)
    if name.endswith(_IDX):
        labels = location.parent / labels_beside(location.name)
        there = labels.name != location.name and labels.exists()
        return IdxSource(
            _on_this_machine(location, scratch), _on_this_machine(labels, scratch) if there else None, scratch
        )
    for reader, endings in _READERS.items():
        if name.endswith(endings):
            return reader(_on_this_machine(location, scratch), scratch)
    return FolderSource(location)


def _on_this_machine(location: Location, scratch: Path) -> Path:
    """The file itself, or its copy out of a bucket."""
    if isinstance(location, LocalLocation):
        if not location.exists():
            raise DataError(f"{location} does not exist; correct the name.")
        return location.path
    target = path_below(scratch, location.name, location)
    location.parent.download({location.name: target})
    return target
