"""Which images of a window this process takes, where several machines train: the others need not be decoded here."""

import numpy as np
import tensorflow as tf

from trainer.data.pipeline.batching import BatchSlice, ChunkVisit
from trainer.training.rng import stream_key


def order_key(seed: int, repeat: int) -> int:
    """The key of the order in which a phase's repeat number `repeat` takes the images."""
    return stream_key(seed, f"order/{repeat}")


class HostShard:
    """The places of a visit that this process's replicas take.

    Args:
        strategy: Of all machines, with as many replicas on each.
        num_steps: Of a visit.
        global_batch_size: Of the run.
        seed: The run's.
        repeats: Most repeats of a phase.

    Attributes:
        most: Places there can be.
    """

    def __init__(
        self, strategy: tf.distribute.Strategy, num_steps: int, global_batch_size: int, seed: int, repeats: int
    ):
        self._num_replicas = strategy.num_replicas_in_sync
        count = len(strategy.extended.worker_devices)
        resolver = strategy.cluster_resolver
        task = resolver.task_id + (resolver.task_type == "worker" and "chief" in resolver.cluster_spec().jobs)
        self._replicas = range(task * count, (task + 1) * count)
        self._num_steps, self._batch = num_steps, global_batch_size // self._num_replicas
        self._keys = [order_key(seed, repeat) for repeat in range(repeats)]
        self.most = num_steps * self._batch * count * repeats

    def __call__(self, visit: ChunkVisit) -> np.ndarray:
        told = tf.constant([visit.number, visit.first_step, visit.size], tf.int64)
        steps = tf.range(visit.first_step, visit.first_step + self._num_steps, dtype=tf.int64)
        taken = [
            tf.map_fn(lambda step, key=key, replica=replica: self._of(step, key, replica, told), steps, tf.int32)
            for key in self._keys
            for replica in self._replicas
        ]
        return np.unique(tf.stack(taken).numpy())

    def _of(self, step: tf.Tensor, key: int, replica: int, visit: tf.Tensor) -> tf.Tensor:
        return BatchSlice(key, step, replica, self._batch, self._num_replicas).indices_of_chunk(visit)
