"""Checks that all machines of a job have the same settings and the same step."""

import functools
from collections.abc import Callable, Mapping, Set
from typing import Any

import tensorflow as tf

from trainer.errors import CheckpointError, ConfigError, DataError


def gather_per_replica(strategy: tf.distribute.Strategy, number: int) -> list[int]:
    """Returns the number of each replica's process, in the order of the replicas. All processes wait for each other."""
    numbers = strategy.experimental_distribute_values_from_function(lambda context: tf.constant([number], tf.int64))
    return strategy.experimental_local_results(_gather_function(strategy)(numbers))[0].numpy().tolist()


def union(strategy: tf.distribute.Strategy, numbers: Set[int]) -> set[int]:
    """Returns the positive numbers of all machines, which may have different ones. All machines wait for each other."""
    num_rounds = max(gather_per_replica(strategy, len(numbers)))
    padded = [*sorted(numbers), *[0] * (num_rounds - len(numbers))]
    gathered = [gather_per_replica(strategy, number) for number in padded]
    return set().union(*gathered) - {0}


@functools.lru_cache(maxsize=1)
def _gather_function(strategy: tf.distribute.Strategy) -> Callable[[Any], Any]:
    """Returns the compiled function that gathers a value [1] of each replica. It is traced once."""

    def gather(value: tf.Tensor) -> tf.Tensor:
        value = tf.identity(value)  # on the device of the replica; the argument of a function has none
        return tf.distribute.get_replica_context().all_gather(value, axis=0)

    return tf.function(lambda values: strategy.run(gather, (values,)), autograph=False)


def check_same_settings(strategy: tf.distribute.Strategy, fingerprint: str) -> None:
    """Checks that all machines have the same settings.

    Args:
        strategy: Strategy that spans all machines.
        fingerprint: Hexadecimal fingerprint of this machine's settings.

    Raises:
        ConfigError: If another machine has different settings.
    """
    if not _is_same(strategy, fingerprint):
        raise ConfigError(
            "the machines were started with different settings; give all of them the same flags, and also --size and "
            "--global_batch_size if their devices differ and the recipe chooses by the device."
        )


def check_same_data(strategy: tf.distribute.Strategy, fingerprints: Mapping[str, str]) -> None:
    """Checks that all machines, which have the same settings, have loaded the same data.

    Args:
        strategy: Strategy that spans all machines.
        fingerprints: Hexadecimal fingerprint of each dataset on this machine, by name.

    Raises:
        DataError: If another machine has loaded different data.
    """
    for name, fingerprint in fingerprints.items():
        if not _is_same(strategy, fingerprint):
            raise DataError(
                f"the machines have loaded different data ({name} has SHA-256 {fingerprint[:12]}… on this one); give "
                "all of them the same files, or a dataset in a bucket."
            )


def _is_same(strategy: tf.distribute.Strategy, fingerprint: str) -> bool:
    """Returns whether all machines have the same fingerprint."""
    return len(set(gather_per_replica(strategy, int(fingerprint[:12], 16)))) == 1


def check_same_step(strategy: tf.distribute.Strategy, step: int) -> None:
    """Checks that all machines start from the same step.

    Raises:
        CheckpointError: If another machine starts from a different step.
    """
    steps = gather_per_replica(strategy, step)
    if len(set(steps)) > 1:
        raise CheckpointError(
            f"the machines resumed at different steps ({', '.join(map(str, steps))}); give a job_dir that all of them "
            "can read, such as one in a bucket."
        )
