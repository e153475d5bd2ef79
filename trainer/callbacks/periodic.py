"""When a callback that acts at certain steps acts."""

import keras


class Periodic(keras.callbacks.Callback):
    """A callback that is due at every multiple of `every_steps` (0: at none) and at the last step.

    Args:
        every_steps: Windows of the loop end at its multiples.
    """

    def __init__(self, every_steps: int):
        super().__init__()
        self.every_steps = every_steps

    @property
    def is_due(self) -> bool:
        """Whether the step that was just reached is one of them."""
        step = self.model.step
        return bool(self.every_steps and step % self.every_steps == 0) or step == self.params["num_steps"]
