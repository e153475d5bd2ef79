"""Position of the samples of a forward pass in the global batch.

Layers with random numbers per sample start at their first sample, so that the numbers depend neither on the number of
replicas nor on the number of micro-batches.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import tensorflow as tf

_MICRO_BATCH: contextvars.ContextVar[tuple[tf.Tensor | int, int]] = contextvars.ContextVar(
    "micro_batch", default=(0, 1)
)
_IS_ALONE: contextvars.ContextVar[bool] = contextvars.ContextVar("is_alone", default=False)


@contextlib.contextmanager
def micro_batch(index: tf.Tensor | int, count: int) -> Iterator[None]:
    """Runs the passes of this context on one of several micro-batches of the replica's batch.

    Args:
        index: Index of the micro-batch, int32 [].
        count: Number of micro-batches of each replica.
    """
    token = _MICRO_BATCH.set((index, count))
    try:
        yield
    finally:
        _MICRO_BATCH.reset(token)


@contextlib.contextmanager
def separate_batch() -> Iterator[None]:
    """Treats each pass in this context as a whole batch with its own seeds, not as a part of the global batch."""
    token = _IS_ALONE.set(True)
    try:
        yield
    finally:
        _IS_ALONE.reset(token)


def part_of_batch() -> tuple[tf.Tensor, int]:
    """Returns the index of this pass's part of the global batch, int32 [], and the number of parts of the batch."""
    if _IS_ALONE.get():
        return tf.zeros([], tf.int32), 1
    context = tf.distribute.get_replica_context()
    index, count = _MICRO_BATCH.get()
    replica = tf.convert_to_tensor(context.replica_id_in_sync_group, tf.int32)
    return replica * count + index, context.num_replicas_in_sync * count
