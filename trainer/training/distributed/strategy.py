"""Distribution strategy of a run. It must be created before anything else uses TensorFlow."""

import errno
import json
import logging
import os
import socket

import tensorflow as tf

from trainer.config import TrainConfig
from trainer.config.choices import StrategyName
from trainer.config.compatibility import check_strategy
from trainer.errors import ConfigError
from trainer.training.distributed.cluster import Cluster

_logger = logging.getLogger(__name__)


def create(config: TrainConfig, cluster: Cluster | None = None) -> tf.distribute.Strategy:
    """Configures the devices and returns the strategy.

    Args:
        config: Config of the run.
        cluster: Machines that train together. None: this machine trains alone.

    Raises:
        ConfigError: If this process cannot provide what the config requests.
    """
    check_strategy(config.strategy, cluster.num_workers if cluster else 1)
    tf.config.experimental.enable_op_determinism()
    if config.num_virtual_replicas > 1:
        _split_cpu(config.num_virtual_replicas)
    if cluster is not None:
        return _create_multi_worker(config, cluster)  # before anything else lists devices
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if config.strategy == StrategyName.MIRRORED or (config.strategy == StrategyName.AUTO and len(devices) > 1):
        return create_mirrored([device.name for device in devices])
    return tf.distribute.get_strategy()


def create_mirrored(devices: list[str]) -> tf.distribute.MirroredStrategy:
    """Returns a mirrored strategy for devices by name, such as `["CPU:0", "CPU:1"]`.

    On CPUs, gradients are reduced on one device, because TensorFlow's CPU collectives allow one strategy per process.
    """
    on_cpu = all("CPU" in device.upper() for device in devices)
    return tf.distribute.MirroredStrategy(
        devices, cross_device_ops=tf.distribute.ReductionToOneDevice() if on_cpu else None
    )


def _create_multi_worker(config: TrainConfig, cluster: Cluster) -> tf.distribute.MultiWorkerMirroredStrategy:
    _check_port(str(cluster.address))
    os.environ["TF_CONFIG"] = json.dumps(cluster.tf_config)  # in the form that TensorFlow reads
    _logger.info(
        f"This is the {cluster.role} at {cluster.address}, one of {cluster.num_workers} machines; training starts as "
        "soon as all of them run."
    )
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=config.worker_timeout_secs)
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def _check_port(address: str) -> None:
    """Checks that the port of this machine is free, because TensorFlow would abort the process otherwise."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server does, to reuse a port just closed
        try:
            probe.bind(("", int(address.rpartition(":")[2])))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise ConfigError(
                f"this machine's address in TF_CONFIG is {address}, but its port is not available ({error.strerror}); "
                "end the program that uses the port, or choose another one."
            ) from error


def _split_cpu(count: int) -> None:
    cpus = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise ConfigError(
            f"num_virtual_devices={count} must be set before this process uses TensorFlow; start a new process."
        ) from error
