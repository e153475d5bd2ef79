"""Runs a Vertex AI job file on this machine: `python -m trainer local --config=config.yaml`."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from absl import flags as absl_flags

from trainer import flags
from trainer.cloud import arguments, jobspec, local, packages
from trainer.cloud.jobspec import JobSpec, TuningSpec
from trainer.cloud.pools import TRAINER
from trainer.cloud.replicas import (
    Program,
    Replica,
    free_ports,
    in_this_environment,
    num_replicas,
    plan,
    program_of,
    with_args,
)
from trainer.cloud.rules import GRACE_SECS, MAX_RESTARTS, Rules
from trainer.errors import ConfigError

_USAGE = """Runs a Vertex AI job file on this machine: the same processes, environments, restarts and exit code.

  python -m trainer local --config=FILE [--args=ARG,ARG] [--base_output_dir=FOLDER] [--dry_run] [FLAGS]

FILE is what `gcloud ai custom-jobs create --config` takes; here its outputUriPrefix may be a local folder.
"""
_OUR_PACKAGE = "gan_trainer-"


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    text, number, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_float, absl_flags.DEFINE_integer
    text("config", None, "The job file: a CustomJobSpec.", required=True, flag_values=values)
    absl_flags.DEFINE_multi_string(
        "args",
        [],
        "Args, comma-separated, in place of those of every pool, as gcloud has it; with commas inside: ^:^ONE:TWO.",
        flag_values=values,
    )
    text("base_output_dir", None, "Folder, local or gs://, in place of the file's outputUriPrefix.", flag_values=values)
    absl_flags.DEFINE_bool(
        "in_this_environment", False, "Install no packageUris: use the modules found here.", flag_values=values
    )
    whole(
        "max_restarts",
        MAX_RESTARTS,
        "How often a replica, or the whole job, restarts after its machine was lost.",
        lower_bound=0,
        flag_values=values,
    )
    number("preempt_every", None, "Take a random replica's machine away every so many seconds.", flag_values=values)
    number("grace", GRACE_SECS, "Seconds between SIGTERM and SIGKILL.", lower_bound=0, flag_values=values)
    whole("seed", 0, "Decides which replicas are preempted.", flag_values=values)
    absl_flags.DEFINE_bool("dry_run", False, "Print the processes as JSON and start nothing.", flag_values=values)


def act(values: absl_flags.FlagValues) -> None:
    """Runs the job, or prints the processes that it would start."""
    if values.preempt_every is not None and not values.preempt_every > 0:
        raise ConfigError(f"preempt_every={values.preempt_every:g} must be above 0 seconds; leave it out for never.")
    job = jobspec.read(values.config, rehearsal=True)
    if isinstance(job, TuningSpec):
        _run_study(values.config)
    job = _changed(job, values)
    for pool in job.pools:
        _check_args(program_of(pool))
    ports = free_ports(num_replicas(job))
    replicas = plan(job, ports=ports, job_id=str(time.time_ns()), gpus=_gpus())
    if values.dry_run:
        print(json.dumps([_told(one) for one in replicas], indent=2, ensure_ascii=False))
        return
    packages.check([uri for one in replicas for uri in one.package_uris])
    rules = Rules(
        timeout_secs=job.scheduling.timeout_secs,
        restart_job=job.scheduling.restart_job_on_worker_restart,
        disable_retries=job.scheduling.disable_retries,
        max_restarts=values.max_restarts,
        grace_secs=values.grace,
        preempt_every_secs=values.preempt_every,
        seed=values.seed,
    )
    with _sigterm_exits(), packages.installed(replicas) as ready:
        local.run(ready, rules)


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    return flags.run(argv, _USAGE, define, act)


def _run_study(path: str) -> NoReturn:
    raise ConfigError(
        f"{path} is a HyperparameterTuningJob, and only a CustomJobSpec runs on this machine so far; put its "
        "trialJobSpec into a file of its own."
    )


def _changed(job: JobSpec, values: absl_flags.FlagValues) -> JobSpec:
    """The job with what the command line says in place of what the file says."""
    if values.args:
        job = with_args(job, [arg for text in values.args for arg in _split(text)])
    if values.base_output_dir:
        folder = values.base_output_dir
        if "://" in folder and not folder.startswith("gs://"):
            raise ConfigError(f"base_output_dir={folder} must be a local folder or gs://BUCKET/NAME.")
        job = replace(job, base_output_uri=folder.rstrip("/") or "/")
    return in_this_environment(job) if values.in_this_environment else job


def _split(text: str) -> list[str]:
    """The members of a list as gcloud reads it: `a,b`, or `^:^a:b` where a member has commas."""
    delimiter = ","
    if text.startswith("^") and "^" in text[2:]:
        delimiter, _, text = text[1:].partition("^")
    return [part for part in text.split(delimiter) if part]


def _check_args(program: Program) -> None:
    """Refuses args that this trainer would refuse. What a package of another trainer takes is not known here."""
    ours = all(uri.rpartition("/")[2].startswith(_OUR_PACKAGE) for uri in program.package_uris)
    if program.module != TRAINER or not ours:
        return
    arguments.check_args(program.args, program.path)


def _gpus() -> Sequence[str]:
    """The GPUs that this machine has for us, as `CUDA_VISIBLE_DEVICES` names them."""
    count = len([path for path in Path("/dev").glob("nvidia*") if path.name[len("nvidia") :].isdecimal()])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(count)] if visible is None else visible.split(",")
    return [name for name in names if count and name not in ("", "-1")]


def _told(replica: Replica) -> dict[str, Any]:
    packages = {"package_uris": replica.package_uris} if replica.package_uris else {}
    return {"name": replica.name, "command": replica.command, **packages, "environment": dict(replica.environment)}


@contextlib.contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Lets SIGTERM end what installs packages, with its temporary folders; a job that runs has its own way."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
