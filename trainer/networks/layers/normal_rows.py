"""Normal random numbers of samples, with values that do not depend on how the samples are divided."""

import tensorflow as tf

_NUMBERS_PER_COUNTER = 4
PHILOX = 1
"""Number of the generator Philox in TensorFlow's stateless operations."""


def normal_rows(
    key: tf.Tensor, first_row: tf.Tensor | int, num_rows: tf.Tensor | int, size: int, stream: tf.Tensor | int = 0
) -> tf.Tensor:
    """Draws rows of N(0, 1) from an endless table: float32 [num_rows, size].

    XLA makes normal numbers in pairs: of two rows if their number is even, else of two columns. Therefore, an odd
    number of rows is drawn with the row before or after it, so that the pairs are the same for every part of the table.

    Args:
        key: Key of the table, uint64 [1].
        first_row: Number of the first row, int32 [].
        num_rows: Number of rows, known when the graph is built.
        size: Numbers of a row.
        stream: Number of the table among those of the key, int64 [].
    """
    num_counters = -(-size // _NUMBERS_PER_COUNTER)
    is_odd = num_rows % 2
    offset = first_row % 2 * is_odd
    first_counter = tf.cast(first_row - offset, tf.uint64) * num_counters
    numbers = tf.raw_ops.StatelessRandomNormalV2(
        shape=[num_rows + is_odd, num_counters * _NUMBERS_PER_COUNTER],
        key=key,
        counter=tf.stack([first_counter, tf.cast(stream, tf.uint64)]),
        alg=PHILOX,
    )
    return tf.slice(numbers, [offset, 0], [num_rows, size])
