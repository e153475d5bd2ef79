"""Counter of the processes that the kernel has killed because the memory was full."""

import re
from pathlib import Path

from trainer.control_group import memory_files

_MACHINE_COUNTERS = Path("/proc/vmstat")


class OomCounter:
    """Number of processes that the kernel has killed for memory in the control group of this process.

    Reads `memory.events` (version 2) or `memory.oom_control` (version 1) of the group. If the group has no counter,
    reads that of the whole machine. Without any, as on macOS, no kill is known.
    """

    def __init__(self) -> None:
        self._last = _read_count()

    def has_grown(self) -> bool:
        """Returns whether the kernel has killed a process since the last call, or since the start."""
        last, self._last = self._last, _read_count()
        return self._last > last


def _read_count() -> int:
    """Returns the counter, or 0 if there is none."""
    for file in (*memory_files("memory.events", "memory.oom_control"), _MACHINE_COUNTERS):
        try:
            match = re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
        except OSError:
            continue
        if match:
            return int(match[1])
    return 0
