"""Source for IDX files, the format of MNIST."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from trainer.data.prepare.sources.arrays import (
    ArraySource,
    StoredArray,
    check_images,
    check_size,
    copy_values,
)
from trainer.data.prepare.sources.base import SourceOptions
from trainer.data.prepare.sources.fields import as_classes, count_bytes
from trainer.errors import DataError, count_of
from trainer.storage import Location

_UINT8 = 0x08
_GZIP = ".gz"


class IdxSource(ArraySource):
    """Images of an IDX file and, optionally, labels of another IDX file. Both may be gzip files.

    The format is that of MNIST: 0, 0, type, number of dimensions, then each size as 4 bytes, big-endian.

    Args:
        path: IDX file of images.
        labels: IDX file of labels, or None.
        scratch: Local folder for unpacked files.
        options: Options of the source.

    Raises:
        DataError: If a file is not an IDX file of unsigned bytes, or has another size than it states.
        StorageError: If the disk is too small for the unpacked images.
    """

    def __init__(self, path: Path, labels: Path | None, scratch: Path, options: SourceOptions):
        array = _unpack(path, scratch / "images.idx", dimensions=(3, 4), num_labels=None)
        num_images = array.shape[0]
        values = np.zeros(num_images, np.int64)
        if labels is not None:
            stored = _unpack(labels, scratch / "labels.idx", dimensions=(1,), num_labels=num_images)
            values = np.fromfile(stored.path, np.uint8, num_images, offset=stored.offset)
        notes = [] if labels is not None or options.label_field is not None else [f"{path.name}: without labels."]
        super().__init__(array, *as_classes(values, num_images, None, path.name), options.image_range, notes)


def find_labels(images: Location) -> Location | None:
    """Returns the file of labels beside an IDX file of images, by the naming of MNIST; None if there is none.

    Either file may be a gzip file. A file of labels with the same ending as the images is preferred.

    Raises:
        StorageError: If a bucket cannot be read.
    """
    name = images.name.replace("images", "labels").replace("idx3", "idx1")
    other = name.removesuffix(_GZIP) if name.endswith(_GZIP) else f"{name}{_GZIP}"
    if name == images.name:
        return None
    return next((file for file in (images.parent / name, images.parent / other) if file.exists()), None)


def _unpack(path: Path, target: Path, dimensions: tuple[int, ...], num_labels: int | None) -> StoredArray:
    """Returns the array of an IDX file, which is unpacked if it is a gzip file.

    Args:
        path: IDX file.
        target: File for the unpacked values.
        dimensions: Allowed numbers of dimensions.
        num_labels: Expected number of labels; None for images.
    """
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    if path.name.endswith(_GZIP) and not is_gzip:
        raise DataError(f"{path} is not a gzip file, despite its name; rename it without .gz.")
    try:
        with gzip.open(path) if is_gzip else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != _UINT8 or magic[3] not in dimensions:
                start = f"begins with {magic.hex(' ')}" if magic else "is empty"
                raise DataError(
                    f"{path} {start}, expected 00 00 08 and {' or '.join(map(str, dimensions))} "
                    "dimensions; give an IDX file of unsigned bytes."
                )
            header = file.read(4 * magic[3])
            check_size(4 * magic[3], len(header), str(path))
            shape = tuple(np.frombuffer(header, ">u4").tolist())
            if num_labels is None:
                check_images(shape, np.dtype(np.uint8), str(path))
            elif shape != (num_labels,):
                raise DataError(
                    f"{path} has {count_of(shape[0], 'label')} for {count_of(num_labels, 'image')}; give the file of "
                    "its labels."
                )
            num_bytes = count_bytes(shape, np.dtype(np.uint8))
            if is_gzip:
                copy_values(file, target, num_bytes, str(path))
                check_size(num_bytes, num_bytes + len(file.read(1)), str(path))
                return StoredArray(target, 0, shape, np.dtype(np.uint8), path.name)
            check_size(num_bytes, path.stat().st_size - file.tell(), str(path))
            return StoredArray(path, file.tell(), shape, np.dtype(np.uint8), path.name)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a complete gzip file ({error}); copy it again.") from error
