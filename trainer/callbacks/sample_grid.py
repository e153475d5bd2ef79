"""Sample grids on fixed latents, from before learning to the end."""

import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer.callbacks.order import Priority
from trainer.callbacks.periodic import Periodic
from trainer.image_io import save_grid
from trainer.storage import local_path


class SampleGrid(Periodic):
    """Writes `step-00000000.png` before learning, then one at every `every_steps` and at the end.

    Args:
        directory: Of the files.
        every_steps: Steps between two grids; 0 for only before and after learning.
        rows: Of the grid; some models have rows of their own, such as one a class.
        columns: Of the grid.
        log_dir: Where to write the grids for TensorBoard as well; None: nowhere.
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
        self._directory = local_path(directory)
        self._rows, self._columns = rows, columns
        self._log_dir = log_dir

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._writer = tf.summary.create_file_writer(str(self._log_dir)) if self._log_dir else None
        if self.model.step == 0:
            self._save()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.is_due:
            self._save()

    def _save(self) -> None:
        grid = self.model.sample_grid(self._rows, self._columns)
        save_grid(self._directory / f"step-{self.model.step:08d}.png", grid)
        if self._writer is not None:
            with self._writer.as_default():
                tf.summary.image("samples", grid[tf.newaxis], step=self.model.step)
            self._writer.flush()
