"""Files about memory in the control group of this process, by which Linux limits containers."""

from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


def memory_files(name: str, name_in_version_1: str) -> Iterator[Path]:
    """Yields the files of one name in the group of this process and in the groups around it, from inside to outside.

    A container often sees its own group at the root, whatever path the kernel names, so that only some of the files
    exist.

    Args:
        name: Name of the file in version 2 of control groups, such as `memory.max`.
        name_in_version_1: Name of the file in version 1, such as `memory.limit_in_bytes`.
    """
    try:
        lines = _GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = _ROOT / "memory" if controllers else _ROOT
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            yield folder / (name_in_version_1 if controllers else name)
            if folder == root:
                break
