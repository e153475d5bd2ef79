"""The `local` command."""

import logging
import os
import queue
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from trainer.cli import app, study_flags
from trainer.cloud.emulator import runner, venvs
from trainer.cloud.emulator.replicas import (
    Replica,
    append_args,
    free_ports,
    num_replicas,
    plan,
    without_packages,
)
from trainer.cloud.emulator.restart_policy import GRACE_SECS, MAX_RESTARTS, RestartPolicy
from trainer.cloud.jobs import arguments, job_request, job_spec, source_package, variables
from trainer.cloud.jobs.job_spec import JOB_ID, JobFile, JobSpec, TuningSpec
from trainer.cloud.jobs.overrides import Overrides, new_job_id, parse_output_folder
from trainer.cloud.jobs.preflight import check_job
from trainer.cloud.tuning import study_report, study_runner, trial_store
from trainer.cloud.tuning.optuna_backend import Suggester
from trainer.cloud.tuning.study_runner import Trial
from trainer.environment import DEFAULT_METRIC_FILE
from trainer.errors import ConfigError, JobError, JobStopped, quote
from trainer.logging import install_handler, print_json, print_line
from trainer.storage import local_path, locate
from trainer.storage.run_directory import CONFIG

_logger = logging.getLogger(__name__)

_USAGE = """Runs a Vertex AI job file on this machine with the same processes, environments, restarts and exit code.

  {command} --config=FILE [--args=ARG,ARG] [--base_output_dir=FOLDER] [--dry_run] [FLAGS]

FILE is a file for gcloud ai custom-jobs create or gcloud ai hp-tuning-jobs create; its outputUriPrefix may also be a
local folder. Optuna suggests the trials of a tuning job. If a study is interrupted, the same command resumes it.
"""
_PLOT = "study.png"


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string(
        "config",
        None,
        "Job file: a CustomJobSpec or a HyperparameterTuningJob.",
        required=True,
        flag_values=values,
    )
    for name in ("project", "region"):
        absl_flags.DEFINE_string(name, None, f"Value of ${{{name.upper()}}} in the file.", flag_values=values)
    for name, text in variables.FLAGS.items():
        absl_flags.DEFINE_string(name, None, text, flag_values=values)
    absl_flags.DEFINE_multi_string("args", [], arguments.ARGS_HELP, flag_values=values)
    study_flags.define(values)
    absl_flags.DEFINE_string(
        "base_output_dir",
        None,
        f"Output folder, local or gs://. None: the file's outputUriPrefix. In both, {JOB_ID} becomes a new ID.",
        flag_values=values,
    )
    absl_flags.DEFINE_bool(
        "no_venv", False, "Install no packageUris, and use the modules of this environment.", flag_values=values
    )
    absl_flags.DEFINE_string(
        "package", ".", "Folder of the package to build if packageUris is missing.", flag_values=values
    )
    absl_flags.DEFINE_integer(
        "max_restarts",
        MAX_RESTARTS,
        "Maximum number of restarts of a replica, or of the whole job, after preemptions.",
        lower_bound=0,
        flag_values=values,
    )
    absl_flags.DEFINE_float(
        "preempt_every_secs",
        None,
        "Number of seconds between simulated preemptions of a random replica. None: no preemptions.",
        flag_values=values,
    )
    absl_flags.DEFINE_float(
        "grace_secs", GRACE_SECS, "Number of seconds from SIGTERM to SIGKILL.", lower_bound=0, flag_values=values
    )
    absl_flags.DEFINE_integer("seed", 0, "Seed of the choice of preempted replicas.", flag_values=values)
    absl_flags.DEFINE_bool("dry_run", False, "Print the processes as JSON, and start nothing.", flag_values=values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Runs the job or the study, or prints the processes that it would start."""
    install_handler(uses_stderr=values.dry_run)
    preempt_every_secs = values.preempt_every_secs
    if preempt_every_secs is not None and not preempt_every_secs > 0:
        raise ConfigError(
            f"--preempt_every_secs={preempt_every_secs:g} is not a positive number of seconds; leave it out for no "
            "preemptions."
        )
    folder = parse_output_folder(values.base_output_dir, is_local=True)
    args = arguments.split_lists(values.args)
    study = study_flags.parse(values)
    overrides = Overrides(args=args, spec={"baseOutputDirectory": folder}, study=study, job_id=new_job_id())

    def change(content: Any) -> Any:
        content = overrides.apply(content)
        names = variables.used_in(content)
        settings = variables.read_values(variables.flag_values(values), values.env_file, names=names)
        return source_package.for_local_job(variables.expand(content, settings))

    job = job_spec.read(values.config, is_local=True, change=change)
    if values.no_venv:
        job = _without_packages(job)
    with job_spec.errors_of_file(values.config):
        check_job(job, is_local=True)
        replicas = _plan_first_trial(job) if isinstance(job, TuningSpec) else _plan_replicas(job)
        if not values.dry_run:
            job_request.check_placeholders({"replicas": [_describe_replica(replica) for replica in replicas]})
    if values["package"].present and all(source_package.TO_BUILD not in one.package_uris for one in replicas):
        raise ConfigError(
            f"--package={quote(values.package)} has no effect, because the job has no package to build; omit it."
        )
    if values.dry_run:
        print_json([_describe_replica(replica) for replica in replicas])
        return
    venvs.check_packages(replicas)
    project = local_path(values.package, "give a local folder with --package")
    with venvs.install_packages(replicas, project=project) as with_venv:
        if isinstance(job, TuningSpec):
            _run_study(job, values, with_venv)
        else:
            runner.run([with_venv(replica) for replica in replicas], _restart_policy(job, values))


main = app.command(_USAGE, define_flags, run_command, resumes=True)


def _plan_replicas(job: JobSpec, gpus: Sequence[str] | None = None, trial: Trial | None = None) -> tuple[Replica, ...]:
    """Plans the processes of a job, or of a trial. They use all GPUs of this machine if `gpus` is None."""
    if trial is not None:
        job = replace(append_args(job, trial.args), base_output_uri=trial.folder)
    return plan(
        job,
        ports=free_ports(num_replicas(job)),
        job_id=str(time.time_ns()),
        gpus=_visible_gpus() if gpus is None else gpus,
        trial=trial.environment if trial else None,
    )


def _plan_first_trial(spec: TuningSpec) -> tuple[Replica, ...]:
    """Plans the processes of a study's first trial."""
    parameters = Suggester(spec.study, ()).ask("1") or {}
    return _plan_replicas(
        spec.trial,
        trial=Trial(
            id="1",
            parameters=parameters,
            args=trial_store.to_flags(parameters),
            folder=os.path.join(str(spec.trial.base_output_uri), "1"),
            metric_file=Path(DEFAULT_METRIC_FILE),
        ),
    )


def _run_study(spec: TuningSpec, values: absl_flags.FlagValues, with_venv: Callable[[Replica], Replica]) -> None:
    """Runs the trials, then prints them as a table and draws a plot, also if the study fails.

    Raises:
        ConfigError: If Optuna or Matplotlib is not installed, or as `run_study` raises it.
    """
    study_report.import_figure()  # before the trials, which may take days
    base = str(spec.trial.base_output_uri)
    _logger.info(f"The study is in {base}; the same command with --base_output_dir={base} resumes it.")
    free_gpus: queue.SimpleQueue[Sequence[str]] = queue.SimpleQueue()
    for gpus in _split_gpus(_visible_gpus(), spec.parallel_trial_count):
        free_gpus.put(gpus)

    def run_trial(trial: Trial) -> int:
        gpus = free_gpus.get()
        try:
            replicas = [with_venv(replica) for replica in _plan_replicas(spec.trial, gpus, trial)]
            runner.run(replicas, _restart_policy(spec.trial, values), label=f"trial {trial.id} ", stop=trial.stop)
        except JobError as error:
            if isinstance(error, JobStopped) and not trial.stop.is_set():
                raise
            if not isinstance(error, JobStopped):
                _logger.warning(f"trial {trial.id}: {error}")
            return error.exit_code
        finally:
            free_gpus.put(gpus)
        return 0

    try:
        study = study_runner.run_study(spec, base, run_trial)
    except study_runner.StudyFailed as error:
        _show_study(error.study)
        raise
    _show_study(study)


def _show_study(study: study_report.Study) -> None:
    """Draws a plot of the trials that have succeeded, and prints all trials and what to do with the best one."""
    best = study.best_trial
    if best is not None:
        plot = locate(study.folder) / _PLOT
        plot.write_bytes(study_report.plot(study))
        _logger.info(f"Wrote a plot of the trials to {plot}.")
    for line in study_report.format_table(study).splitlines():
        print_line(line)
    if best is not None and (locate(study.folder) / best.id / CONFIG).exists():  # other programs write no run
        print_line(f"python -m trainer generate {shlex.quote(f'--job_dir={study.folder}/{best.id}')} --out=grid.png")


def _split_gpus(gpus: Sequence[str], num_trials: int) -> list[Sequence[str]]:
    """Returns the GPUs of each parallel trial. Trials share a GPU if there are fewer GPUs than trials."""
    return [gpus[number::num_trials] or (gpus and [gpus[number % len(gpus)]]) for number in range(num_trials)]


def _restart_policy(job: JobSpec, values: absl_flags.FlagValues) -> RestartPolicy:
    return RestartPolicy(
        timeout_secs=job.scheduling.timeout_secs,
        restart_job=job.scheduling.restart_job_on_worker_restart,
        disable_retries=job.scheduling.disable_retries,
        max_restarts=values.max_restarts,
        grace_secs=values.grace_secs,
        preempt_every_secs=values.preempt_every_secs,
        seed=values.seed,
    )


def _without_packages(job: JobFile) -> JobFile:
    """Returns the job, or the study, without packages to install."""
    if isinstance(job, TuningSpec):
        return replace(job, trial=without_packages(job.trial))
    return without_packages(job)


def _visible_gpus() -> Sequence[str]:
    """Returns the GPUs that this process may use, as named in `CUDA_VISIBLE_DEVICES`."""
    count = len([path for path in Path("/dev").glob("nvidia*") if path.name[len("nvidia") :].isdecimal()])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(count)] if visible is None else visible.split(",")
    return [name for name in names if count and name not in ("", "-1")]


def _describe_replica(replica: Replica) -> dict[str, Any]:
    package_uris = {"package_uris": replica.package_uris} if replica.package_uris else {}
    return {"name": replica.name, "command": replica.command, **package_uris, "environment": dict(replica.environment)}
