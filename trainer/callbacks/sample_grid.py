"""Sample grids for fixed latents."""

import os
from collections.abc import Mapping
from typing import Any

from trainer import stopwatch
from trainer.callbacks.base import Periodic, Priority
from trainer.callbacks.by_products import WriteErrors, output_path
from trainer.callbacks.event_log import EventWriter
from trainer.image_io import save_grid
from trainer.stopwatch import Activity
from trainer.storage.run_directory import sample_grid_name


class SampleGrid(Periodic):
    """Writes `step-00000000.png` before training, then a grid at every `every_steps` and at the end.

    Args:
        directory: Folder of the files.
        every_steps: Steps between two grids; 0 for only before and after training.
        rows: Number of rows. Some models choose their own, such as one per class.
        columns: Number of columns.
        log_dir: Folder of TensorBoard events that also get the grids; None for none.
    """

    priority = Priority.SAMPLES

    def __init__(
        self,
        directory: str | os.PathLike[str],
        every_steps: int = 500,
        *,
        rows: int = 10,
        columns: int = 10,
        log_dir: str | os.PathLike[str] | None = None,
    ):
        super().__init__(every_steps)
        self._directory = output_path(directory)
        self._rows, self._columns = rows, columns
        self._events = None if log_dir is None else EventWriter(log_dir, "sample grids")
        self._errors = WriteErrors("sample grids")

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        if self.model.step == 0:
            self._save()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.is_due:
            self._save()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if self._events is not None:
            self._events.close()

    @stopwatch.measured(Activity.SAMPLES)
    def _save(self) -> None:
        grid = self.model.sample_grid(self._rows, self._columns)
        path = self._directory / sample_grid_name(self.model.step)
        with self._errors.suppress(path):
            self._directory.mkdir(parents=True, exist_ok=True)
            save_grid(path, grid)
        if self._events is not None:
            self._events.image("samples", grid, self.model.step)
