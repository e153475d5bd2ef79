"""Checkpoints in a bucket: files first, each only if it is new, then the manifest, which makes them a checkpoint."""

from pathlib import Path

from trainer.errors import CheckpointError
from trainer.storage import Location, path_below
from trainer.training.checkpoint.manifest import MANIFEST, CheckpointManifest, step_of


class RemoteCheckpoints:
    """The checkpoints of a run in `remote/step-00001000/…`. One process writes them.

    Args:
        remote: Their folder.

    Raises:
        StorageError: It cannot be listed, or has a name that is no plain relative one.
    """

    def __init__(self, remote: Location):
        self._remote = remote
        files: dict[int, set[str]] = {}
        for entry in remote.entries():
            folder, _, file = entry.name.partition("/")
            step = step_of(folder)
            if step is not None:
                files.setdefault(step, set()).add(file)
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
        """Copies a checkpoint to a local folder: its manifest, and the files that the manifest lists.

        What is missing or damaged is left to `manifest.verify`.

        Raises:
            CheckpointError: The manifest lists a file by a name that is no plain relative one.
            StorageError: It cannot be read.
        """
        there = self._of(step)
        names = {entry.name for entry in there.entries()}
        folder.mkdir(parents=True, exist_ok=True)
        if MANIFEST not in names:
            return
        content = (there / MANIFEST).read_bytes()
        (folder / MANIFEST).write_bytes(content)
        try:
            listed = CheckpointManifest.from_bytes(content, there).files
        except ValueError:
            return
        there.download(
            {name: path_below(folder, name, there / MANIFEST, CheckpointError) for name in listed if name in names}
        )

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
