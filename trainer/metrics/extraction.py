"""Application of functions, such as feature extractors, to many images on all replicas of all machines.

Shapes: `N` rows in all, `B` = `BLOCK_SIZE` rows of a block, `R` replicas.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import heartbeat

BLOCK_SIZE = 50
"""Rows that a replica computes at a time. Another number would change the rounding of all metrics."""

_EXCHANGED_DTYPES = (tf.bfloat16, tf.float16, tf.float32, tf.float64, tf.int32, tf.int64)
"""Types that machines can exchange."""

Block = tuple[np.ndarray, ...]
"""Arrays with the same number of rows, from 1 to `BLOCK_SIZE`."""


class ReplicatedFunction:
    """A function of rows that runs on all replicas.

    Block `i` is computed by replica `i % R`. Every block has the same shape, because short ones are padded with copies
    of their last row, so that the results have the same bits on any number of replicas. On GPUs, the function computes
    in full float32, not in TensorFloat-32.

    Args:
        function: Function of tensors [B, ...] that returns tensors [B, ...]. It runs in a `tf.function`, which is
            traced once for each combination of shapes and types.
        strategy: Strategy whose replicas run the function. If it spans several machines, all of them must make the same
            calls with the same number of blocks. None: this process alone runs it, on its default device.
    """

    def __init__(
        self, function: Callable[..., Iterable[tf.Tensor]], strategy: tf.distribute.Strategy | None = None
    ) -> None:
        self._function, self._strategy = function, strategy
        self._run = tf.function(self._run_on_replicas, autograph=False)

    def __call__(self, blocks: Iterable[Block]) -> tuple[np.ndarray, ...]:
        """Applies the function to at least one block.

        Args:
            blocks: Blocks of arguments [at most B, ...]. They are read one after the other.

        Returns:
            The outputs for all rows in order, [N, ...] each; the same ones in every process.

        Raises:
            heartbeat.Abandoned: After a block, on all machines after the same one, if one of them is to stop early.
        """
        num_replicas = 1 if self._strategy is None else self._strategy.num_replicas_in_sync
        parts: list[Block] = []
        for blocks_of_round in _rounds(blocks, num_replicas):
            with without_tf32():  # not around the reading of blocks, which is the caller's code
                outputs = self._run(*self._distribute(blocks_of_round))
                stop, *arrays = [self._rows_of_all_replicas(output) for output in outputs]
            heartbeat.beat()
            if stop.any():
                raise heartbeat.Abandoned
            for replica, block in enumerate(blocks_of_round):
                rows = slice(replica * BLOCK_SIZE, replica * BLOCK_SIZE + len(block[0]))
                parts.append(tuple(array[rows] for array in arrays))
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    def _distribute(self, blocks: list[Block]) -> tuple[Any, ...]:
        """Returns the arguments of each replica: whether this process is to stop early, bool [1], and a padded block.

        Replicas without a block get the first one.
        """
        stop = tf.constant([heartbeat.is_stop_requested()])

        def padded(replica: int) -> tuple[tf.Tensor, ...]:
            block = blocks[replica if replica < len(blocks) else 0]
            return stop, *(tf.constant(_pad(array)) for array in block)

        if self._strategy is None:
            return padded(0)
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: padded(context.replica_id_in_sync_group)
        )

    def _run_on_replicas(self, *arguments: Any) -> tuple[Any, ...]:
        if self._strategy is None:
            return self._run_on_replica(*arguments)
        return self._strategy.run(self._run_on_replica, args=arguments)

    def _run_on_replica(self, stop: tf.Tensor, *arguments: tf.Tensor) -> tuple[tf.Tensor, ...]:
        outputs = stop, *self._function(*arguments)
        return tuple(map(_all_gather, outputs)) if spans_machines(self._strategy) else outputs

    def _rows_of_all_replicas(self, output: Any) -> np.ndarray:
        """Returns the rows of all replicas, such as [R B, ...]."""
        if self._strategy is None:
            return output.numpy()
        results = self._strategy.experimental_local_results(output)
        if spans_machines(self._strategy):
            return results[0].numpy()
        return np.concatenate([result.numpy() for result in results])


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Turns TensorFloat-32 off in the context, and restores the setting at its end.

    TensorFloat-32 has a mantissa of 10 bits, which changes features in the fourth digit. Kernels read the setting when
    they run. So the context must contain the calls of a `tf.function`, not only its tracing.
    """
    is_enabled = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(is_enabled)


def blocks_of(*arrays: np.ndarray) -> Iterator[Block]:
    """Yields the blocks of arrays [N, ...]."""
    for start in range(0, len(arrays[0]), BLOCK_SIZE):
        yield tuple(array[start : start + BLOCK_SIZE] for array in arrays)


def spans_machines(strategy: tf.distribute.Strategy | None) -> bool:
    """Returns whether other processes have replicas of the strategy."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def all_agree(strategy: tf.distribute.Strategy | None, flag: bool) -> bool:
    """Returns True if all processes call it with True. All processes must call it, and wait for each other."""
    return bool(_gather_from_processes(strategy, np.array([flag], np.int32)).all())


def values_of_first_process(strategy: tf.distribute.Strategy | None, values: Mapping[str, float]) -> dict[str, float]:
    """Returns the values, by name, of the process of the first replica, so that all processes decide alike.

    All processes must call it with the same names, and wait for each other.
    """
    numbers = _gather_from_processes(strategy, np.array(list(values.values()), np.float64))
    return dict(zip(values, numbers[0].tolist(), strict=True))


def _gather_from_processes(strategy: tf.distribute.Strategy | None, numbers: np.ndarray) -> np.ndarray:
    """Returns the numbers [n] of the process of each replica: [R, n]; without other processes [1, n]."""
    rows = numbers[np.newaxis]
    if strategy is None or not spans_machines(strategy):
        return rows
    # A replica computes its block from the values of its own process.
    return _gather_function(strategy)([(rows,)] * strategy.num_replicas_in_sync)[0]


@functools.lru_cache(maxsize=1)
def _gather_function(strategy: tf.distribute.Strategy) -> ReplicatedFunction:
    """Returns the function that gathers a block of each replica. It is traced once for each shape and type."""
    return ReplicatedFunction(lambda values: (values,), strategy)


def _rounds(blocks: Iterable[Block], num_replicas: int) -> Iterator[list[Block]]:
    """Yields lists of as many blocks as there are replicas; the last list may be shorter."""
    iterator = iter(blocks)
    while blocks_of_round := [block for _, block in zip(range(num_replicas), iterator, strict=False)]:
        yield blocks_of_round


def _pad(array: np.ndarray) -> np.ndarray:
    """Repeats the last row up to `BLOCK_SIZE` rows."""
    return np.concatenate([array, np.repeat(array[-1:], BLOCK_SIZE - len(array), axis=0)])


def _all_gather(rows: tf.Tensor) -> tf.Tensor:
    """Returns the rows of all replicas, in the order of the replicas. Call it in a replica context."""
    context = tf.distribute.get_replica_context()
    if rows.dtype in _EXCHANGED_DTYPES:
        return context.all_gather(tf.identity(rows), axis=0)  # an argument of the function has no device
    return tf.cast(context.all_gather(tf.cast(rows, tf.int32), axis=0), rows.dtype)
