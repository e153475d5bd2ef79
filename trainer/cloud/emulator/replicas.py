"""Replicas of a job: name, command line and environment of each process, as on Vertex AI."""

import contextlib
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from trainer.cloud.jobs.arguments import parse_flags, trainer_args
from trainer.cloud.jobs.job_spec import JobSpec
from trainer.cloud.jobs.schema_validation import fail
from trainer.cloud.jobs.worker_pools import TRAINER, Container, Pool, PythonPackage
from trainer.config.choices import StrategyName
from trainer.storage import is_remote
from trainer.storage.run_directory import CHECKPOINTS, LOGS, MODEL

_PYTHON = re.compile(r"(.*/)?python3?(\.\d+)?")
_PROJECT_NUMBER = "0"
_REGION = "us-central1"
_DEFAULT_TRIAL = "1"
"""Trial in the cluster description of a job that is not a trial."""


@dataclass(frozen=True)
class Program:
    """Program of a pool's replicas: `python -m module *args`."""

    module: str
    args: tuple[str, ...]
    package_uris: tuple[str, ...] = ()
    """Packages to install in a separate environment. Empty: the program runs in this environment."""


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One process of a job."""

    name: str
    """Pool and index. `workerpool0-0` is the chief."""
    command: tuple[str, ...]
    """Command line: the interpreter, `-m`, the module, and its args."""
    environment: Mapping[str, str]
    """Variables that Vertex AI sets, overridden by those of the job file."""
    package_uris: tuple[str, ...] = ()
    """Packages to install, as in `Program`."""

    @property
    def is_chief(self) -> bool:
        """True if the job ends when this replica does."""
        return self.name == "workerpool0-0"


def plan(
    job: JobSpec,
    *,
    ports: Sequence[int],
    job_id: str,
    gpus: Sequence[str] = (),
    trial: Mapping[str, str] | None = None,
) -> tuple[Replica, ...]:
    """Returns the replicas of a job, or of one trial of a study.

    If there are not enough GPUs for all replicas, a trainer gets one virtual CPU device per accelerator of its machine.

    Args:
        job: Job to run. Its `base_output_uri` may be a local path.
        ports: One port for each replica in order, for example from `free_ports`.
        job_id: Value of `CLOUD_ML_JOB_ID`.
        gpus: Names of the available GPUs in `CUDA_VISIBLE_DEVICES`. A single replica gets all, several share them.
        trial: `CLOUD_ML_TRIAL_ID` and `CLOUD_ML_HP_METRIC_FILE` of a trial. None: the job is not a trial.

    Raises:
        ConfigError: If a pool does not run a Python module.
    """
    next_ports = iter(ports)
    cluster = {
        f"workerpool{pool.index}": [f"127.0.0.1:{next(next_ports)}" for _ in range(pool.replica_count)]
        for pool in job.pools
    }
    trial_id = (trial or {}).get("CLOUD_ML_TRIAL_ID", _DEFAULT_TRIAL)
    needs_virtual_devices, gpu_environments = _assign_gpus(job, gpus)
    replicas: list[Replica] = []
    for pool in job.pools:
        program = _get_program(pool)
        args = program.args + (_virtual_device_flags(pool) if needs_virtual_devices else ())
        for index in range(pool.replica_count):
            environment = {
                "CLOUD_ML_JOB_ID": job_id,
                "CLOUD_ML_PROJECT_ID": _PROJECT_NUMBER,
                "CLOUD_ML_REGION": _REGION,
                **(trial or {}),
                **_output_folders(job.base_output_uri),
                **_cluster_environment(pool, index, cluster, program, job_id, trial_id),
                **gpu_environments[len(replicas)],
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
    """Returns the number of processes of a job."""
    return sum(pool.replica_count for pool in job.pools)


def free_ports(count: int) -> tuple[int, ...]:
    """Returns free ports of the loopback interface."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return tuple(listener.getsockname()[1] for listener in sockets)


def append_args(job: JobSpec, args: Sequence[str]) -> JobSpec:
    """Returns a job in which these args follow those of every pool, as a study passes parameters to a trial."""
    return _change_programs(job, lambda program: replace(program, args=(*program.args, *args)))


def without_packages(job: JobSpec) -> JobSpec:
    """Returns a job that installs no packages and uses the modules of this environment."""

    def remove_packages(program: Container | PythonPackage) -> Container | PythonPackage:
        return replace(program, package_uris=()) if isinstance(program, PythonPackage) else program

    return _change_programs(job, remove_packages)


def _get_program(pool: Pool) -> Program:
    """Returns the program of a pool's replicas.

    Raises:
        ConfigError: If it is not `python -m MODULE`.
    """
    program = pool.program
    if isinstance(program, PythonPackage):
        return Program(program.python_module, program.args, program.package_uris)
    if not program.command:
        return Program(TRAINER, program.args)
    match [*program.command, *program.args]:
        case [python, "-m", module, *args] | [python, "-u", "-m", module, *args] if _PYTHON.fullmatch(python):
            return Program(module, tuple(args))
    fail(
        f"workerPoolSpecs[{pool.index}].containerSpec.command",
        f"is {list(program.command)}, but a local run starts no containers, only python -m MODULE; write "
        f"[python, -m, {TRAINER}], or remove it to use the entrypoint of the image.",
    )


def _change_programs(job: JobSpec, change: Callable[[Container | PythonPackage], Container | PythonPackage]) -> JobSpec:
    return replace(job, pools=tuple(replace(pool, program=change(pool.program)) for pool in job.pools))


def _output_folders(base: str | None) -> dict[str, str]:
    """Returns the variables that name a trainer's output folders."""
    if base is None:
        return {}
    base = base if is_remote(base) else os.path.abspath(base)
    names = {"AIP_MODEL_DIR": MODEL, "AIP_CHECKPOINT_DIR": CHECKPOINTS, "AIP_TENSORBOARD_LOG_DIR": LOGS}
    return {variable: os.path.join(base, name, "") for variable, name in names.items()}


def _cluster_environment(
    pool: Pool, index: int, cluster: Mapping[str, list[str]], program: Program, job_id: str, trial: str
) -> dict[str, str]:
    """Returns the variables that describe all replicas. `TF_CONFIG` is set only if there are several."""
    roles = {"workerpool0": "chief", "workerpool1": "worker"}  # an evaluator is not in the cluster
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
    is_alone = sum(map(len, cluster.values())) == 1
    return {"CLUSTER_SPEC": json.dumps(spec)} | ({} if is_alone else {"TF_CONFIG": json.dumps(tf_config)})


def _assign_gpus(job: JobSpec, gpus: Sequence[str]) -> tuple[bool, list[dict[str, str]]]:
    """Returns whether virtual devices replace accelerators, and the variables that give each replica its GPUs."""
    counts = [pool.accelerator_count for pool in job.pools for _ in range(pool.replica_count)]
    if not gpus:
        return True, [{} for _ in counts]
    if len(counts) == 1:
        return False, [{"CUDA_VISIBLE_DEVICES": ",".join(gpus)}]
    if sum(counts) > len(gpus):
        return True, [{"CUDA_VISIBLE_DEVICES": "-1"} for _ in counts]
    next_gpus = iter(gpus)
    visible = [",".join(next(next_gpus) for _ in range(count)) for count in counts]
    return False, [{"CUDA_VISIBLE_DEVICES": names or "-1"} for names in visible]


def _virtual_device_flags(pool: Pool) -> tuple[str, ...]:
    """Returns the flag that splits the CPU, for a trainer on several accelerators that does not set it itself."""
    args = trainer_args(pool.program)
    if args is None or pool.accelerator_count <= 1:
        return ()
    flags, _ = parse_flags(args, f"workerPoolSpecs[{pool.index}]")
    if "num_virtual_devices" in flags or flags.get("strategy") == StrategyName.ONE_DEVICE:
        return ()
    return (f"--num_virtual_devices={pool.accelerator_count}",)
