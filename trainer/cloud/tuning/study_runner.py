"""Runs a hyperparameter tuning job on this machine: the study that Vertex AI would run, with trials of the caller's."""

import datetime
import logging
import os
import tempfile
import threading
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
from trainer.cloud.vertex.environment import without_slash
from trainer.errors import ConfigError, TrainerError
from trainer.storage import is_remote, locate, path_below

_logger = logging.getLogger(__name__)

_METRIC_FILE = "output.metrics"
_HOPELESS = 3
"""Failures without a success that end a study whose maxFailedTrialCount leaves the choice to the service."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One job of a study, to be run."""

    id: str
    """Its number, from 1 on; that of a trial that was interrupted stays the same."""
    parameters: Mapping[str, Value]
    """Those that this trial has, conditional ones where their parent has a matching value alone."""
    args: tuple[str, ...]
    """`--NAME=value` of each parameter, to come after the args of every pool."""
    folder: str
    """Its own, local or gs://: BASE/ID."""
    metric_file: Path
    """Where it reports its metrics; the folder exists."""
    stop: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)
    """Set when the trial should end: it has no hope, or the study ends."""

    @property
    def environment(self) -> dict[str, str]:
        """What Vertex AI tells its processes beside a job's own variables."""
        return {"CLOUD_ML_TRIAL_ID": self.id, "CLOUD_ML_HP_METRIC_FILE": str(self.metric_file)}


def study(
    spec: TuningSpec, base: str | os.PathLike[str], run_trial: Callable[[Trial], int], *, poll_secs: float = 1.0
) -> Study:
    """Runs a study to its end, or goes on with one that was interrupted.

    Every change is written to BASE/trials.json, in the form of Vertex AI's answer about the job. A trial whose process
    was killed runs again in its own folder with the same parameters; one that has ended does not.

    Args:
        spec: The job.
        base: A folder, local or gs://. What it holds of this study is gone on with.
        run_trial: Runs a trial to its end and returns its exit code. It is called in a thread, and should end soon
            after `trial.stop` is set, with any code.
        poll_secs: How often metric files are read, in seconds.

    Returns:
        All trials.

    Raises:
        ConfigError: The study cannot be run here, or is another one than the folder's.
        StorageError: The folder cannot be read or written.
        TrainerError: As many trials failed as end the study. What `run_trial` raises is raised again, after the
            other trials have ended; they count as interrupted.
    """
    folder = without_slash(os.fspath(base)) if is_remote(base) else os.path.abspath(base)
    with tempfile.TemporaryDirectory(prefix="gan-trainer-") as scratch:
        run = _Run(spec, folder, Path(scratch if is_remote(base) else folder), run_trial)
        _tell_differences(spec.study)
        run.to_the_end(poll_secs)
    return Study(spec=spec, folder=folder, trials=tuple(run.records.values()))


class _Run:
    """A study while it runs; all but `run_trial` happens in one thread."""

    def __init__(self, spec: TuningSpec, folder: str, reports: Path, run_trial: Callable[[Trial], int]):
        self._spec, self._folder, self._reports, self._run_trial = spec, folder, reports, run_trial
        self._metric = spec.study.metrics[0].metric_id
        self._file = locate(folder) / trial_store.FILE_NAME
        self.records = trial_store.read(self._file, spec)
        self._interrupted = [record for record in self.records.values() if not record.ended]
        self._suggester = Suggester(spec.study, [record for record in self.records.values() if record.ended])
        self._running: dict[Future[int], Trial] = {}
        self._reported: dict[str, set[int]] = {}
        self._exhausted = False

    def to_the_end(self, poll_secs: float) -> None:
        """Runs what is left of it."""
        with ThreadPoolExecutor(max_workers=self._spec.parallel_trial_count) as threads:
            try:
                while self._keep_busy(threads):
                    done, _ = wait(self._running, timeout=poll_secs, return_when=FIRST_COMPLETED)
                    for trial in self._running.values():
                        self._follow(trial)
                    # One that raised comes last, so that the others are on record.
                    for future in sorted(done, key=lambda one: one.exception() is not None):
                        self._end(self._running[future], future.result())
                        del self._running[future]
            except BaseException:
                for trial in self._running.values():
                    trial.stop.set()
                raise

    def _keep_busy(self, threads: ThreadPoolExecutor) -> bool:
        """Begins as many trials as may run; returns whether any does."""
        self._check_failures()
        while len(self._running) < self._spec.parallel_trial_count and (trial := self._next()):
            _logger.info(f"Trial {trial.id} begins: {' '.join(trial.args)}")
            self._running[threads.submit(self._run_trial, trial)] = trial
        return bool(self._running)

    def _next(self) -> Trial | None:
        if self._interrupted:
            record = replace(self._interrupted.pop(0), state="ACTIVE")
            self._suggester.ask_again(record)
        else:
            trial_id = str(len(self.records) + 1)
            if len(self.records) >= self._spec.max_trial_count or self._exhausted:
                return None
            parameters = self._suggester.ask(trial_id)
            if parameters is None:
                self._exhausted = True
                most = self._spec.max_trial_count
                _logger.info(f"The grid has {len(self.records)} points, fewer than maxTrialCount={most}.")
                return None
            record = TrialRecord(id=trial_id, state="ACTIVE", parameters=parameters, start_time=_now())
        trial = Trial(
            id=record.id,
            parameters=record.parameters,
            args=trial_store.flags(record.parameters),
            folder=os.path.join(self._folder, record.id),
            metric_file=path_below(self._reports, f"{record.id}/{_METRIC_FILE}"),
        )
        if record.id not in self.records and trial.metric_file.exists():
            raise ConfigError(
                f"{trial.metric_file} is of no trial in {trial_store.FILE_NAME}; give the study a folder of its own."
            )
        trial.metric_file.parent.mkdir(parents=True, exist_ok=True)
        self._reported[trial.id] = set()
        self._record(record)
        return trial

    def _follow(self, trial: Trial) -> None:
        """Tells what a trial has newly measured, and asks it to end where it has no hope."""
        record = self.records[trial.id]
        measurements = trial_store.merged(
            record.measurements, trial_store.read_metric_file(trial.metric_file, self._metric)
        )
        hopeless = False
        for one in measurements:
            if one.step not in self._reported[trial.id]:
                self._reported[trial.id].add(one.step)
                hopeless = self._suggester.report(trial.id, one.step, one.value) or hopeless
        stops = hopeless and not trial.stop.is_set()
        if measurements != record.measurements or stops:
            self._record(replace(record, measurements=measurements, state="STOPPING" if stops else record.state))
        if stops:
            _logger.info(
                f"Trial {trial.id} is asked to end: {_told(measurements[-1], self._metric)}, worse than the median."
            )
            trial.stop.set()

    def _end(self, trial: Trial, code: int) -> None:
        record = replace(self.records[trial.id], end_time=_now())
        final = trial_store.selected(record.measurements, self._spec.study)
        reason = f"exit code {code}" if code and not trial.stop.is_set() else None
        if final is None and reason is None:
            reason = f"it reported no {self._metric}"
        if reason is None and final:
            self._record(replace(record, state="SUCCEEDED", final=final))
            self._suggester.tell(trial.id, final.value)
            _logger.info(f"Trial {trial.id} has ended: {_told(final, self._metric)}.")
        else:
            self._record(replace(record, state="INFEASIBLE", infeasible_reason=reason))
            self._suggester.tell(trial.id, None)
            _logger.warning(f"Trial {trial.id} failed ({reason}); see {trial.folder}.")

    def _record(self, record: TrialRecord) -> None:
        self.records[record.id] = record
        trial_store.write(self._file, self._spec, self.records.values())

    def _check_failures(self) -> None:
        failed = [record for record in self.records.values() if record.state == "INFEASIBLE"]
        succeeded = any(record.state == "SUCCEEDED" for record in self.records.values())
        limit = self._spec.max_failed_trial_count
        if len(failed) < (limit or _HOPELESS) or (not limit and succeeded):
            return
        last = failed[-1]
        allowed = f"maxFailedTrialCount is {limit}" if limit else "none succeeded"
        raise TrainerError(
            f"{len(failed)} trials failed and {allowed}, which ends the study (trial {last.id}: "
            f"{last.infeasible_reason}); see {self._folder}/{last.id}, correct the job, and begin in another folder."
        )


def _tell_differences(spec: StudySpec) -> None:
    """Says what Vertex AI would do, and a study on this machine does not."""
    raw: Mapping[str, Any] = spec.raw
    if spec.early_stopping not in (None, "median"):
        _logger.info("A local study stops trials early by their median alone; this one runs all to their end.")
    if raw.get("medianAutomatedStoppingSpec", {}).get("useElapsedDuration"):
        _logger.info("A local study compares trials after as many steps, not after as much time.")
    if "studyStoppingConfig" in raw:
        _logger.info("A local study ends after maxTrialCount trials; studyStoppingConfig is for Vertex AI.")


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")


def _told(measurement: Measurement, metric: str) -> str:
    return f"{metric} {measurement.value:.6g} at step {measurement.step}"
