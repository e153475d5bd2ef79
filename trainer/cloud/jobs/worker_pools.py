"""Worker pools of a job: their machines and the program that each runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainer.cloud.jobs.schema_validation import enum_or_none, fail
from trainer.errors import ConfigError, quote
from trainer.storage import is_remote, parse_path

TRAINER = "trainer.task"
"""Module of this trainer. An image without a command runs it through the Dockerfile's ENTRYPOINT."""
PACKAGE = "gan_trainer-"
"""Prefix of the file names of this package's distributions."""
PoolRole = Literal["chief", "worker", "evaluator"]

_POOL_ROLES: tuple[PoolRole | None, ...] = ("chief", "worker", None, "evaluator")
"""Roles of the pools by their index. The third is for reduction servers, or parameter servers, which are refused."""
_REDUCTION_SERVER = "/reductionserver"
"""Part of the name of Google's image of a reduction server."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """A program in a container image."""

    command: tuple[str, ...]
    """Empty if the image's own entrypoint runs."""
    args: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class PythonPackage:
    """A program in Python packages, which are installed in an executor image."""

    package_uris: tuple[str, ...]
    """`gs://` URIs of source distributions or wheels; for a job on this machine, also local paths."""
    python_module: str
    """Module that `python3 -m` runs."""
    args: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Machines of one type that run one program."""

    index: int
    """Index in `workerPoolSpecs`, which also has empty pools."""
    role: PoolRole
    replica_count: int
    machine_type: str
    accelerator_type: str | None
    accelerator_count: int
    """Number of accelerators per machine."""
    program: Container | PythonPackage


def parse_pools(specs: Sequence[dict[str, Any]], path: str, is_local: bool = False) -> tuple[Pool, ...]:
    """Parses `workerPoolSpecs` and leaves out empty pools, and reduction servers, which do not belong to the cluster.

    Args:
        specs: Validated list.
        path: Path to the list in the file.
        is_local: Whether the job runs on this machine, where packages may be local files.

    Raises:
        ConfigError: If there is not exactly one chief, or a pool is invalid.
    """
    if len(specs) > len(_POOL_ROLES):
        fail(path, f"has {len(specs)} pools; at most four are allowed: chief, workers, servers, evaluator.")
    if not specs[0]:
        fail(f"{path}[0]", "is empty; the first pool holds the chief, so give it one machine.")
    count = specs[0]["replicaCount"]
    if count != 1:
        remedy = f" and put the others into {path}[1]" if count > 1 else ""
        fail(f"{path}[0].replicaCount", f"is {count}; the first pool holds only the chief, so write 1{remedy}.")
    pools = tuple(
        _parse_pool(spec, index, f"{path}[{index}]", is_local)
        for index, spec in enumerate(specs)
        if spec and not _has_reduction_server(spec, index)
    )
    if len(pools) < 2 or not pools[0].accelerator_count:
        for index, spec in enumerate(specs):
            if spec and _has_reduction_server(spec, index):
                fail(
                    f"{path}[{index}]",
                    "has reduction servers, which serve several machines with GPUs; write {} instead.",
                )
    return pools


def _has_reduction_server(spec: Mapping[str, Any], index: int) -> bool:
    image = spec.get("containerSpec", {}).get("imageUri", "")
    return _POOL_ROLES[index] is None and _REDUCTION_SERVER in image


def parse_uri(uri: str, path: str, is_local: bool) -> str:
    """Returns a URI that a job reads or writes: `gs://BUCKET/NAME`, or also a local path if the job is local.

    Args:
        uri: URI in the file. `~` in a local path is the home directory.
        path: Path to the URI in the file.
        is_local: Whether the job runs on this machine.

    Raises:
        ConfigError: If the job cannot use the URI.
    """
    try:
        location = parse_path(uri)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not is_remote(location) and not is_local:
        fail(path, f"is {quote(uri)}; it must be gs://BUCKET/NAME.")
    return location


def _parse_pool(spec: dict[str, Any], index: int, path: str, is_local: bool) -> Pool:
    role, machine = _POOL_ROLES[index], spec["machineSpec"]
    if role is None:
        fail(path, "has parameter servers, which this trainer cannot use; write {}, or Google's reduction server.")
    if spec["replicaCount"] < 1:
        fail(f"{path}.replicaCount", f"is {spec['replicaCount']}; give at least 1, or write {{}} for an empty pool.")
    accelerator, count = enum_or_none(machine.get("acceleratorType")), machine.get("acceleratorCount", 0)
    if accelerator and count < 1:
        fail(f"{path}.machineSpec", f"has acceleratorType {accelerator} but no acceleratorCount; give the number.")
    if count and not accelerator:
        fail(f"{path}.machineSpec", f"has acceleratorCount {count} but no acceleratorType; give the type.")
    return Pool(
        index=index,
        role=role,
        replica_count=spec["replicaCount"],
        machine_type=machine["machineType"],
        accelerator_type=accelerator,
        accelerator_count=count,
        program=_parse_container(spec["containerSpec"], f"{path}.containerSpec")
        if "containerSpec" in spec
        else _parse_python_package(spec["pythonPackageSpec"], f"{path}.pythonPackageSpec", is_local),
    )


def _parse_container(spec: dict[str, Any], path: str) -> Container:
    return Container(
        command=tuple(spec.get("command", ())), args=tuple(spec.get("args", ())), env=_parse_env(spec, path)
    )


def _parse_python_package(spec: dict[str, Any], path: str, is_local: bool) -> PythonPackage:
    uris = [parse_uri(uri, f"{path}.packageUris[{index}]", is_local) for index, uri in enumerate(spec["packageUris"])]
    return PythonPackage(
        package_uris=tuple(uris),
        python_module=spec["pythonModule"],
        args=tuple(spec.get("args", ())),
        env=_parse_env(spec, path),
    )


def _parse_env(spec: dict[str, Any], path: str) -> dict[str, str]:
    env: dict[str, str] = {}
    for index, variable in enumerate(spec.get("env", ())):
        if variable["name"] in env:
            fail(f"{path}.env[{index}]", f"sets {variable['name']} a second time; keep one.")
        env[variable["name"]] = variable["value"]
    return env
