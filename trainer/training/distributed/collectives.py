"""Sums over replicas, added in their order: the same bits however replicas are spread over devices and machines.

A ring of three machines adds each part of a tensor in another order, and one device adds all in one; in floating point
that differs. On CPUs, where runs are rehearsed and compared, everything is gathered and added in the order of the
replicas. On GPUs their own collectives are faster, and sum.
"""

from collections.abc import Sequence

import tensorflow as tf


def all_reduce_sum(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """In a replica context: the sum of each tensor over all replicas, in one exchange a type."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1 or not tensors:
        return list(tensors)
    if not all("CPU" in device.upper() for device in context.strategy.extended.worker_devices):
        return list(context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors)))
    summed: list[tf.Tensor] = list(tensors)
    for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
        indices = [index for index, tensor in enumerate(tensors) if tensor.dtype == kind]
        parts = [tf.reshape(tensors[index], [-1]) for index in indices]
        of_all = context.all_gather(tf.concat(parts, axis=0)[tf.newaxis], axis=0)
        total = tf.add_n(tf.unstack(of_all, context.num_replicas_in_sync))
        sizes = [tensors[index].shape.num_elements() for index in indices]
        for index, part in zip(indices, tf.split(total, sizes), strict=True):
            summed[index] = tf.reshape(part, tensors[index].shape)
    return summed
