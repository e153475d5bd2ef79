"""Sums over replicas that do not depend on how replicas are spread over devices and machines.

A ring of three machines adds the parts of a tensor in different orders, and one device adds them in a single order. In
floating point the results differ. On CPUs, which tests use to compare runs, all values are gathered and added in the
order of the replicas. On GPUs the faster collectives of the devices compute the sum.
"""

from collections.abc import Sequence

import tensorflow as tf


def all_reduce_sum(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the sum of each tensor over all replicas, with one exchange per dtype. Call it in a replica context."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1 or not tensors:
        return list(tensors)
    if not all("CPU" in device.upper() for device in context.strategy.extended.worker_devices):
        return list(context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors)))
    sums: list[tf.Tensor] = list(tensors)
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        indices = [index for index, tensor in enumerate(tensors) if tensor.dtype == dtype]
        flat = tf.concat([tf.reshape(tensors[index], [-1]) for index in indices], axis=0)
        per_replica = context.all_gather(flat[tf.newaxis], axis=0)
        total = tf.add_n(tf.unstack(per_replica, context.num_replicas_in_sync))
        sizes = [tensors[index].shape.num_elements() for index in indices]
        for index, part in zip(indices, tf.split(total, sizes), strict=True):
            sums[index] = tf.reshape(part, tensors[index].shape)
    return sums
