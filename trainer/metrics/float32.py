"""Full float32 precision for feature extractors, on GPUs that would use TensorFloat-32."""

import contextlib
from collections.abc import Iterator

import tensorflow as tf


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
