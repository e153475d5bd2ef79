"""Sources of images to convert: folders, archives, arrays, tables and records. Each can be read in any order."""

import contextlib
import dataclasses
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainer.data.dataset_spec import SPEC_NAME
from trainer.data.prepare.sources.archives import TarSource, ZipSource
from trainer.data.prepare.sources.base import NO_LABELS, Item, Source, SourceOptions, read_listing
from trainer.data.prepare.sources.csv import CsvSource
from trainer.data.prepare.sources.folders import FolderSource
from trainer.data.prepare.sources.hdf5 import Hdf5Source
from trainer.data.prepare.sources.idx import IdxSource, find_labels
from trainer.data.prepare.sources.listing import is_hidden, is_image
from trainer.data.prepare.sources.numpy_files import NpySource, NpzSource
from trainer.data.prepare.sources.parquet import ParquetSource, has_images
from trainer.data.prepare.sources.parquet_paths import ParquetPathsSource
from trainer.data.prepare.sources.splits import select_files
from trainer.data.prepare.sources.tfds import TfdsSource
from trainer.data.prepare.sources.tfrecords import TfrecordSource
from trainer.data.prepare.sources.unsupported import (
    check_no_pickles,
    check_not_prepared,
    no_files,
    no_images,
    unsupported_file,
)
from trainer.data.prepare.sources.webdataset import WebdatasetSource, is_webdataset
from trainer.errors import ConfigError, DataError, quote
from trainer.storage import Location, locate, path_below, scratch_folder
from trainer.storage.local import LocalLocation

__all__ = ["Item", "Source", "SourceOptions", "open_source"]

_TFDS_PREFIX = "tfds:"
_IDX = re.compile(r".*(-ubyte|\.idx)(\.gz)?", re.IGNORECASE | re.DOTALL)
_PARQUET = re.compile(r".*\.parquet", re.IGNORECASE | re.DOTALL)
_TFRECORD = re.compile(r".*(\.tfrec(ord)?s?(-\d+-of-\d+)?(\.gz)?|-\d{5}-of-\d{5})", re.IGNORECASE | re.DOTALL)
_TAR = re.compile(r".*\.(tar(\.gz|\.bz2|\.xz)?|tgz)", re.IGNORECASE | re.DOTALL)
_FILE_SOURCES = (
    (re.compile(r".*\.zip", re.IGNORECASE | re.DOTALL), ZipSource),
    (re.compile(r".*\.npy", re.IGNORECASE | re.DOTALL), NpySource),
    (re.compile(r".*\.npz", re.IGNORECASE | re.DOTALL), NpzSource),
    (re.compile(r".*\.(h5|hdf5)", re.IGNORECASE | re.DOTALL), Hdf5Source),
)
_RECORD_SOURCES = ((_PARQUET, ParquetSource), (_TFRECORD, TfrecordSource), (_TAR, WebdatasetSource))
"""Sources that consist of one file or of a folder of files."""
_FIELD_OPTIONS = {"image_field", "label_field"}
_OPTIONS: dict[type[Source], set[str]] = {
    FolderSource: {"split", "label_field"},
    ZipSource: {"split", "label_field"},
    TarSource: {"split", "label_field"},
    NpySource: {"image_range"},
    NpzSource: {"image_range", "split", *_FIELD_OPTIONS},
    Hdf5Source: {"image_range", "split", *_FIELD_OPTIONS},
    IdxSource: {"image_range"},
    ParquetSource: {"split", *_FIELD_OPTIONS},
    TfrecordSource: {"split", *_FIELD_OPTIONS},
    WebdatasetSource: {"split", *_FIELD_OPTIONS},
    CsvSource: {"image_root", *_FIELD_OPTIONS},
    ParquetPathsSource: {"image_root", "split", *_FIELD_OPTIONS},
    TfdsSource: {"split"},
}
"""Options that apply to each kind of source."""


@contextlib.contextmanager
def open_source(name: str, options: SourceOptions | None = None) -> Iterator[Source]:
    """Opens a source while the context is active, and deletes its temporary files afterwards.

    Args:
        name: Folder, archive, or file of arrays, paths or records, local or `gs://`; or `tfds:NAME`.
        options: Options of the source. None: the default ones.

    Raises:
        ConfigError: If an option does not apply to the source, or the source needs one.
        DataError: If the source does not exist, is not supported, or has no images.
        StorageError: If a bucket cannot be read.
    """
    options = options or SourceOptions()
    with scratch_folder() as scratch, contextlib.closing(_make_source(name, scratch, options)) as source:
        if not source.items:
            raise no_images(name, source)
        _check_class_names(name, source.class_names)
        yield source


def _check_class_names(source: str, class_names: Sequence[str]) -> None:
    """Rejects names that `dataset.json` cannot store, such as folders in another encoding, and equal ones."""
    numbers: dict[str, int] = {}
    for number, class_name in enumerate(class_names):
        if (first := numbers.setdefault(class_name, number)) != number:
            raise DataError(
                f"{source} has the name {quote(class_name)} for the classes {first} and {number}; rename one of them, "
                f"or pass --label_field={NO_LABELS}."
            )
        try:
            class_name.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{source} has the class {quote(class_name)}, whose name is not Unicode; rename it in UTF-8."
            ) from error


def _make_source(name: str, scratch: Path, options: SourceOptions) -> Source:
    if name.startswith(_TFDS_PREFIX):
        _check_options(TfdsSource, name, options)
        return TfdsSource(name.removeprefix(_TFDS_PREFIX), scratch, options)
    location = locate(name)
    if not location.exists():
        return _open_folder(location, scratch, options)
    if location.name.lower().endswith(".csv"):
        _check_options(CsvSource, name, options)
        folder = locate(options.image_root) if options.image_root else location.parent
        return CsvSource(_local_file(location, scratch), folder, options)
    if _IDX.fullmatch(location.name):
        _check_options(IdxSource, name, options)
        labels = None if options.label_field == NO_LABELS else find_labels(location)
        labels_path = None if labels is None else _local_file(labels, scratch)
        return IdxSource(_local_file(location, scratch), labels_path, scratch, options)
    if _TAR.fullmatch(location.name):
        return _open_tar(_local_file(location, scratch), name, scratch, options)
    for pattern, file_source in _FILE_SOURCES:
        if pattern.fullmatch(location.name):
            _check_options(file_source, name, options)
            return file_source(_local_file(location, scratch), scratch, options)
    if _PARQUET.fullmatch(location.name):
        select_files([location.name], options.split, name)
        files = {name: _local_file(location, scratch)}
        return _open_parquet(files, location.name, location.parent, scratch, options, ())
    for pattern, record_source in _RECORD_SOURCES:
        if pattern.fullmatch(location.name):
            _check_options(record_source, name, options)
            select_files([location.name], options.split, name)
            return record_source({name: _local_file(location, scratch)}, location.name, scratch, options, ())
    raise unsupported_file(location)


def _open_tar(path: Path, name: str, scratch: Path, options: SourceOptions) -> Source:
    if is_webdataset(path, scratch):
        _check_options(WebdatasetSource, name, options)
        select_files([path.name], options.split, name)
        return WebdatasetSource({name: path}, path.name, scratch, options, ())
    _check_options(TarSource, name, options)
    return TarSource(path, scratch, options)


def _open_parquet(
    files: dict[str, Path],
    name: str,
    folder: Location,
    scratch: Path,
    options: SourceOptions,
    notes: Sequence[str],
) -> Source:
    """Opens Parquet files of images, or of the paths of images in `folder` or in the folder of the options."""
    if has_images(files, name):
        _check_options(ParquetSource, name, options)
        return ParquetSource(files, name, scratch, options, notes)
    _check_options(ParquetPathsSource, name, options)
    return ParquetPathsSource(files, name, locate(options.image_root) if options.image_root else folder, options, notes)


def _open_folder(location: Location, scratch: Path, options: SourceOptions) -> Source:
    """Opens a folder of images or, if it has none, of files of records."""
    sizes, content_digest = read_listing(location.entries(), is_image)
    if not sizes:
        raise no_files(location)
    names = [name for name in sizes if not is_hidden(name)]
    if not any(map(is_image, names)):
        for pattern, record_source in _RECORD_SOURCES:
            files = [name for name in names if pattern.fullmatch(name)]
            if files and SPEC_NAME not in names:
                files, notes = select_files(files, options.split, str(location))
                paths = {name: _local_file(location / name, scratch) for name in files}
                if record_source is ParquetSource:
                    return _open_parquet(paths, location.name, location, scratch, options, notes)
                _check_options(record_source, str(location), options)
                return record_source(paths, location.name, scratch, options, notes)
        check_not_prepared(location, names)
        check_no_pickles(location, names)
    _check_options(FolderSource, str(location), options)
    return FolderSource(location, sizes, options, content_digest)


def _check_options(kind: type[Source], name: str, options: SourceOptions) -> None:
    """Rejects options that the source would ignore."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        applies = field.name in _OPTIONS[kind] or (field.name == "label_field" and value == NO_LABELS)
        if value and not applies:
            text = ",".join(value) if isinstance(value, tuple) else value
            needed = ", ".join(sorted(_suffix_of(other) for other, names in _OPTIONS.items() if field.name in names))
            raise ConfigError(f"{field.name}={quote(text)} does not apply to source={name}, only to {needed}; omit it.")


def _suffix_of(kind: type[Source]) -> str:
    return kind.__name__.removesuffix("Source").lower()


def _local_file(location: Location, scratch: Path) -> Path:
    """Returns the path of a local file, or downloads a file from a bucket."""
    if isinstance(location, LocalLocation):
        if not location.exists():
            raise no_files(location)
        return location.path
    folder = Path(tempfile.mkdtemp(dir=scratch))
    target = path_below(folder, location.name, location)
    location.parent.download({location.name: target})
    return target
