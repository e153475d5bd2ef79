"""Properties of this machine's processors: support for bfloat16, and memory."""

import ctypes
import os
import re
from pathlib import Path

import tensorflow as tf

_CUDA_DRIVER = "libcuda.so.1"
_CPU_FLAGS = {"amx_bf16", "avx512_bf16"}
_MIN_COMPUTE_CAPABILITY = (8, 0)


def supports_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Returns whether the processors that train here multiply bfloat16 numbers faster than float32 numbers.

    GPUs do from compute capability 8.0 on, and x86 CPUs with AMX-BF16 or AVX512-BF16. Other CPUs, and CPUs of systems
    that do not list their features in `cpuinfo`, convert to float32 and back, which is slower than float32.

    Args:
        cpuinfo: File in which Linux lists the features of the CPU.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return all((detail.get("compute_capability") or (0, 0)) >= _MIN_COMPUTE_CAPABILITY for detail in details)
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower() in ("0", "false"):
        return False  # TensorFlow's other kernels do not use these instructions
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return match is not None and not _CPU_FLAGS.isdisjoint(match[1].split())


def gpu_memory_gib() -> float | None:
    """Returns the memory of the smallest visible GPU in GiB; None if the driver of NVIDIA does not state it.

    TensorFlow states it only after it has taken the memory. The driver respects CUDA_VISIBLE_DEVICES and MIG.
    """
    try:
        driver = ctypes.CDLL(_CUDA_DRIVER)
    except OSError:  # GPUs of other vendors have no such library
        return None
    count, device, num_bytes = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return None
    sizes = []
    for index in range(count.value):
        if driver.cuDeviceGet(ctypes.byref(device), index):
            return None
        if driver.cuDeviceTotalMem_v2(ctypes.byref(num_bytes), device):
            return None
        sizes.append(num_bytes.value)
    return min(sizes, default=0) / 2**30 or None
