"""Sources of images to convert: folders, buckets, archives, arrays and CSV files. Each can be read in any order."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from trainer.data.prepare.sources.archives import TarSource, ZipSource
from trainer.data.prepare.sources.arrays import IdxSource, NpzSource, labels_file_name
from trainer.data.prepare.sources.base import Item, Source
from trainer.data.prepare.sources.csv import CsvSource
from trainer.data.prepare.sources.folders import FolderSource
from trainer.data.prepare.sources.tfds import TfdsSource
from trainer.errors import ConfigError, DataError
from trainer.storage import Location, locate, path_below, scratch_folder
from trainer.storage.local import LocalLocation

__all__ = ["Item", "Source", "open_source"]

_SINGLE_FILE_SOURCES: dict[Callable[[Path, Path], Source], tuple[str, ...]] = {
    ZipSource: (".zip",),
    TarSource: (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"),
    NpzSource: (".npz",),
}
"""Suffixes of the file names of each source that reads a single file."""
_IDX_SUFFIXES = ("-ubyte", "-ubyte.gz", ".idx", ".idx.gz")
_TFDS_PREFIX = "tfds:"


@contextlib.contextmanager
def open_source(name: str, image_root: str | None = None) -> Iterator[Source]:
    """Opens a source while the context is active, and deletes its temporary files afterwards.

    Args:
        name: Folder, archive, .npz file, IDX file or .csv file, local or `gs://`; or `tfds:NAME`.
        image_root: Folder, local or `gs://`, with all images of a .csv file. None: the folder of the .csv file.

    Raises:
        ConfigError: If `image_root` is set and the source is not a .csv file.
        DataError: If the source does not exist or has no images.
        StorageError: If a bucket cannot be read.
    """
    with (
        scratch_folder() as scratch,
        contextlib.closing(_make_source(name, scratch, image_root)) as source,
    ):
        if not source.items:
            raise DataError(f"{name} has no images, expected {source.expected_content}; {source.empty_remedy}.")
        yield source


def _make_source(name: str, scratch: Path, image_root: str | None) -> Source:
    if image_root is not None and not name.lower().endswith(".csv"):
        raise ConfigError(f"image_root={image_root} needs a .csv source, but source={name} is not one; omit it.")
    if name.startswith(_TFDS_PREFIX):
        return TfdsSource(name.removeprefix(_TFDS_PREFIX), scratch)
    location = locate(name)
    file_name = location.name.lower()
    if file_name.endswith(".csv"):
        folder = locate(image_root) if image_root else location.parent
        return CsvSource(_local_file(location, scratch), folder)
    if file_name.endswith(_IDX_SUFFIXES):
        labels = location.parent / labels_file_name(location.name)
        has_labels = labels.name != location.name and labels.exists()
        return IdxSource(_local_file(location, scratch), _local_file(labels, scratch) if has_labels else None, scratch)
    for make_source, suffixes in _SINGLE_FILE_SOURCES.items():
        if file_name.endswith(suffixes):
            return make_source(_local_file(location, scratch), scratch)
    return FolderSource(location)


def _local_file(location: Location, scratch: Path) -> Path:
    """Returns the path of a local file, or downloads a file from a bucket."""
    if isinstance(location, LocalLocation):
        if not location.exists():
            raise DataError(f"{location} does not exist; correct the name.")
        return location.path
    target = path_below(scratch, location.name, location)
    location.parent.download({location.name: target})
    return target
