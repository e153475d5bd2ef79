"""The machines of a job and this process's place among them, as `TF_CONFIG` or `CLUSTER_SPEC` tell it."""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from trainer.errors import ConfigError

Role = Literal["chief", "worker", "evaluator"]

_ROLES: dict[str, dict[str, str]] = {
    "TF_CONFIG": {"chief": "chief", "master": "chief", "worker": "worker", "ps": "server", "evaluator": "evaluator"},
    "CLUSTER_SPEC": {
        "workerpool0": "chief",
        "workerpool1": "worker",
        "workerpool2": "server",
        "workerpool3": "evaluator",
    },
}
"""What each variable calls the roles."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Several machines of one job, seen from one of them."""

    addresses: tuple[str, ...]
    """HOST:PORT of every machine that trains, the chief first, then the workers in their order."""
    role: Role
    """What this machine does. An evaluator is beside the cluster: `addresses` does not hold it."""
    index: int
    """This machine's number among those of its role, from 0."""

    @property
    def is_chief(self) -> bool:
        """Whether this machine is the one that writes the run directory."""
        return self.role == "chief"

    @property
    def is_evaluator(self) -> bool:
        """Whether this machine evaluates and trains nothing."""
        return self.role == "evaluator"

    @property
    def worker_index(self) -> int | None:
        """This machine's position in `addresses`: 0 is the chief. None: an evaluator."""
        return None if self.is_evaluator else self.index + (self.role == "worker")

    @property
    def address(self) -> str | None:
        """HOST:PORT of this machine. None: an evaluator."""
        return None if self.worker_index is None else self.addresses[self.worker_index]

    @property
    def num_workers(self) -> int:
        """Number of machines that train, the chief counted."""
        return len(self.addresses)

    @property
    def tf_config(self) -> dict[str, Any]:
        """`TF_CONFIG` as `MultiWorkerMirroredStrategy` reads it: one `chief`, the other machines `worker`."""
        groups = {"chief": list(self.addresses[:1]), "worker": list(self.addresses[1:])}
        return {
            "cluster": {job: addresses for job, addresses in groups.items() if addresses},
            "task": {"type": self.role, "index": self.index},
        }


def parse(tf_config: str | None, cluster_spec: str | None) -> Cluster | None:
    """Reads the two variables, of which either is enough.

    Args:
        tf_config: The text of `TF_CONFIG`. None: it is not set.
        cluster_spec: The text of `CLUSTER_SPEC`. None: it is not set.

    Returns:
        The cluster; None where this machine trains alone.

    Raises:
        ConfigError: One cannot be understood, asks for parameter servers, or contradicts the other.
    """
    ours = _parse("TF_CONFIG", tf_config) if tf_config else None
    pools = _parse("CLUSTER_SPEC", cluster_spec) if cluster_spec else None
    if ours and pools:
        _check_agreement(ours, pools)
    found = ours or pools
    return None if found is None or (found.num_workers == 1 and not found.is_evaluator) else found


def _parse(variable: str, text: str) -> Cluster | None:
    """The cluster that one variable describes, be it of one machine; None where it lists no machine."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{variable} is not JSON ({error}); correct it, or unset it to train alone.") from error
    if not isinstance(content, dict) or not isinstance(content.get("cluster") or {}, dict):
        raise ConfigError(
            f'{variable}={text:.60} must be a JSON object, as in {{"cluster": {{...}}, "task": {{...}}}}.'
        )
    if not content.get("cluster"):
        return None
    groups = _groups(variable, content["cluster"])
    role, index = _task(variable, content.get("task"), groups)
    chief, workers = groups.get("chief", []), groups.get("worker", [])
    if not chief:  # as TensorFlow reads it: the first worker is the chief
        chief, workers = workers[:1], workers[1:]
        if role == "worker":
            role, index = ("worker", index - 1) if index else ("chief", 0)
    return Cluster(addresses=(*chief, *workers), role=role, index=index)


def _groups(variable: str, jobs: dict[str, Any]) -> dict[str, list[str]]:
    """The addresses by role."""
    groups: dict[str, list[str]] = {}
    for job, addresses in jobs.items():
        role = _ROLES[variable].get(job)
        if role is None:
            raise ConfigError(f"{variable} lists {job!r}, which is no role; roles are {', '.join(_ROLES[variable])}.")
        if not isinstance(addresses, list) or not all(_is_address(address) for address in addresses):
            raise ConfigError(f"{variable} gives {job}={addresses!r}; it must be a list of HOST:PORT.")
        if role == "server" and addresses:
            raise ConfigError(
                f"{variable} lists parameter or reduction servers ({job}: {', '.join(addresses)}), which this trainer "
                "cannot use; leave that pool empty."
            )
        groups[role] = groups.get(role, []) + addresses
    _check_groups(variable, groups)
    return groups


def _check_groups(variable: str, groups: dict[str, list[str]]) -> None:
    chief, workers = groups.get("chief", []), groups.get("worker", [])
    if len(chief) > 1:
        raise ConfigError(f"{variable} lists {len(chief)} chiefs ({', '.join(chief)}); keep one.")
    if not chief and variable == "CLUSTER_SPEC":
        raise ConfigError(f"{variable} lists no workerpool0, which holds the chief; give the first pool one machine.")
    if not chief and not workers:
        raise ConfigError(f"{variable} lists no machine that trains; give it a chief.")
    repeated = [address for address in (*chief, *workers) if (*chief, *workers).count(address) > 1]
    if repeated:
        raise ConfigError(f"{variable} lists {repeated[0]} twice; give each machine an address of its own.")


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\S+:\d+", value) is not None


def _task(variable: str, task: Any, groups: dict[str, list[str]]) -> tuple[Role, int]:
    """The role and number of this machine."""
    if not isinstance(task, dict) or not {"type", "index"} <= task.keys():
        raise ConfigError(
            f'{variable} has task={json.dumps(task)}; it must say which machine this is, as in {{"type": '
            f'"{next(iter(_ROLES[variable]))}", "index": 0}}.'
        )
    job, index = task["type"], str(task["index"])
    if not index.isdecimal():
        raise ConfigError(f"{variable} has task index {task['index']!r}; it must be a whole number from 0.")
    role = _ROLES[variable].get(job) if isinstance(job, str) else None
    match role:
        case "evaluator":
            return role, int(index)
        case "chief" | "worker" if groups.get(role):
            if int(index) < len(groups[role]):
                return role, int(index)
            raise ConfigError(
                f"{variable} makes this machine {job} {index}, and lists {len(groups[role])} of them, counted from 0; "
                "correct the index."
            )
    raise ConfigError(f"{variable} makes this machine {job!r}, which its cluster does not list; correct the task.")


def _check_agreement(ours: Cluster, pools: Cluster) -> None:
    if ours.num_workers != pools.num_workers:
        raise ConfigError(
            f"TF_CONFIG and CLUSTER_SPEC disagree on how many machines train ({ours.num_workers} and "
            f"{pools.num_workers}); unset the one that is wrong."
        )
    if (ours.role, ours.index) != (pools.role, pools.index):
        raise ConfigError(
            f"TF_CONFIG makes this machine {ours.role} {ours.index} and CLUSTER_SPEC {pools.role} {pools.index}; "
            "unset the one that is wrong."
        )
