"""The worker pools of a job: which machines, and the program that each runs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainer.cloud.jobs.schema_validation import fail, specified

TRAINER = "trainer.task"
"""The module that is this trainer; an image without a command runs it, as the Dockerfile's ENTRYPOINT has it."""
PACKAGE = "gan_trainer-"
"""What the names of this package's distributions begin with."""
PoolRole = Literal["chief", "worker", "evaluator"]

_POOL_ROLES: tuple[PoolRole | None, ...] = ("chief", "worker", None, "evaluator")
"""Of the pools in their order; the third is for servers that this trainer has no use for."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """A program that comes as an image."""

    image_uri: str
    command: tuple[str, ...]
    """Empty: the image's own entrypoint."""
    args: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class PythonPackage:
    """A program that comes as source distributions, installed in an image of Vertex AI's."""

    executor_image_uri: str
    package_uris: tuple[str, ...]
    """`gs://` of each source distribution or wheel; local paths where the file was read for a rehearsal."""
    python_module: str
    """What runs: `python3 -m MODULE`."""
    args: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Machines of one kind that run one program."""

    index: int
    """Position in `workerPoolSpecs`, empty pools counted."""
    role: PoolRole
    replica_count: int
    machine_type: str
    accelerator_type: str | None
    accelerator_count: int
    """Of each machine."""
    program: Container | PythonPackage
    raw: Mapping[str, Any]


def parse_pools(specs: Sequence[dict[str, Any]], path: str, rehearsal: bool = False) -> tuple[Pool, ...]:
    """The pools of a list that conforms to its message, empty ones left out.

    Args:
        specs: As `conform` returned it.
        path: Where it stands in the file.
        rehearsal: Whether packages may have local paths.

    Raises:
        ConfigError: There is not exactly one chief, or a pool cannot be what it says.
    """
    if len(specs) > len(_POOL_ROLES):
        fail(path, f"has {len(specs)} pools; there are four: chief, workers, servers, evaluator.")
    if not specs[0]:
        fail(f"{path}[0]", "is empty; the first pool holds the chief, so give it one machine.")
    count = specs[0]["replicaCount"]
    if count != 1:
        rest = f" and put the others into {path}[1]" if count > 1 else ""
        fail(f"{path}[0].replicaCount", f"is {count}; the first pool is the one chief, so write 1{rest}.")
    return tuple(_pool(spec, index, f"{path}[{index}]", rehearsal) for index, spec in enumerate(specs) if spec)


def may_lie_at(uri: str, rehearsal: bool) -> bool:
    """Whether what a job reads or writes may have this name: in a bucket, or in a rehearsal a local path."""
    return re.match("gs://[^/]", uri) is not None or (rehearsal and "://" not in uri)


def _pool(raw: dict[str, Any], index: int, path: str, rehearsal: bool) -> Pool:
    role, machine = _POOL_ROLES[index], raw["machineSpec"]
    if role is None:
        fail(path, "asks for parameter or reduction servers, which this trainer cannot use; write {} in its place.")
    if raw["replicaCount"] < 1:
        fail(f"{path}.replicaCount", f"is {raw['replicaCount']}; give at least 1, or write {{}} for an empty pool.")
    accelerator, count = specified(machine.get("acceleratorType")), machine.get("acceleratorCount", 0)
    if accelerator and count < 1:
        fail(f"{path}.machineSpec", f"has acceleratorType {accelerator} without acceleratorCount; say how many.")
    if count and not accelerator:
        fail(f"{path}.machineSpec", f"has acceleratorCount {count} without acceleratorType; say of which type.")
    return Pool(
        index=index,
        role=role,
        replica_count=raw["replicaCount"],
        machine_type=machine["machineType"],
        accelerator_type=accelerator,
        accelerator_count=count,
        program=_container(raw["containerSpec"], f"{path}.containerSpec")
        if "containerSpec" in raw
        else _python_package(raw["pythonPackageSpec"], f"{path}.pythonPackageSpec", rehearsal),
        raw=raw,
    )


def _container(raw: dict[str, Any], path: str) -> Container:
    return Container(
        image_uri=raw["imageUri"],
        command=tuple(raw.get("command", ())),
        args=tuple(raw.get("args", ())),
        env=_env(raw, path),
    )


def _python_package(raw: dict[str, Any], path: str, rehearsal: bool) -> PythonPackage:
    for number, uri in enumerate(raw["packageUris"]):
        if not may_lie_at(uri, rehearsal):
            fail(f"{path}.packageUris[{number}]", f"is {uri!r}; copy the package to a bucket and give its gs:// name.")
    return PythonPackage(
        executor_image_uri=raw["executorImageUri"],
        package_uris=tuple(raw["packageUris"]),
        python_module=raw["pythonModule"],
        args=tuple(raw.get("args", ())),
        env=_env(raw, path),
    )


def _env(raw: dict[str, Any], path: str) -> dict[str, str]:
    env: dict[str, str] = {}
    for number, variable in enumerate(raw.get("env", ())):
        if variable["name"] in env:
            fail(f"{path}.env[{number}]", f"sets {variable['name']} a second time; keep one.")
        env[variable["name"]] = variable["value"]
    return env
