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
        names = filter_images(entry.name for entry in folder.entries())
        self.items, self.class_names = group_by_class(names, folder.name)

    def _location(self, index: int) -> Location:
        return self._folder / self.items[index].name
