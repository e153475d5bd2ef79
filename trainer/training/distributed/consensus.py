"""What several machines must agree on, told by an exchange of numbers."""

import tensorflow as tf

from trainer.errors import CheckpointError, ConfigError


def gather_per_replica(strategy: tf.distribute.Strategy, number: int) -> list[int]:
    """The number that each replica's process gives, in the order of the replicas. All processes wait for each other."""

    def on_replica() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        return context.all_gather(tf.constant([number], tf.int64), axis=0)

    run = tf.function(lambda: strategy.run(on_replica), autograph=False)
    return strategy.experimental_local_results(run())[0].numpy().tolist()


def check_same(strategy: tf.distribute.Strategy, fingerprint: str) -> None:
    """Refuses to train together under different settings.

    Args:
        strategy: Of all machines.
        fingerprint: Of this one's settings, hexadecimal.

    Raises:
        ConfigError: Another machine has others.
    """
    if len(set(gather_per_replica(strategy, int(fingerprint[:12], 16)))) > 1:
        raise ConfigError("the machines were started with different settings; give all of them the same flags.")


def check_step(strategy: tf.distribute.Strategy, step: int) -> None:
    """Refuses to go on from different steps.

    Raises:
        CheckpointError: Another machine stands elsewhere.
    """
    steps = gather_per_replica(strategy, step)
    if len(set(steps)) > 1:
        raise CheckpointError(
            f"the machines resumed at the steps {', '.join(map(str, steps))}; give a job_dir that all of them see, "
            "such as one in a bucket."
        )
