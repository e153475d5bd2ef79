"""Counter-based random numbers: functions of (seed, purpose, step, index in the global batch).

The generator is Philox. The key selects the stream (seed and purpose), the high word of the counter is the step, and
the low word counts samples. A replica starts at its own first sample, so that any number of replicas draws the same
numbers for the global batch.
"""

import contextlib
import hashlib
import random
import threading
import types
from collections.abc import Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf
from keras.src.random import seed_generator as keras_seeds

from trainer.networks.layers.normal_rows import PHILOX, normal_rows

_SEED_STATE = "seed_generator_state"
"""Name that Keras gives to the state of a random layer."""


def seed_states(networks: Iterable[keras.layers.Layer]) -> list[keras.Variable]:
    """Returns the states of the random layers of networks, in order."""
    return [variable for network in networks for variable in network.variables if variable.name == _SEED_STATE]


def stream_key(seed: int, purpose: str) -> int:
    """Returns the 64-bit key of a stream: a hash of the seed and the purpose."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


class StepRng:
    """The random numbers of one replica in one step, by purpose.

    Args:
        seed: Seed of the run; a tensor int64 [] if it is an input of the graph.
        step: Number of the step, a tensor or an int.
        num_samples: Number of samples in this replica's batch, B.
        replica: Index of the replica, whose first sample is `replica * num_samples`.
        purpose: Purpose of the numbers, such as the name of a phase.
        repeat: Number of the phase's pass in the step, from 0. It does not change the numbers.
        salt: Number of rollbacks of the run. Another salt gives other numbers for the same steps.
    """

    def __init__(
        self,
        seed: int | tf.Tensor,
        step: tf.Tensor | int,
        num_samples: int,
        replica: tf.Tensor | int = 0,
        purpose: str = "",
        repeat: int = 0,
        salt: int = 0,
    ):
        self._seed = seed
        self.step = step
        self.num_samples = num_samples
        self._replica = replica
        self._purpose = purpose
        self.repeat = repeat
        self.salt = salt

    @property
    def indices(self) -> tf.Tensor:
        """Indices of the samples in the global batch: int32 [B]."""
        return tf.cast(self._replica, tf.int32) * self.num_samples + tf.range(self.num_samples)

    def child(self, purpose: str) -> "StepRng":
        """Returns independent random numbers for a part of the step."""
        purpose = f"{self._purpose}/{purpose}"
        return StepRng(self._seed, self.step, self.num_samples, self._replica, purpose, self.repeat, self.salt)

    def normal(self, purpose: str, size: int) -> tf.Tensor:
        """Draws from N(0, 1): float32 [B, size]."""
        first_row = tf.cast(self._replica, tf.int32) * self.num_samples
        return normal_rows(self._key(purpose), first_row, self.num_samples, size, self.step)

    def uniform(self, purpose: str, size: int) -> tf.Tensor:
        """Draws from U[0, 1): float32 [B, size]."""
        num_groups = -(-size // 4)  # one counter gives four numbers; each sample has its own counters
        first = tf.cast(self._replica, tf.uint64) * (self.num_samples * num_groups)
        numbers = tf.raw_ops.StatelessRandomUniformV2(
            shape=[self.num_samples, num_groups * 4], key=self._key(purpose), counter=self._counter(first), alg=PHILOX
        )
        return numbers[:, :size]

    def integers(self, purpose: str, limit: int) -> tf.Tensor:
        """Draws integers from 0 to `limit` - 1: int32 [B]."""
        numbers = tf.cast(self.uniform(purpose, 1)[:, 0] * limit, tf.int32)
        return tf.minimum(numbers, limit - 1)

    def seeds(self, shared: list[bool]) -> list[tf.Tensor]:
        """Returns seeds for Keras seed generators: uint32 [2] each.

        Args:
            shared: For each generator, whether all replicas get the same seed.
        """
        if not shared:
            return []
        first_rows, replica_rows = (self._seed_rows(len(shared), replica) for replica in (0, self._replica))
        return [first_rows[index] if is_shared else replica_rows[index] for index, is_shared in enumerate(shared)]

    def _seed_rows(self, count: int, replica: tf.Tensor | int) -> tf.Tensor:
        return tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[count, 2],
            key=self._key("layers"),
            counter=self._counter(tf.cast(replica, tf.uint64) * (count // 2 + 1)),
            alg=PHILOX,
            dtype=tf.uint32,
        )

    def _key(self, purpose: str) -> tf.Tensor:
        is_known = not tf.is_tensor(self._seed)
        stream = f"{self._purpose}/{purpose}{f'#{self.salt}' if self.salt else ''}"
        key = np.array([stream_key(self._seed if is_known else 0, stream)], np.uint64)
        return tf.constant(key) if is_known else tf.bitwise.bitwise_xor(key, tf.cast(self._seed, tf.uint64))

    def _counter(self, low: tf.Tensor) -> tf.Tensor:
        return tf.stack([low, tf.cast(self.step, tf.uint64)])


_initialization = threading.local()
"""The generator of this thread's `seeded_initialization`, as the attribute `generator`."""


def _randint(low: int, high: int) -> int:
    """Draws the seed of an initializer or of a random layer that has none."""
    generator: random.Random | None = getattr(_initialization, "generator", None)
    return (generator or random).randint(low, high)


# Keras draws these seeds from the module `random`, which all threads share: a thread that draws a number while networks
# are made, such as that of a request to a bucket, would change their weights. Keras has no public way to replace it.
keras_seeds.python_random = types.SimpleNamespace(randint=_randint)


@contextlib.contextmanager
def seeded_initialization(seed: int) -> Iterator[None]:
    """Makes Keras's default initializers a function of `seed`, whatever other threads do.

    It restores the generators of Python and NumPy. The global seeds of TensorFlow and Keras stay set.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    outer = getattr(_initialization, "generator", None)
    key = stream_key(seed, "weights") % 2**31
    keras.utils.set_random_seed(key)
    _initialization.generator = random.Random(key)
    try:
        yield
    finally:
        _initialization.generator = outer
        random.setstate(python_state)
        np.random.set_state(numpy_state)
