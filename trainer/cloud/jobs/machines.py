"""Tables of the machines of Vertex AI training: their accelerators, disks, and ways of provisioning.

Compared on 2026-11-29 with copies of Google's pages that were made in 2026, before September 15: "Configure compute
resources for serverless training" (machines, numbers of GPUs, disks) and "Schedule training jobs based on resource
availability" (FLEX_START). The names of accelerators and disks are those of google-cloud-aiplatform 2.7. Left out are
the GPUs that reached their end of support: K80, and P100 on 2026-09-15 (release notes of Compute Engine). T4 and P4
reach it on 2027-08-01.

Google adds machines faster than these tables. Therefore a machine type that is missing here is only a warning; a number
or type of accelerators that contradicts the tables is an error.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.registry import nearest_name

TABLES_DATE = "2026-11-29"
"""Date of the tables, for messages."""
MAX_FLEX_START_SECS = 7 * 24 * 3600
"""Longest run time of a job with the strategy FLEX_START."""
MIN_DISK_GB, MAX_DISK_GB = 100, 64_000
DISK_TYPES = ("pd-ssd", "pd-standard", "hyperdisk-balanced")
FLEX_START_ACCELERATORS = (
    "NVIDIA_L4",
    "NVIDIA_TESLA_A100",
    "NVIDIA_A100_80GB",
    "NVIDIA_H100_80GB",
    "NVIDIA_H100_MEGA_80GB",
    "NVIDIA_H200_141GB",
    "NVIDIA_B200",
)
"""Accelerators for which FLEX_START is documented. Google has extended this list before."""

ACCELERATORS: Mapping[str, tuple[str, int]] = {
    **{f"g2-standard-{vcpus}": ("NVIDIA_L4", 1) for vcpus in (4, 8, 12, 16, 32)},
    "g2-standard-24": ("NVIDIA_L4", 2),
    "g2-standard-48": ("NVIDIA_L4", 4),
    "g2-standard-96": ("NVIDIA_L4", 8),
    **{f"g4-standard-{48 * count}": ("NVIDIA_RTX_PRO_6000", count) for count in (1, 2, 4, 8)},
    **{f"a2-highgpu-{count}g": ("NVIDIA_TESLA_A100", count) for count in (1, 2, 4, 8)},
    "a2-megagpu-16g": ("NVIDIA_TESLA_A100", 16),
    **{f"a2-ultragpu-{count}g": ("NVIDIA_A100_80GB", count) for count in (1, 2, 4, 8)},
    **{f"a3-highgpu-{count}g": ("NVIDIA_H100_80GB", count) for count in (1, 2, 4, 8)},
    "a3-megagpu-8g": ("NVIDIA_H100_MEGA_80GB", 8),
    "a3-ultragpu-8g": ("NVIDIA_H200_141GB", 8),
    "a4-highgpu-8g": ("NVIDIA_B200", 8),
    "a4x-highgpu-4g": ("NVIDIA_GB200", 4),
}
"""Accelerator of each machine that is built with accelerators, and their number, which cannot be chosen."""

RESERVED_MACHINES = ("a4x-highgpu-4g",)
"""Machines that are documented with a reservation only."""

_N1_ACCELERATORS: Mapping[str, Mapping[int, int]] = {
    "NVIDIA_TESLA_T4": {1: 24, 2: 48, 4: 96},
    "NVIDIA_TESLA_P4": {1: 24, 2: 48, 4: 96},
    "NVIDIA_TESLA_V100": {1: 12, 2: 24, 4: 48, 8: 96},
}
"""Accelerators that are attached to N1 machines: allowed numbers, and the most vCPUs of a machine with this number."""
_VCPUS: Mapping[str, tuple[int, ...]] = {
    "c2-standard": (4, 8, 16, 30, 60),
    "e2-standard": (4, 8, 16, 32),
    "e2-highmem": (2, 4, 8, 16),
    "e2-highcpu": (16, 32),
    "m1-ultramem": (40, 80, 160),
    "m1-megamem": (96,),
    "n1-standard": (4, 8, 16, 32, 64, 96),
    "n1-highmem": (2, 4, 8, 16, 32, 64, 96),
    "n1-highcpu": (16, 32, 64, 96),
    "n2-standard": (4, 8, 16, 32, 48, 64, 80),
    "n2-highmem": (2, 4, 8, 16, 32, 48, 64, 80),
    "n2-highcpu": (16, 32, 48, 64, 80),
    **{f"n4-{kind}": (2, 4, 8, 16, 32, 48, 64, 80) for kind in ("standard", "highmem", "highcpu")},
}
"""Numbers of vCPUs of the machines without built-in accelerators; the names end with them, as in `n2-highmem-8`."""
_TPU = re.compile(r"TPU_|cloud-tpu|ct\d|tpu\d")


@dataclass(frozen=True, kw_only=True)
class MachineProblem:
    """Machine that contradicts the tables, or that they do not have."""

    text: str
    """End of a sentence that begins with the machine's place in the file, or with its flag."""
    is_certain: bool
    """False if the machine may be newer than the tables."""


def is_tpu(name: str) -> bool:
    """Returns whether a machine type or an accelerator type is one of TPUs, such as `ct5lp-hightpu-4t` or `TPU_V3`."""
    return _TPU.match(name) is not None


def check_machine(machine_type: str, accelerator: str | None, count: int) -> MachineProblem | None:
    """Compares a machine with the tables. Machines with TPUs, which only programs other than the trainer use, pass.

    Args:
        machine_type: Machine type, such as `g2-standard-24`.
        accelerator: Accelerator type, such as `NVIDIA_L4`; None for no accelerator.
        count: Number of accelerators per machine.

    Returns:
        The problem; None if the machine exists.
    """
    shown = f"{count} {accelerator}" if accelerator else "no accelerator"
    if machine_type in ACCELERATORS:
        required = ACCELERATORS[machine_type]
        if (accelerator, count) == required:
            return None
        needed = f"{required[1]} {required[0]}"
        return _contradiction(
            f"has {machine_type} with {shown}; this machine has {needed}, so give this number and type"
            f"{_machines_with(accelerator, count)}."
        )
    family, _, vcpus = machine_type.rpartition("-")
    if vcpus in map(str, _VCPUS.get(family, ())):
        if accelerator is None:
            return None
        if family.startswith("n1-"):
            return _check_n1(machine_type, int(vcpus), accelerator, count)
        return _contradiction(
            f"has {machine_type} with {shown}, but this machine takes no accelerators"
            f"{_machines_with(accelerator, count)}."
        )
    if is_tpu(machine_type):
        return None
    return MachineProblem(
        text=f"has {machine_type}, which is not in the table of {TABLES_DATE}{_nearest(machine_type)}. The "
        "request fails if Vertex AI does not have this machine.",
        is_certain=False,
    )


def _check_n1(machine_type: str, vcpus: int, accelerator: str, count: int) -> MachineProblem | None:
    counts = _N1_ACCELERATORS.get(accelerator)
    if counts is None:
        return _contradiction(
            f"has {machine_type} with {count} {accelerator}, but N1 machines take {', '.join(_N1_ACCELERATORS)}"
            f"{_machines_with(accelerator, count)}."
        )
    if count not in counts:
        allowed = ", ".join(map(str, counts))
        return _contradiction(f"has {count} {accelerator}, which comes in numbers of {allowed}; give one of them.")
    if vcpus > counts[count]:
        return _contradiction(
            f"has {machine_type} with {count} {accelerator}, which allow at most {counts[count]} vCPUs; give a smaller "
            "machine or more accelerators."
        )
    return None


def _contradiction(text: str) -> MachineProblem:
    return MachineProblem(text=text, is_certain=True)


def _machines_with(accelerator: str | None, count: int) -> str:
    """Returns advice on machines with this accelerator; empty if the tables have none."""
    if accelerator is None:
        return ""
    same = [name for name, required in ACCELERATORS.items() if required == (accelerator, count)]
    names = same or [name for name, required in ACCELERATORS.items() if required[0] == accelerator]
    if not names and accelerator in _N1_ACCELERATORS:
        names = ["n1-standard-8"]
    return (
        f"; machines with {count if same else ''} {accelerator}: {', '.join(names)}".replace("  ", " ") if names else ""
    )


def _nearest(machine_type: str) -> str:
    family = machine_type.rpartition("-")[0]
    known = [*ACCELERATORS, *(f"{name}-{size}" for name, sizes in _VCPUS.items() for size in sizes)]
    nearest = None if family in _VCPUS else nearest_name(machine_type, known, cutoff=0.8)
    return f" (did you mean {nearest}?)" if nearest else ""
