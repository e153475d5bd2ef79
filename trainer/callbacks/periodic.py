"""Callbacks that act at certain steps."""

import keras


class Periodic(keras.callbacks.Callback):
    """A callback that is due at every multiple of `every_steps` and at the last step.

    Args:
        every_steps: Steps between two actions; 0 for only the last step. Executions end at its multiples.
    """

    def __init__(self, every_steps: int):
        super().__init__()
        self.every_steps = every_steps

    @property
    def is_due(self) -> bool:
        """True if the callback is due at the current step."""
        step = self.model.step
        return bool(self.every_steps and step % self.every_steps == 0) or step == self.params["num_steps"]
