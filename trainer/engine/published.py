"""Checkpoints in a bucket: files first, each only if it is new, then the manifest, which makes them a checkpoint."""

from pathlib import Path

from trainer.engine.manifest import MANIFEST
from trainer.storage import Location


class PublishedCheckpoints:
    """The checkpoints of a run in `remote/step-00001000/…`. One process writes them.

    Args:
        remote: Their folder.

    Raises:
        StorageError: It cannot be listed.
    """

    def __init__(self, remote: Location):
        self._remote = remote
        files: dict[int, set[str]] = {}
        for entry in remote.entries():
            folder, _, file = entry.name.partition("/")
            if folder.startswith("step-") and folder[5:].isdigit():
                files.setdefault(int(folder[5:]), set()).add(file)
        self.steps = {step for step, names in files.items() if MANIFEST in names}
        self._orphans = set(files) - self.steps

    def publish(self, folder: Path, step: int) -> None:
        """Copies a committed checkpoint. What uploads and deletions that were cut short left is removed first.

        Raises:
            StorageError: It cannot be written; then there is no manifest.
        """
        for orphan in self._orphans | {step}:
            self._clear(self._of(orphan))
        self._orphans.clear()
        there = self._of(step)
        there.upload(folder, sorted(path.name for path in folder.iterdir() if path.name != MANIFEST), only_new=True)
        (there / MANIFEST).write_bytes((folder / MANIFEST).read_bytes(), only_new=True)
        self.steps.add(step)

    def fetch(self, step: int, folder: Path) -> None:
        """Copies a checkpoint to a local folder.

        Raises:
            StorageError: It cannot be read.
        """
        there = self._of(step)
        there.download({entry.name: folder / entry.name for entry in there.entries()})

    def manifest(self, step: int) -> bytes:
        """The content of a checkpoint's manifest.

        Raises:
            StorageError: It cannot be read.
        """
        return (self._of(step) / MANIFEST).read_bytes()

    def delete(self, step: int) -> None:
        """Deletes a checkpoint, its manifest first.

        Raises:
            StorageError: It cannot be deleted.
        """
        self._clear(self._of(step))
        self.steps.discard(step)

    def _of(self, step: int) -> Location:
        return self._remote / f"step-{step:08d}"

    def _clear(self, there: Location) -> None:
        names = [entry.name for entry in there.entries()]
        there.delete(sorted(names, key=lambda name: name != MANIFEST))
