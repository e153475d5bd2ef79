"""The one source of randomness: every random number is a function of (seed, purpose, step, place in the global batch).

The generator is Philox, counter-based: the key says which stream (seed and purpose), the counter's high word is the
step and its low word runs over the samples. A replica that starts at its own first sample therefore draws exactly its
part of what one replica alone would draw.
"""

import contextlib
import hashlib
import random
from collections.abc import Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

_SEED_STATE = "seed_generator_state"
"""Name that Keras gives to the state of a random layer."""


def seed_states(networks: Iterable[keras.layers.Layer]) -> list[keras.Variable]:
    """The states of the random layers of networks, in order."""
    return [variable for network in networks for variable in network.variables if variable.name == _SEED_STATE]


def stream_key(seed: int, purpose: str) -> int:
    """The 64-bit key of a stream, a hash of the seed and the purpose."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


class StepRng:
    """The random numbers of one replica in one step, by purpose.

    Args:
        seed: The run's seed; a tensor int64 [] where it is not known while the graph is made.
        step: The step's number, a tensor or an int.
        num_samples: Samples of this replica's batch, B.
        replica: Index of the replica; it owns the samples from `replica * num_samples` on.
        purpose: What this noise is for, such as a phase's name.
        repeat: Which of the phase's passes in the step it is for, from 0. It says so, and changes no number.
    """

    def __init__(
        self,
        seed: int | tf.Tensor,
        step: tf.Tensor | int,
        num_samples: int,
        replica: tf.Tensor | int = 0,
        purpose: str = "",
        repeat: int = 0,
    ):
        self._seed = seed
        self.step = step
        self.num_samples = num_samples
        self._replica = replica
        self._purpose = purpose
        self.repeat = repeat

    def child(self, purpose: str) -> "StepRng":
        """Independent noise for a part of the step."""
        purpose = f"{self._purpose}/{purpose}"
        return StepRng(self._seed, self.step, self.num_samples, self._replica, purpose, self.repeat)

    def normal(self, purpose: str, size: int) -> tf.Tensor:
        """N(0, 1): float32 [B, size]."""
        draw = tf.raw_ops.StatelessRandomNormalV2
        return self._draw(draw, purpose, size)

    def uniform(self, purpose: str, size: int) -> tf.Tensor:
        """U[0, 1): float32 [B, size]."""
        return self._draw(tf.raw_ops.StatelessRandomUniformV2, purpose, size)

    def integers(self, purpose: str, limit: int) -> tf.Tensor:
        """Uniform whole numbers under `limit`: int32 [B]."""
        numbers = tf.cast(self.uniform(purpose, 1)[:, 0] * limit, tf.int32)
        return tf.minimum(numbers, limit - 1)

    def seeds(self, shared: list[bool]) -> list[tf.Tensor]:
        """Seeds for Keras seed generators: uint32 [2] each.

        Args:
            shared: For each generator, whether all replicas get the same seed (else each its own).
        """
        if not shared:
            return []
        of_first, of_ours = (self._seed_rows(len(shared), replica) for replica in (0, self._replica))
        return [of_first[index] if same else of_ours[index] for index, same in enumerate(shared)]

    def _seed_rows(self, count: int, replica: tf.Tensor | int) -> tf.Tensor:
        return tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[count, 2],
            key=self._key("layers"),
            counter=self._counter(tf.cast(replica, tf.uint64) * (count // 2 + 1)),
            alg=1,
            dtype=tf.uint32,
        )

    def _draw(self, draw: object, purpose: str, size: int) -> tf.Tensor:
        num_groups = -(-size // 4)  # one counter gives four numbers; a sample starts at a counter of its own
        first = tf.cast(self._replica, tf.uint64) * (self.num_samples * num_groups)
        numbers = draw(  # type: ignore[operator]
            shape=[self.num_samples, num_groups * 4], key=self._key(purpose), counter=self._counter(first), alg=1
        )
        return numbers[:, :size]

    def _key(self, purpose: str) -> tf.Tensor:
        is_known = isinstance(self._seed, int)
        key = np.array([stream_key(self._seed if is_known else 0, f"{self._purpose}/{purpose}")], np.uint64)
        return tf.constant(key) if is_known else tf.bitwise.bitwise_xor(key, tf.cast(self._seed, tf.uint64))

    def _counter(self, low: tf.Tensor) -> tf.Tensor:
        return tf.stack([low, tf.cast(self.step, tf.uint64)])


@contextlib.contextmanager
def seeded_initialization(seed: int) -> Iterator[None]:
    """Makes Keras's default initializers a function of `seed`.

    Python's and NumPy's generators are left as they were; TensorFlow's and Keras's global seeds stay set.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(stream_key(seed, "weights") % 2**31)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
