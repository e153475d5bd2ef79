"""Ends training after the lease of the run directory is lost."""

import math
from collections.abc import Mapping
from typing import Any

import keras

from trainer.callbacks.base import Priority
from trainer.storage.lease import Lease


class LeaseCheck(keras.callbacks.Callback):
    """Raises `LeaseError` after an execution in which the lease was lost, before other callbacks write.

    Args:
        lease: Lease of the run directory.
    """

    priority = Priority.FIRST

    def __init__(self, lease: Lease):
        super().__init__()
        self._lease = lease

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._lease.verify(math.inf)
