"""Memory of the GPUs of this machine."""

import ctypes

_CUDA_DRIVER = "libcuda.so.1"


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
