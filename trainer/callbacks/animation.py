"""An animation of the sample grids."""

import logging
import os
from collections.abc import Mapping
from typing import Any

import keras

from trainer import stopwatch
from trainer.callbacks.base import Priority, is_interrupted
from trainer.callbacks.by_products import WriteErrors, output_path
from trainer.image_io import save_animation
from trainer.stopwatch import Activity
from trainer.storage.run_directory import PROGRESSION, sample_grids

_logger = logging.getLogger(__name__)

_MAX_FRAMES = 100


class Animation(keras.callbacks.Callback):
    """Writes `progression.gif` from a folder's sample grids when training ends.

    Grids that cannot be read are left out. After SIGTERM it writes nothing, because the remaining time is needed for
    the checkpoint.

    Args:
        directory: Folder of the grids and the GIF.
    """

    priority = Priority.ANIMATION

    def __init__(self, directory: str | os.PathLike[str]):
        super().__init__()
        self._directory = output_path(directory)
        self._errors = WriteErrors("animations")

    @stopwatch.measured(Activity.SAMPLES)
    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if is_interrupted(self.model, self.params["num_steps"]):
            return
        grids = [(step, path) for step, path in sample_grids(self._directory).items() if step <= self.model.step]
        if len(grids) < 2:
            return
        count = min(len(grids), _MAX_FRAMES)
        grids = [grids[round(index * (len(grids) - 1) / (count - 1))] for index in range(count)]
        frames = [(f"step {step:,}", path) for step, path in grids]
        with self._errors.suppress(self._directory / PROGRESSION):
            unreadable = save_animation(self._directory / PROGRESSION, frames)
            if unreadable:
                _logger.warning(
                    f"{PROGRESSION} is without {len(unreadable)} of {len(frames)} grids, which "
                    f"cannot be read, such as {unreadable[0].name}; delete or restore them."
                )
