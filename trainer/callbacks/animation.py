"""The run as a moving picture."""

import os
from collections.abc import Mapping
from typing import Any

import keras

from trainer.callbacks.order import Priority
from trainer.image_io import save_animation
from trainer.storage import local_path

_MAX_FRAMES = 100


class Animation(keras.callbacks.Callback):
    """Makes `progression.gif` of a folder's sample grids when training ends. Put it after the `SampleGrid`.

    A run that SIGTERM cuts makes none: the time that is left belongs to its checkpoint. The run that goes on makes it.

    Args:
        directory: Of the grids, and of the GIF.
    """

    priority = Priority.ANIMATION

    def __init__(self, directory: str | os.PathLike[str]):
        super().__init__()
        self._directory = local_path(directory)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if self.model.preempted and self.model.step < self.params["num_steps"]:
            return
        grids = sorted(self._directory.glob("step-*.png"))
        grids = [grid for grid in grids if int(grid.stem[5:]) <= self.model.step]
        if len(grids) < 2:
            return
        count = min(len(grids), _MAX_FRAMES)
        chosen = [grids[round(index * (len(grids) - 1) / (count - 1))] for index in range(count)]
        frames = [(f"step {int(grid.stem[5:]):,}", grid) for grid in chosen]
        save_animation(self._directory / "progression.gif", frames)
