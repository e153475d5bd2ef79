"""Runs a hyperparameter tuning job on this machine: the same study as on Vertex AI, with trials of the caller."""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer.cloud.jobs.job_spec import TuningSpec
from trainer.cloud.jobs.study_spec import StudySpec, Value
from trainer.cloud.tuning import trial_store
from trainer.cloud.tuning.optuna_backend import Suggester
from trainer.cloud.tuning.study_report import Study
from trainer.cloud.tuning.trial_store import Measurement, TrialRecord
from trainer.environment import without_slash
from trainer.errors import ConfigError, TrainerError
from trainer.logging import to_rfc3339
from trainer.storage import is_remote, locate, parse_path, path_below, scratch_folder
from trainer.storage.lease import BY_PRODUCT_AGE_SECS, Lease, hold

_logger = logging.getLogger(__name__)

_METRIC_FILE = "output.metrics"
_DEFAULT_MAX_FAILURES = 3
"""Number of failures without a success that ends a study if maxFailedTrialCount is not set."""


class StudyFailed(TrainerError):
    """A study that has ended because too many trials failed.

    Args:
        message: Message for the user.
        study: The study with all trials.
    """

    def __init__(self, message: str, study: Study):
        super().__init__(message)
        self.study = study


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial to run."""

    id: str
    """Number of the trial, from 1. An interrupted trial keeps its number."""
    parameters: Mapping[str, Value]
    """Parameters of this trial. A conditional parameter is absent unless its parent has a matching value."""
    args: tuple[str, ...]
    """`--NAME=value` for each parameter. They follow the args of every pool."""
    folder: str
    """Output folder of the trial, local or gs://: BASE/ID."""
    metric_file: Path
    """File that receives the metrics. Its folder exists."""
    stop: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)
    """Event that is set when the trial should stop, because its metric is too bad or because the study ends."""

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a trial, in addition to those of any job."""
        return {"CLOUD_ML_TRIAL_ID": self.id, "CLOUD_ML_HP_METRIC_FILE": str(self.metric_file)}


def run_study(
    spec: TuningSpec, base: str | os.PathLike[str], run_trial: Callable[[Trial], int], *, poll_secs: float = 1.0
) -> Study:
    """Runs a study until it ends, or continues one that was interrupted.

    Every change is written to BASE/trials.json, in the format of Vertex AI's answer about the job. A trial whose
    process was killed runs again in the same folder with the same parameters. A trial that has ended does not.

    Args:
        spec: Tuning job.
        base: Folder of the study, local or gs://. A study in this folder continues.
        run_trial: Function that runs a trial and returns its exit code. It is called in a thread, and should return
            soon after `trial.stop` is set, with any code.
        poll_secs: Interval in seconds at which metric files are read.

    Returns:
        The study with all trials.

    Raises:
        LeaseError: If another process runs the study.
        ConfigError: If the study cannot run locally, or the folder contains another study.
        StorageError: If the folder cannot be read or written.
        StudyFailed: If too many trials failed. An exception of `run_trial` is raised again after the other trials have
            ended; they count as interrupted.
    """
    folder = parse_path(base)
    folder = without_slash(folder) if is_remote(folder) else os.path.abspath(folder)
    with hold(locate(folder), f"base_output_dir={folder}") as lease, scratch_folder() as scratch:
        runner = _StudyRunner(spec, folder, Path(scratch if is_remote(folder) else folder), run_trial, lease)
        _log_differences(spec.study)
        runner.run(poll_secs)
    return runner.study


class _StudyRunner:
    """Runs the trials of a study. Only `run_trial` is called in other threads."""

    def __init__(
        self,
        spec: TuningSpec,
        folder: str,
        metric_folder: Path,
        run_trial: Callable[[Trial], int],
        lease: Lease,
    ):
        self._spec, self._folder, self._metric_folder, self._run_trial = spec, folder, metric_folder, run_trial
        self._lease = lease
        self._metric = spec.study.metrics[0].metric_id
        self._file = locate(folder) / trial_store.FILE_NAME
        self.records = trial_store.read(self._file, spec)
        self._interrupted = [record for record in self.records.values() if not record.has_ended]
        self._suggester = Suggester(spec.study, [record for record in self.records.values() if record.has_ended])
        self._running: dict[Future[int], Trial] = {}
        self._reported_steps: dict[str, set[int]] = {}
        self._is_grid_exhausted = False

    @property
    def study(self) -> Study:
        """The study with the trials so far."""
        return Study(spec=self._spec.study, folder=self._folder, trials=tuple(self.records.values()))

    def run(self, poll_secs: float) -> None:
        """Runs all remaining trials. If it is interrupted, the running trials keep what they have reported."""
        try:
            self._run_trials(poll_secs)
        except BaseException:
            self._save_measurements()
            raise

    def _run_trials(self, poll_secs: float) -> None:
        with ThreadPoolExecutor(max_workers=self._spec.parallel_trial_count) as threads:
            try:
                while self._start_trials(threads):
                    done, _ = wait(self._running, timeout=poll_secs, return_when=FIRST_COMPLETED)
                    for trial in self._running.values():
                        self._update(trial)
                    # Failed calls come last, so that the other results are recorded first.
                    for future in sorted(done, key=lambda future: future.exception() is not None):
                        self._finish(self._running[future], future.result())
                        del self._running[future]
            except BaseException:
                for trial in self._running.values():
                    trial.stop.set()
                raise

    def _start_trials(self, threads: ThreadPoolExecutor) -> bool:
        """Starts as many trials as may run at once. Returns whether any trial is running."""
        self._check_failures()
        while len(self._running) < self._spec.parallel_trial_count and (trial := self._next_trial()):
            _logger.info(f"Trial {trial.id} starts: {' '.join(trial.args)}")
            self._running[threads.submit(self._run_trial, trial)] = trial
        return bool(self._running)

    def _next_trial(self) -> Trial | None:
        record = self._resume_record() if self._interrupted else self._new_record()
        if record is None:
            return None
        trial = Trial(
            id=record.id,
            parameters=record.parameters,
            args=trial_store.to_flags(record.parameters),
            folder=os.path.join(self._folder, record.id),
            metric_file=path_below(self._metric_folder, f"{record.id}/{_METRIC_FILE}"),
        )
        if record.id not in self.records and trial.metric_file.exists():
            raise ConfigError(
                f"{trial.metric_file} belongs to no trial in {trial_store.FILE_NAME}; give the study another folder."
            )
        trial.metric_file.parent.mkdir(parents=True, exist_ok=True)
        self._reported_steps[trial.id] = set()
        self._record(record)
        return trial

    def _resume_record(self) -> TrialRecord:
        record = replace(self._interrupted.pop(0), state="ACTIVE")
        self._suggester.resume(record)
        return record

    def _new_record(self) -> TrialRecord | None:
        """Returns the record of a new trial. None: the study has no further trials."""
        if len(self.records) >= self._spec.max_trial_count or self._is_grid_exhausted:
            return None
        trial_id = str(max(map(int, self.records), default=0) + 1)  # an earlier trial may have been deleted
        parameters = self._suggester.ask(trial_id)
        if parameters is None:
            self._is_grid_exhausted = True
            _logger.info(
                f"The grid has no further points after {len(self.records)} trials, fewer than maxTrialCount="
                f"{self._spec.max_trial_count}."
            )
            return None
        return TrialRecord(id=trial_id, state="ACTIVE", parameters=parameters, start_time=to_rfc3339(time.time()))

    def _update(self, trial: Trial) -> None:
        """Reads the new measurements of a trial, and stops the trial if they are too bad."""
        record, measurements = self.records[trial.id], self._read_measurements(trial)
        should_stop = False
        for measurement in measurements:
            if measurement.step not in self._reported_steps[trial.id]:
                self._reported_steps[trial.id].add(measurement.step)
                should_stop |= self._suggester.report(trial.id, measurement.step, measurement.value)
        stops_now = should_stop and not trial.stop.is_set()
        if measurements != record.measurements or stops_now:
            state = "STOPPING" if stops_now else record.state
            self._record(replace(record, measurements=measurements, state=state))
        if stops_now:
            _logger.info(
                f"Trial {trial.id} is being stopped: {self._describe(measurements[-1])}, worse than the median."
            )
            trial.stop.set()

    def _read_measurements(self, trial: Trial) -> tuple[Measurement, ...]:
        """Returns the measurements of a trial, with those of its earlier processes."""
        new = trial_store.read_metric_file(trial.metric_file, self._metric)
        return trial_store.merge_measurements(self.records[trial.id].measurements, new)

    def _save_measurements(self) -> None:
        """Writes the measurements of the trials that an error or a signal has ended.

        The metric files of a study in a bucket are deleted with this process, and a run that is complete does not
        report its metrics again.
        """
        try:
            for trial in self._running.values():
                measurements = self._read_measurements(trial)
                self.records[trial.id] = replace(self.records[trial.id], measurements=measurements)
            if self._running:
                self._write()
        except TrainerError as error:
            _logger.warning(f"The last measurements of the running trials were not saved: {error}")

    def _finish(self, trial: Trial, code: int) -> None:
        record = replace(self.records[trial.id], end_time=to_rfc3339(time.time()))
        final = trial_store.select_measurement(record.measurements, self._spec.study)
        reason = f"exit code {code}" if code and not trial.stop.is_set() else None
        if final is None and reason is None:
            reason = f"it reported no {self._metric}"
        if reason is None and final:
            self._record(replace(record, state="SUCCEEDED", final_measurement=final))
            self._suggester.tell(trial.id, final.value)
            _logger.info(f"Trial {trial.id} succeeded: {self._describe(final)}.")
        else:
            self._record(replace(record, state="INFEASIBLE", infeasible_reason=reason))
            self._suggester.tell(trial.id, None)
            _logger.warning(f"Trial {trial.id} failed ({reason}). See {trial.folder}.")

    def _describe(self, measurement: Measurement) -> str:
        return f"{self._metric} {measurement.value:.6g} at step {measurement.step}"

    def _record(self, record: TrialRecord) -> None:
        self.records[record.id] = record
        self._write()

    def _write(self) -> None:
        self._lease.verify(BY_PRODUCT_AGE_SECS)
        trial_store.write(self._file, self._spec, self.records.values())

    def _check_failures(self) -> None:
        failed = [record for record in self.records.values() if record.state == "INFEASIBLE"]
        has_success = any(record.state == "SUCCEEDED" for record in self.records.values())
        limit = self._spec.max_failed_trial_count
        if len(failed) < (limit or _DEFAULT_MAX_FAILURES) or (not limit and has_success):
            return
        last = failed[-1]
        cause = f"maxFailedTrialCount is {limit}" if limit else "none succeeded"
        raise StudyFailed(
            f"the study ended because {len(failed)} trials failed and {cause} (trial {last.id}: "
            f"{last.infeasible_reason}); see {self._folder}/{last.id}, correct the job, and use another folder.",
            self.study,
        )


def _log_differences(spec: StudySpec) -> None:
    """Logs what Vertex AI would do and a local study does not."""
    raw: Mapping[str, Any] = spec.raw
    if spec.early_stopping not in (None, "median"):
        _logger.info("A local study supports only median stopping, so it does not stop trials early.")
    if raw.get("medianAutomatedStoppingSpec", {}).get("useElapsedDuration"):
        _logger.info("A local study compares trials at the same step, not after the same time.")
    if "studyStoppingConfig" in raw:
        _logger.info("A local study ignores studyStoppingConfig and ends after maxTrialCount trials.")
