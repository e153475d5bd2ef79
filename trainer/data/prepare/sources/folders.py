"""Images in a folder of this machine or under a `gs://` prefix, flat or in one sub-folder a class."""

from trainer.data.prepare.sources.base import FilesSource, by_class, image_names
from trainer.storage import Location


class FolderSource(FilesSource):
    """The images of a folder.

    Args:
        folder: Where.

    Raises:
        DataError: Some images lie in sub-folders and some do not.
        StorageError: It cannot be listed.
    """

    def __init__(self, folder: Location):
        self._folder = folder
        self.items, self.class_names = by_class(image_names(entry.name for entry in folder.entries()), folder.name)

    def _location(self, index: int) -> Location:
        return self._folder / self.items[index].name
