"""Messages for sources that are not read: missing, of another format, or unsafe."""

import re
from collections.abc import Sequence
from pathlib import Path

from trainer.data.dataset_spec import SPEC_NAME
from trainer.data.prepare.sources.base import IMAGE_SUFFIXES, Source
from trainer.errors import DataError
from trainer.storage import Location
from trainer.storage.local import LocalLocation

PICKLE_ADVICE = (
    "pickles, which can run code and are not read: in a Python whose files you trust, load them and save the arrays "
    "with numpy.savez_compressed('images.npz', x=images, y=labels). For CIFAR, use --dataset=cifar10, or "
    "--source=tfds:cifar10 or tfds:cifar100"
)
"""End of sentences about pickles."""
_PICKLE_NAME = re.compile(
    r"(.*\.(pkl|pickle|pt|pth|ckpt|joblib|dill)(\.gz|\.bz2|\.xz)?|(.*/)?((data|test)_batch(_\d+)?|batches\.meta))",
    re.IGNORECASE | re.DOTALL,
)
_PICKLE_START = re.compile(rb"\x80[\x02-\x05]")
_REMEDY_OF_START = {
    b"PK\x03\x04": "rename it to end in .zip or .npz, which its content looks like",
    b"\x93NUMPY": "rename it to end in .npy, which its content looks like",
    b"\x89HDF": "rename it to end in .h5, which its content looks like",
    b"PAR1": "rename it to end in .parquet, which its content looks like",
    b"\x1f\x8b": "unpack it with gunzip",
}
"""Remedies for files under unusual names, by the first bytes of their content."""
_SPREADSHEETS = ".xlsx", ".xlsm", ".xls", ".ods"
_TEXT_TABLES = ".tsv", ".tab", ".txt"
_MAX_OPENED = 20


def is_pickle(name: str) -> bool:
    """Returns whether a file is a pickle, by its name."""
    return _PICKLE_NAME.fullmatch(name) is not None


def unsupported_file(location: Location) -> DataError:
    """Returns the error for a single file that is not a source."""
    name = location.name
    if name.lower().endswith(IMAGE_SUFFIXES):
        return DataError(f"{location} is a single image; give the folder that contains the images.")
    start = _read_start(location.path) if isinstance(location, LocalLocation) else b""
    if is_pickle(name) or _PICKLE_START.match(start):
        return DataError(f"{location} belongs to {PICKLE_ADVICE}.")
    remedy = next((remedy for known, remedy in _REMEDY_OF_START.items() if start.startswith(known)), "convert it")
    if name.lower().endswith(_SPREADSHEETS):
        remedy = "save the table as a .csv"
    if name.lower().endswith(_TEXT_TABLES):
        remedy = "if it is a table of paths and classes, rename it to end in .csv"
    return DataError(
        f"{location} is not a source of images; {remedy}, or give a folder, a .zip, .tar, .npy, .npz, .h5, .parquet, "
        ".tfrecord, .csv or IDX file."
    )


def no_files(location: Location) -> DataError:
    """Returns the error for a source without any file."""
    if isinstance(location, LocalLocation):
        if location.path.is_dir():
            return DataError(f"{location} is an empty folder; add images, or correct the name.")
        if location.path.exists():
            return DataError(f"{location} is neither a file nor a folder; give a folder of images.")
    return DataError(f"{location} does not exist; correct the name.")


def no_images(name: str, source: Source) -> DataError:
    """Returns the error for a source without images."""
    notes = f" {' '.join(source.notes)}" if source.notes else ""
    return DataError(f"{name} has no images, expected {source.expected_content}; {source.empty_remedy}.{notes}")


def check_no_pickles(folder: Location, names: Sequence[str]) -> None:
    """Checks that a folder without images does not consist of pickles.

    Raises:
        DataError: If it does.
    """
    for name in names[:_MAX_OPENED]:
        start = _read_start(folder.path / name) if isinstance(folder, LocalLocation) else b""
        if is_pickle(name) or _PICKLE_START.match(start):
            raise DataError(f"{folder} has no images, but {PICKLE_ADVICE}.")


def check_not_prepared(folder: Location, names: Sequence[str]) -> None:
    """Checks that a folder without images is not a prepared dataset.

    Raises:
        DataError: If it is.
    """
    if SPEC_NAME in names and any(name.endswith(".tfrecord") for name in names):
        raise DataError(f"{folder} is already a prepared dataset; train on it with --dataset={folder}.")


def _read_start(path: Path) -> bytes:
    """Returns the first bytes of a regular file; no bytes if it cannot be read."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                return file.read(8)
    except OSError:  # only the message depends on it
        pass
    return b""
