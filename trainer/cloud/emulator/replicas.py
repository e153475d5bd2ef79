"""From a job to the processes that it is: each replica's name, command line and environment, as Vertex AI has them."""

import contextlib
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from trainer.cloud.jobs.job_spec import JobSpec
from trainer.cloud.jobs.schema_validation import fail
from trainer.cloud.jobs.worker_pools import TRAINER, Container, Pool, PythonPackage
from trainer.storage import is_remote

_PYTHON = re.compile(r"(.*/)?python3?(\.\d+)?")
_PROJECT_NUMBER = "0"
_REGION = "us-central1"
_FIRST_TRIAL = "1"
"""The trial that a job's cluster speaks of where it is none of a study."""


@dataclass(frozen=True)
class Program:
    """What the replicas of a pool run: `python -m module *args`."""

    module: str
    args: tuple[str, ...]
    path: str
    """Where its args stand in the job file."""
    package_uris: tuple[str, ...] = ()
    """What must be installed in an environment of its own. Empty: it runs in this one."""


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One process of a job."""

    name: str
    """`workerpool0-0` is the chief."""
    command: tuple[str, ...]
    """The first word is the interpreter."""
    environment: Mapping[str, str]
    """What Vertex AI sets, and the job file's own variables on top."""
    package_uris: tuple[str, ...] = ()
    """As `Program` has it."""
    folder: str | None = None
    """Where it starts. None: in this process's folder."""

    @property
    def is_chief(self) -> bool:
        """Whether the job ends when this replica does."""
        return self.name == "workerpool0-0"


def plan(
    job: JobSpec,
    *,
    ports: Sequence[int],
    job_id: str,
    gpus: Sequence[str] = (),
    trial: Mapping[str, str] | None = None,
) -> tuple[Replica, ...]:
    """The processes of a job, or of one trial of a study.

    Without enough GPUs for all replicas, a trainer gets as many virtual CPU devices as its machine has accelerators.

    Args:
        job: What to run; its `base_output_uri` may be a local path.
        ports: One for each replica, in their order; `free_ports` finds some.
        job_id: `CLOUD_ML_JOB_ID`.
        gpus: The names, for `CUDA_VISIBLE_DEVICES`, of those here; several replicas get their own, one gets all.
        trial: `CLOUD_ML_TRIAL_ID` and `CLOUD_ML_HP_METRIC_FILE` of a trial. None: it is none.

    Raises:
        ConfigError: A pool runs something other than a Python module.
    """
    free = iter(ports)
    cluster = {
        f"workerpool{pool.index}": [f"127.0.0.1:{next(free)}" for _ in range(pool.replica_count)] for pool in job.pools
    }
    virtual, shares = _share_gpus(job, gpus)
    replicas: list[Replica] = []
    for pool in job.pools:
        program = program_of(pool)
        args = program.args + (_virtual_devices(program, pool) if virtual else ())
        for index in range(pool.replica_count):
            environment = {
                "CLOUD_ML_JOB_ID": job_id,
                "CLOUD_ML_PROJECT_ID": _PROJECT_NUMBER,
                "CLOUD_ML_REGION": _REGION,
                **(trial or {}),
                **_folders(job.base_output_uri),
                **_place(pool, index, cluster, program, job_id, (trial or {}).get("CLOUD_ML_TRIAL_ID", _FIRST_TRIAL)),
                **shares[len(replicas)],
                **pool.program.env,
            }
            replicas.append(
                Replica(
                    name=f"workerpool{pool.index}-{index}",
                    command=(sys.executable, "-m", program.module, *args),
                    environment=environment,
                    package_uris=program.package_uris,
                )
            )
    return tuple(replicas)


def num_replicas(job: JobSpec) -> int:
    """How many processes a job is."""
    return sum(pool.replica_count for pool in job.pools)


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of the loopback interface that nobody listens on."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(one.getsockname()[1] for one in sockets)


def with_args(job: JobSpec, args: Sequence[str]) -> JobSpec:
    """A job whose pools all have these args, as gcloud's --args replaces them."""
    return _with_programs(job, lambda program: replace(program, args=tuple(args)))


def with_more_args(job: JobSpec, args: Sequence[str]) -> JobSpec:
    """A job whose pools have these args after their own, as a study gives a trial its parameters."""
    return _with_programs(job, lambda program: replace(program, args=(*program.args, *args)))


def no_venv(job: JobSpec) -> JobSpec:
    """A job whose packages are not installed: their modules run as they are found in this environment."""

    def without_packages(program: Container | PythonPackage) -> Container | PythonPackage:
        return replace(program, package_uris=()) if isinstance(program, PythonPackage) else program

    return _with_programs(job, without_packages)


def program_of(pool: Pool) -> Program:
    """What the replicas of a pool run.

    Raises:
        ConfigError: It is not `python -m MODULE`.
    """
    program, where = pool.program, f"workerPoolSpecs[{pool.index}]"
    if isinstance(program, PythonPackage):
        where = f"{where}.pythonPackageSpec.args"
        return Program(program.python_module, program.args, where, program.package_uris)
    where = f"{where}.containerSpec"
    if not program.command:
        return Program(TRAINER, program.args, f"{where}.args")
    match [*program.command, *program.args]:
        case [python, "-m", module, *args] | [python, "-u", "-m", module, *args] if _PYTHON.fullmatch(python):
            return Program(module, tuple(args), f"{where}.args")
    fail(
        f"{where}.command",
        f"is {list(program.command)}, and no container runs on this machine, only python -m MODULE; write "
        f"[python, -m, {TRAINER}], or remove it for the image's own entrypoint.",
    )


def _with_programs(job: JobSpec, change: Callable[[Container | PythonPackage], Container | PythonPackage]) -> JobSpec:
    return replace(job, pools=tuple(replace(pool, program=change(pool.program)) for pool in job.pools))


def _folders(base: str | None) -> dict[str, str]:
    """The folders that Vertex AI names to a trainer."""
    if base is None:
        return {}
    base = base if is_remote(base) else os.path.abspath(base)
    names = {"AIP_MODEL_DIR": "model", "AIP_CHECKPOINT_DIR": "checkpoints", "AIP_TENSORBOARD_LOG_DIR": "logs"}
    return {variable: os.path.join(base, name, "") for variable, name in names.items()}


def _place(
    pool: Pool, index: int, cluster: Mapping[str, list[str]], program: Program, job_id: str, trial: str
) -> dict[str, str]:
    """What tells a replica of several about the others."""
    if sum(map(len, cluster.values())) == 1:
        return {}
    roles = {"workerpool0": "chief", "workerpool1": "worker"}  # an evaluator is in none
    spec = {
        "cluster": cluster,
        "environment": "cloud",
        "task": {"type": f"workerpool{pool.index}", "index": index, "trial": trial},
        "job": json.dumps({"python_module": program.module if program.package_uris else ""}),
    }
    tf_config = {
        "cluster": {roles[name]: addresses for name, addresses in cluster.items() if name in roles},
        "task": {"type": pool.role, "index": index, "trial": trial, "cloud": job_id},
        "environment": "cloud",
        "job": {},
    }
    return {"CLUSTER_SPEC": json.dumps(spec), "TF_CONFIG": json.dumps(tf_config)}


def _share_gpus(job: JobSpec, gpus: Sequence[str]) -> tuple[bool, list[dict[str, str]]]:
    """Whether virtual devices stand for accelerators, and what shows each replica its share of the GPUs."""
    wanted = [pool.accelerator_count for pool in job.pools for _ in range(pool.replica_count)]
    if not gpus:
        return True, [{} for _ in wanted]
    if len(wanted) == 1:
        return False, [{"CUDA_VISIBLE_DEVICES": ",".join(gpus)}]
    if sum(wanted) > len(gpus):
        return True, [{"CUDA_VISIBLE_DEVICES": "-1"} for _ in wanted]
    free = iter(gpus)
    shares = [",".join(next(free) for _ in range(count)) for count in wanted]
    return False, [{"CUDA_VISIBLE_DEVICES": share or "-1"} for share in shares]


def _virtual_devices(program: Program, pool: Pool) -> tuple[str, ...]:
    """The flag that splits the CPU, for a trainer that is to have several accelerators and says nothing itself."""
    names = (arg.partition("=")[0].replace("-", "_").lstrip("_") for arg in program.args)
    if program.module != TRAINER or pool.accelerator_count <= 1 or "num_virtual_devices" in names:
        return ()
    return (f"--num_virtual_devices={pool.accelerator_count}",)
