"""Machines of a job and the role of this one, parsed from `TF_CONFIG` or `CLUSTER_SPEC`."""

import collections
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainer.errors import ConfigError, quote
from trainer.storage import check_json, documents, parse_json

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
"""Roles by their names in each variable."""


_ADDRESS = documents.text(r"\S{1,255}:[0-9]{1,5}", "HOST:PORT")
_SCHEMA = documents.record({"cluster": documents.optional(documents.map_of(documents.list_of(_ADDRESS)))})
_TASK = documents.record({"task": documents.record({"type": documents.text(), "index": documents.numeric})})
_MAX_PORT = 65535
_REMEDY = 'correct it, as in {"cluster": {...}, "task": {...}}, or unset it to train on one machine'


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """All machines of a job, seen from one of them."""

    addresses: tuple[str, ...]
    """HOST:PORT of every machine that trains: the chief, then the workers in order."""
    role: Role
    """Role of this machine. An evaluator is not part of the cluster and not in `addresses`."""
    index: int
    """Index of this machine among those of its role, from 0."""

    @property
    def is_chief(self) -> bool:
        """True if this machine writes the run directory."""
        return self.role == "chief"

    @property
    def is_evaluator(self) -> bool:
        """True if this machine evaluates and does not train."""
        return self.role == "evaluator"

    @property
    def worker_index(self) -> int | None:
        """Index of this machine in `addresses`; 0 is the chief. None: an evaluator."""
        return None if self.is_evaluator else self.index + (self.role == "worker")

    @property
    def address(self) -> str | None:
        """HOST:PORT of this machine. None: an evaluator."""
        return None if self.worker_index is None else self.addresses[self.worker_index]

    @property
    def num_workers(self) -> int:
        """Number of machines that train, including the chief."""
        return len(self.addresses)

    @property
    def tf_config(self) -> dict[str, Any]:
        """`TF_CONFIG` for `MultiWorkerMirroredStrategy`, with one `chief` and the other machines as `worker`."""
        groups = {"chief": list(self.addresses[:1]), "worker": list(self.addresses[1:])}
        return {
            "cluster": {job: addresses for job, addresses in groups.items() if addresses},
            "task": {"type": self.role, "index": self.index},
        }


def parse_cluster(tf_config: str | None, cluster_spec: str | None) -> Cluster | None:
    """Parses the two variables. Either of them is enough.

    Args:
        tf_config: Text of `TF_CONFIG`. None: it is not set.
        cluster_spec: Text of `CLUSTER_SPEC`. None: it is not set.

    Returns:
        The cluster. None: this machine trains alone.

    Raises:
        ConfigError: If a variable is invalid, or the two contradict each other.
    """
    from_tf_config = _parse("TF_CONFIG", tf_config) if tf_config else None
    from_pools = _parse("CLUSTER_SPEC", cluster_spec) if cluster_spec else None
    if from_tf_config and from_pools:
        _check_agreement(from_tf_config, from_pools)
    cluster = from_tf_config or from_pools
    return None if cluster is None or (cluster.num_workers == 1 and not cluster.is_evaluator) else cluster


def _parse(variable: str, text: str) -> Cluster | None:
    """Returns the cluster in one variable, which may have a single machine. None: the variable lists no machine."""
    content = parse_json(text, variable, _SCHEMA, remedy=_REMEDY, error=ConfigError)
    if not content.get("cluster"):
        return None
    check_json(content, variable, _TASK, remedy=_REMEDY, error=ConfigError)
    groups = _parse_groups(variable, content["cluster"])
    role, index = _parse_task(variable, content["task"], groups)
    chief, workers = groups.get("chief", []), groups.get("worker", [])
    if not chief:  # as in TensorFlow, the first worker is the chief
        chief, workers = workers[:1], workers[1:]
        if role == "worker":
            role, index = ("worker", index - 1) if index else ("chief", 0)
    return Cluster(addresses=(*chief, *workers), role=role, index=index)


def _parse_groups(variable: str, jobs: dict[str, Any]) -> dict[str, list[str]]:
    """Returns the addresses of each role."""
    groups: dict[str, list[str]] = {}
    for job, addresses in jobs.items():
        role = _ROLES[variable].get(job)
        if role is None:
            raise ConfigError(f"{variable} lists {quote(job)}, which is not a role; use {', '.join(_ROLES[variable])}.")
        if role == "server":  # reduction servers, which NCCL finds by itself
            continue
        groups[role] = groups.get(role, []) + addresses
    _check_groups(variable, groups)
    return groups


def _check_groups(variable: str, groups: dict[str, list[str]]) -> None:
    chief, workers = groups.get("chief", []), groups.get("worker", [])
    if len(chief) > 1:
        raise ConfigError(f"{variable} lists {len(chief)} chiefs ({', '.join(chief)}); keep one.")
    if not chief and variable == "CLUSTER_SPEC":
        raise ConfigError(
            f"{variable} lists no workerpool0, which is the chief's pool; give the first pool one machine."
        )
    if not chief and not workers:
        raise ConfigError(f"{variable} lists no machine that trains; add a chief.")
    for address in (*chief, *workers):
        if not 1 <= int(address.rpartition(":")[2]) <= _MAX_PORT:
            raise ConfigError(
                f"{variable} lists {quote(address)}, whose port is not from 1 to {_MAX_PORT}; correct it."
            )
    address, count = collections.Counter((*chief, *workers)).most_common(1)[0]
    if count > 1:
        raise ConfigError(f"{variable} lists {quote(address)} {count} times; give each machine its own address.")


def _parse_task(variable: str, task: Mapping[str, Any], groups: dict[str, list[str]]) -> tuple[Role, int]:
    """Returns the role and index of this machine."""
    job, index = task["type"], str(task["index"])
    if not re.fullmatch("[0-9]{1,9}", index):
        raise ConfigError(f"{variable} has task index {quote(task['index'])}; it must be a whole number from 0.")
    role = _ROLES[variable].get(job)
    match role:
        case "evaluator":
            return role, int(index)
        case "chief" | "worker" if groups.get(role):
            if int(index) < len(groups[role]):
                return role, int(index)
            raise ConfigError(
                f"{variable} makes this machine {job} {index}, but the last one is {job} {len(groups[role]) - 1}; "
                "correct the index."
            )
    raise ConfigError(f"{variable} makes this machine {quote(job)}, which its cluster does not list; correct the task.")


def _check_agreement(tf_config: Cluster, pools: Cluster) -> None:
    if tf_config.num_workers != pools.num_workers:
        raise ConfigError(
            f"TF_CONFIG and CLUSTER_SPEC list different numbers of machines that train ({tf_config.num_workers} and "
            f"{pools.num_workers}); unset the one that is wrong."
        )
    if (tf_config.role, tf_config.index) != (pools.role, pools.index):
        raise ConfigError(
            f"TF_CONFIG makes this machine {tf_config.role} {tf_config.index}, and CLUSTER_SPEC makes it {pools.role} "
            f"{pools.index}; unset the one that is wrong."
        )
