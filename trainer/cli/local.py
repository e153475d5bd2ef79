"""Runs a Vertex AI job file on this machine: `python -m trainer local --config=config.yaml`."""

import contextlib
import logging
import os
import queue
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from absl import flags as absl_flags

from trainer.cli import app
from trainer.cloud.emulator import runner, venvs
from trainer.cloud.emulator.replicas import Replica, free_ports, no_venv, num_replicas, plan, with_args, with_more_args
from trainer.cloud.emulator.restart_policy import GRACE_SECS, MAX_RESTARTS, SHELL, Rules
from trainer.cloud.jobs import arguments, job_spec, source_package
from trainer.cloud.jobs.job_spec import JobFile, JobSpec, TuningSpec
from trainer.cloud.jobs.preflight import check_job
from trainer.cloud.jobs.worker_pools import may_lie_at
from trainer.cloud.tuning import study_report, study_runner, trial_store
from trainer.cloud.tuning.optuna_backend import Suggester
from trainer.cloud.tuning.study_runner import Trial
from trainer.cloud.vertex.environment import DEFAULT_METRIC_FILE, without_slash
from trainer.errors import ConfigError, JobError, JobStopped
from trainer.logging import print_json
from trainer.storage import locate

_logger = logging.getLogger(__name__)

_USAGE = """Runs a Vertex AI job file on this machine: the same processes, environments, restarts and exit code.

  python -m trainer local --config=FILE [--args=ARG,ARG] [--base_output_dir=FOLDER] [--dry_run] [FLAGS]

FILE is what gcloud ai custom-jobs create and gcloud ai hp-tuning-jobs create take; here its outputUriPrefix may be a
local folder. A tuning job's study is Optuna's; interrupted, the same command goes on with it.
"""
_PLOT = "study.png"


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    text, number, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_float, absl_flags.DEFINE_integer
    text(
        "config", None, "The job file: a CustomJobSpec or a HyperparameterTuningJob.", required=True, flag_values=values
    )
    absl_flags.DEFINE_multi_string("args", [], arguments.ARGS_HELP, flag_values=values)
    text("base_output_dir", None, "Folder, local or gs://, in place of the file's outputUriPrefix.", flag_values=values)
    absl_flags.DEFINE_bool("no_venv", False, "Install no packageUris: use the modules found here.", flag_values=values)
    text("package", ".", "Folder of the package that is built where packageUris is missing.", flag_values=values)
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
    """Runs the job or the study, or prints the processes that it would start."""
    if values.preempt_every is not None and not values.preempt_every > 0:
        raise ConfigError(f"preempt_every={values.preempt_every:g} must be above 0 seconds; leave it out for never.")
    job = _changed(job_spec.read(values.config, rehearsal=True, change=source_package.for_rehearsal), values)
    try:
        check_job(job, rehearsal=True)
        replicas = _first_trial(job) if isinstance(job, TuningSpec) else _planned(job)
    except ConfigError as error:
        raise ConfigError(f"{values.config}: {error}") from error
    if values.dry_run:
        print_json([_told(one) for one in replicas])
        return
    venvs.check(replicas)
    with _signals_exit(), venvs.installed(replicas, project=Path(values.package)) as ready:
        if isinstance(job, TuningSpec):
            _run_study(job, values, ready)
        else:
            runner.run([ready(one) for one in replicas], _rules(job, values))


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    return app.run(argv, _USAGE, define, act, resumes=True)


def _planned(job: JobSpec, gpus: Sequence[str] | None = None, trial: Trial | None = None) -> tuple[Replica, ...]:
    """The processes of a job, or of a trial's job; with all GPUs that are here if not told with which."""
    if trial is not None:
        job = replace(with_more_args(job, trial.args), base_output_uri=trial.folder)
    return plan(
        job,
        ports=free_ports(num_replicas(job)),
        job_id=str(time.time_ns()),
        gpus=_gpus() if gpus is None else gpus,
        trial=trial.environment if trial else None,
    )


def _first_trial(spec: TuningSpec) -> tuple[Replica, ...]:
    """The processes that a study starts first."""
    parameters = Suggester(spec.study, ()).ask("1") or {}
    return _planned(
        spec.trial,
        trial=Trial(
            id="1",
            parameters=parameters,
            args=trial_store.flags(parameters),
            folder=os.path.join(str(spec.trial.base_output_uri), "1"),
            metric_file=Path(DEFAULT_METRIC_FILE),
        ),
    )


def _run_study(spec: TuningSpec, values: absl_flags.FlagValues, ready: Callable[[Replica], Replica]) -> None:
    """Runs the trials, then shows them as a table and a plot."""
    base = str(spec.trial.base_output_uri)
    shares: queue.SimpleQueue[Sequence[str]] = queue.SimpleQueue()
    for share in _shares(_gpus(), spec.parallel_trial_count):
        shares.put(share)

    def run_trial(trial: Trial) -> int:
        gpus = shares.get()
        try:
            replicas = [ready(one) for one in _planned(spec.trial, gpus, trial)]
            runner.run(replicas, _rules(spec.trial, values), label=f"trial {trial.id} ", stop=trial.stop)
        except JobError as error:
            if isinstance(error, JobStopped) and not trial.stop.is_set():
                raise
            if not isinstance(error, JobStopped):
                _logger.warning(f"trial {trial.id}: {error}")
            return error.exit_code
        finally:
            shares.put(gpus)
        return 0

    found = study_runner.study(spec, base, run_trial)
    if found.best is not None:
        picture = locate(found.folder) / _PLOT
        picture.write_bytes(study_report.plot(found))
        _logger.info(f"Drew the trials in {picture}.")
    print(study_report.table(found), flush=True)


def _shares(gpus: Sequence[str], count: int) -> list[Sequence[str]]:
    """The GPUs that each of so many trials at a time gets; some share one where there are too few."""
    return [gpus[number::count] or (gpus and [gpus[number % len(gpus)]]) for number in range(count)]


def _rules(job: JobSpec, values: absl_flags.FlagValues) -> Rules:
    return Rules(
        timeout_secs=job.scheduling.timeout_secs,
        restart_job=job.scheduling.restart_job_on_worker_restart,
        disable_retries=job.scheduling.disable_retries,
        max_restarts=values.max_restarts,
        grace_secs=values.grace,
        preempt_every_secs=values.preempt_every,
        seed=values.seed,
    )


def _changed(job: JobFile, values: absl_flags.FlagValues) -> JobFile:
    """The job with what the command line says in place of what the file says; of a study that of its trials."""
    if isinstance(job, TuningSpec):
        return replace(job, trial=cast(JobSpec, _changed(job.trial, values)))
    if values.args:
        job = with_args(job, [arg for text in values.args for arg in arguments.listed(text)])
    if values.base_output_dir:
        folder = values.base_output_dir
        if not may_lie_at(folder, rehearsal=True):
            raise ConfigError(f"base_output_dir={folder} must be a local folder or gs://BUCKET/NAME.")
        job = replace(job, base_output_uri=without_slash(folder))
    return no_venv(job) if values.no_venv else job


def _gpus() -> Sequence[str]:
    """The GPUs that this machine has for us, as `CUDA_VISIBLE_DEVICES` names them."""
    count = len([path for path in Path("/dev").glob("nvidia*") if path.name[len("nvidia") :].isdecimal()])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(count)] if visible is None else visible.split(",")
    return [name for name in names if count and name not in ("", "-1")]


def _told(replica: Replica) -> dict[str, Any]:
    package_uris = {"package_uris": replica.package_uris} if replica.package_uris else {}
    return {"name": replica.name, "command": replica.command, **package_uris, "environment": dict(replica.environment)}


@contextlib.contextmanager
def _signals_exit() -> Iterator[None]:
    """Lets SIGTERM, or the end of the terminal, end what installs packages or follows trials, with all that it started;
    a job that runs has its own way."""
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
    for one, handler in before.items():
        if handler != signal.SIG_IGN:  # nohup stays in force
            signal.signal(one, lambda number, _: sys.exit(SHELL + number))
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler or signal.SIG_DFL)
