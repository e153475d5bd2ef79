"""Source for images in a folder, local or in a bucket."""

import os
from collections.abc import Iterator, Mapping

import numpy as np

from trainer.data.prepare.sources.base import FilesSource, SourceOptions, read_file
from trainer.data.prepare.sources.listing import list_images
from trainer.data.prepare.sources.metadata_files import MAX_METADATA_BYTES
from trainer.storage import Location
from trainer.storage.local import LocalLocation


class FolderSource(FilesSource):
    """Images of a folder, either flat or with one subfolder per class, or with a file of labels.

    Args:
        folder: Folder to read.
        sizes: Size in bytes of each file in the folder, by its name.
        options: Options of the source.
        content_digest: Digest of the content of all images; empty if it is not known.

    Raises:
        DataError: If only some of the images have a class, or a file with labels is damaged.
        StorageError: If a file with labels cannot be read.
    """

    def __init__(self, folder: Location, sizes: Mapping[str, int], options: SourceOptions, content_digest: str = ""):
        self._folder, self.content_digest = folder, content_digest

        def read(name: str) -> bytes:
            return read_file(folder / name, sizes[name], MAX_METADATA_BYTES)

        listing = list_images(sizes, str(folder), folder.name, options, read, self._subfolders)
        self.items, self.class_names = listing.items, listing.class_names
        self.notes, self.class_notes = listing.notes, listing.class_notes
        self._sizes = np.fromiter((sizes[item.name] for item in self.items), np.int64, len(self.items))

    def _subfolders(self, prefix: str) -> Iterator[str]:
        if isinstance(self._folder, LocalLocation):
            with os.scandir(self._folder.path / prefix) as entries:
                yield from (entry.name for entry in entries if entry.is_dir())
