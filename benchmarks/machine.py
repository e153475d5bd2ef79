"""Facts about this machine, for the records of measurements. Importing this module does not import TensorFlow."""

import importlib.metadata
import importlib.util
import platform
from pathlib import Path
from typing import Any

from benchmarks import budget


def machine_facts(*libraries: str) -> dict[str, Any]:
    """Returns the processor, the number of cores that this process may use, and versions.

    Args:
        *libraries: Names of packages whose versions are added if they are installed, besides that of TensorFlow.
    """
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": len(budget.available_cores()),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("tensorflow", *libraries) if is_installed(name)},
    }


def gpu_facts() -> dict[str, Any]:
    """Returns the GPUs, and the versions of the libraries for them. It imports TensorFlow."""
    import tensorflow as tf

    details = tf.config.experimental.get_device_details
    gpus = [
        {key: str(value) for key, value in details(device).items()} for device in tf.config.list_physical_devices("GPU")
    ]
    build = tf.sysconfig.get_build_info()
    versions = {name: str(build[name]) for name in ("cuda_version", "cudnn_version") if name in build}
    return {"gpus": gpus} | versions


def is_installed(name: str) -> bool:
    """Returns whether a package is installed."""
    return importlib.util.find_spec(name) is not None
