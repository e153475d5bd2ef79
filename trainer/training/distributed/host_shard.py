"""Examples of a chunk that this host uses when several machines train, so that it does not decode the others."""

import numpy as np
import tensorflow as tf

from trainer.data.pipeline.batching import BatchSlice, ChunkVisit
from trainer.training.rng import stream_key


def order_key(seed: int, repeat: int) -> int:
    """Returns the key of the order in which repetition `repeat` of a phase uses the images."""
    return stream_key(seed, f"order/{repeat}")


class HostShard:
    """Computes the positions of a chunk visit that this process's replicas use.

    Args:
        strategy: Strategy that spans all machines, with the same number of replicas on each.
        num_steps: Number of steps of a visit.
        global_batch_size: Batch size over all replicas.
        seed: Seed of the run.
        repeats: Largest number of repetitions of a phase.

    Attributes:
        max_examples: Largest possible number of positions.
    """

    def __init__(
        self, strategy: tf.distribute.Strategy, num_steps: int, global_batch_size: int, seed: int, repeats: int
    ):
        self._num_replicas = strategy.num_replicas_in_sync
        num_local = len(strategy.extended.worker_devices)
        resolver = strategy.cluster_resolver
        task = resolver.task_id + (resolver.task_type == "worker" and "chief" in resolver.cluster_spec().jobs)
        self._local_replicas = range(task * num_local, (task + 1) * num_local)
        self._num_steps, self._replica_batch_size = num_steps, global_batch_size // self._num_replicas
        self._keys = [order_key(seed, repeat) for repeat in range(repeats)]
        self.max_examples = num_steps * self._replica_batch_size * num_local * repeats

    def __call__(self, visit: ChunkVisit) -> np.ndarray:
        """Returns the positions in ascending order, without duplicates: int64 [at most `max_examples`]."""
        visit_numbers = tf.constant([visit.number, visit.first_step, visit.size], tf.int64)
        steps = tf.range(visit.first_step, visit.first_step + self._num_steps, dtype=tf.int64)
        positions = [
            tf.map_fn(
                lambda step, key=key, replica=replica: self._positions(step, key, replica, visit_numbers),
                steps,
                tf.int32,
            )
            for key in self._keys
            for replica in self._local_replicas
        ]
        return np.unique(tf.stack(positions).numpy())

    def _positions(self, step: tf.Tensor, key: int, replica: int, visit: tf.Tensor) -> tf.Tensor:
        return BatchSlice(key, step, replica, self._replica_batch_size, self._num_replicas).indices_of_chunk(visit)
