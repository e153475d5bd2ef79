"""Where a run trains: the distribution strategy of a config, made before anything else touches TensorFlow."""

import errno
import json
import os
import socket

import tensorflow as tf

from trainer.config import TrainConfig
from trainer.config.compatibility import check_strategy
from trainer.errors import ConfigError
from trainer.training.distributed.cluster import Cluster


def create(config: TrainConfig, cluster: Cluster | None = None) -> tf.distribute.Strategy:
    """Configures the devices and returns the strategy.

    Args:
        config: Of the run.
        cluster: The machines that train together; None: this one trains alone.

    Raises:
        ConfigError: The strategy asks for what this process cannot give.
    """
    check_strategy(config.strategy, cluster.num_workers if cluster else 1)
    tf.config.experimental.enable_op_determinism()
    if config.num_virtual_devices > 1:
        _split_cpu(config.num_virtual_devices)
    if cluster is not None:
        return _over_machines(config, cluster)  # before anything else looks at devices
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if config.strategy == "mirrored" or (config.strategy == "auto" and len(devices) > 1):
        return mirrored([device.name for device in devices])
    return tf.distribute.get_strategy()


def _over_machines(config: TrainConfig, cluster: Cluster) -> tf.distribute.MultiWorkerMirroredStrategy:
    _check_port(str(cluster.address))
    os.environ["TF_CONFIG"] = json.dumps(cluster.tf_config)  # in the form that TensorFlow reads
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=config.worker_timeout_secs)
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def _check_port(address: str) -> None:
    """Refuses a port of this machine that another program has; TensorFlow would end the process over it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server does, over what has just ended
        try:
            probe.bind(("", int(address.rpartition(":")[2])))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise ConfigError(
                f"the port of {address}, which is this machine in TF_CONFIG, cannot be listened on ({error.strerror}); "
                "end the program that has it, or give this one another."
            ) from error


def spans_machines(strategy: tf.distribute.Strategy) -> bool:
    """Whether other processes train the same model."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def mirrored(devices: list[str]) -> tf.distribute.MirroredStrategy:
    """A mirrored strategy over devices by name, such as `["CPU:0", "CPU:1"]`.

    On CPUs gradients meet on one device: TensorFlow's collectives there allow one strategy a process.
    """
    on_cpu = all("CPU" in device.upper() for device in devices)
    return tf.distribute.MirroredStrategy(
        devices, cross_device_ops=tf.distribute.ReductionToOneDevice() if on_cpu else None
    )


def _split_cpu(count: int) -> None:
    cpus = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise ConfigError(
            f"num_virtual_devices={count} must be set before TensorFlow is used in this process; start a new one."
        ) from error
