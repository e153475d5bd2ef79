"""Source for images in a folder, local or in a bucket."""

from trainer.data.prepare.sources.base import FilesSource, filter_images, group_by_class
from trainer.storage import Location


class FolderSource(FilesSource):
    """Images of a folder, either flat or with one subfolder per class.

    Args:
        folder: Folder to read.

    Raises:
        DataError: If only some of the images are in subfolders.
        StorageError: If the folder cannot be listed.
    """

    def __init__(self, folder: Location):
        self._folder = folder
        self._sizes = {entry.name: entry.num_bytes for entry in folder.entries()}
        names = filter_images(self._sizes)
        self.items, self.class_names = group_by_class(names, folder.name)

    def num_bytes(self, index: int) -> int:
        return self._sizes[self.items[index].name]

    def _location(self, index: int) -> Location:
        return self._folder / self.items[index].name
