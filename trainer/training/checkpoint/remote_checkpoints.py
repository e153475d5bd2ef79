"""Checkpoints in a bucket. Files are uploaded first; the manifest, written last, commits the checkpoint."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from trainer.errors import CheckpointError, MissingError
from trainer.storage import Location, path_below
from trainer.storage.run_directory import checkpoint_name, checkpoint_step
from trainer.training.checkpoint.manifest import MANIFEST, CheckpointManifest


class RemoteCheckpoints:
    """The checkpoints of a run in `remote/step-00001000/…`. One process writes them.

    Args:
        remote: Folder of the checkpoints.

    Attributes:
        steps: Steps of the committed checkpoints.
        has_leftovers: Whether there are files of interrupted uploads and deletions.

    Raises:
        StorageError: If the folder cannot be listed, or a name in it is not a plain relative name.
    """

    def __init__(self, remote: Location):
        self._location = remote
        files: dict[int, set[str]] = {}
        for entry in remote.entries():
            folder, _, file = entry.name.partition("/")
            step = checkpoint_step(folder)
            if step is not None:
                files.setdefault(step, set()).add(file)
        self.steps = {step for step, names in files.items() if MANIFEST in names}
        self._orphans = set(files) - self.steps
        self._manifests: dict[int, bytes] = {}

    @property
    def has_leftovers(self) -> bool:
        return bool(self._orphans)

    def remove_leftovers(self) -> None:
        """Deletes the files of interrupted uploads and deletions.

        Raises:
            StorageError: If they cannot be deleted.
        """
        for step in self._orphans:
            self._clear(self._folder(step))
        self._orphans.clear()

    def publish(self, folder: Path, step: int, before_commit: Callable[[], None] = lambda: None) -> None:
        """Uploads a committed checkpoint. Leftovers of interrupted uploads and deletions are removed first.

        Args:
            folder: Local folder of the checkpoint.
            step: Step of the checkpoint.
            before_commit: Function that is called before the manifest is written. An exception prevents it.

        Raises:
            StorageError: If the checkpoint cannot be written; then it has no manifest.
        """
        self._orphans.add(step)
        self.remove_leftovers()
        destination = self._folder(step)
        names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
        destination.upload(folder, names, only_new=True)
        before_commit()
        (destination / MANIFEST).write_bytes((folder / MANIFEST).read_bytes(), only_new=True)
        self._manifests.pop(step, None)
        self.steps.add(step)

    def replace_manifest(self, step: int, content: bytes) -> None:
        """Replaces the manifest of a committed checkpoint, at once.

        Raises:
            StorageError: If it cannot be written; then the previous one remains.
        """
        (self._folder(step) / MANIFEST).write_bytes(content)
        self._manifests.pop(step, None)

    def fetch(self, step: int, folder: Path) -> None:
        """Downloads the manifest of a checkpoint and the files that it lists. It does not verify them.

        Files that another process deletes meanwhile are left out.

        Raises:
            CheckpointError: If a file name in the manifest is not a plain relative name.
            StorageError: If the checkpoint cannot be read.
        """
        source = self._folder(step)
        names = {entry.name for entry in source.entries()}
        folder.mkdir(parents=True, exist_ok=True)
        if MANIFEST not in names:
            return
        with contextlib.suppress(MissingError):  # verification names the missing file
            content = (source / MANIFEST).read_bytes()
            (folder / MANIFEST).write_bytes(content)
            try:
                listed = CheckpointManifest.from_bytes(content, source).files
            except ValueError:
                return
            targets = {name: path_below(folder, name, source / MANIFEST, CheckpointError) for name in listed}
            source.download({name: path for name, path in targets.items() if name in names})

    def manifest(self, step: int) -> bytes:
        """Returns the content of a checkpoint's manifest, which is read once and kept, because one process writes it.

        Raises:
            MissingError: If it does not exist.
            StorageError: If it cannot be read.
        """
        if step not in self._manifests:
            self._manifests[step] = (self._folder(step) / MANIFEST).read_bytes()
        return self._manifests[step]

    def delete(self, step: int) -> None:
        """Deletes a checkpoint, its manifest first.

        Raises:
            StorageError: If it cannot be deleted.
        """
        self._clear(self._folder(step))
        self._manifests.pop(step, None)
        self.steps.discard(step)

    def _folder(self, step: int) -> Location:
        return self._location / checkpoint_name(step)

    def _clear(self, folder: Location) -> None:
        names = [entry.name for entry in folder.entries()]
        folder.delete(sorted(names, key=lambda name: name != MANIFEST))
