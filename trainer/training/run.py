"""One training run: from a config to a run directory with checkpoints, samples, metrics and a model."""

import contextlib
import functools
import logging
import shlex
import time
from collections.abc import Iterator, Sequence

import keras

from trainer import callbacks, metrics, signals
from trainer.callbacks.base import is_interrupted
from trainer.callbacks.checkpoint import StatefulCallback
from trainer.callbacks.watchdog import LOST_WORKER_ERRORS, abort
from trainer.config import TrainConfig, check_batch, recipes
from trainer.data.loading import TrainingData, load_training_data
from trainer.data.second_dataset import describe_training_data
from trainer.environment import Environment
from trainer.errors import Preempted, TrainerError, count_of
from trainer.logging import log_fields
from trainer.metrics.log_names import log_name
from trainer.metrics.suite import Suite
from trainer.models import GAN, ImageTranslator, from_config, initial_weights, with_compute_settings
from trainer.models.frozen_layers import frozen_layers
from trainer.models.translator import NUM_GRID_IMAGES
from trainer.report.run_report import RunReport
from trainer.serving import saved_model
from trainer.storage import Mirror, RunDirectory, is_remote
from trainer.storage.run_directory import PROGRESSION, sample_grids
from trainer.training import transfer
from trainer.training.checkpoint.manifest import CheckpointManifest
from trainer.training.checkpoint.state_file import load
from trainer.training.complete_config import with_stored_run
from trainer.training.distributed import consensus, strategy as strategies
from trainer.training.metric_suite import create_suite
from trainer.training.processors import supports_bfloat16
from trainer.training.run_end import COLLAPSE, EVALUATION
from trainer.training.run_state import (
    check_machine,
    check_resumable,
    delete_leftovers,
    is_complete,
    model_card,
    resumed_history,
    shared_fingerprint,
)
from trainer.training.run_summary import describe_change, describe_saved, describe_start, describe_transfer, facts
from trainer.training.stored_run import StoredRun, config_document, monitor_of

_logger = logging.getLogger(__name__)


def train(config: TrainConfig, environment: Environment, *, waits_for_lease: bool = False) -> None:
    """Trains a resolved config in its run directory, from the newest checkpoint there.

    Nothing is written before this process has the lease of the directory.

    Args:
        config: Resolved config.
        environment: Environment of the job.
        waits_for_lease: Whether to wait until another process that writes the directory ends.

    Raises:
        ConfigError: If the strategy, the architecture or the batch does not fit.
        DataError: If the data cannot be read.
        CheckpointError: If the run directory cannot be written, or contains another run.
        LeaseError: If another process writes the run directory.
        DivergenceError: If a loss or a weight is not finite.
        Preempted: If SIGTERM stopped training.
    """
    check_machine(environment, waits_for_lease)
    with contextlib.ExitStack() as stack:
        directory = RunDirectory(str(config.job_dir))
        if environment.writes:
            stack.enter_context(directory.hold_lease(environment.replica, waits=waits_for_lease))
        stack.enter_context(directory.open())
        config, stored = with_stored_run(config, environment, directory)
        manifest = check_resumable(config, directory, stored)
        if stored is not None and manifest is not None and is_complete(config, directory, environment, manifest):
            delete_leftovers(directory, stored, manifest.step)
            return
        config, weights = transfer.with_initial_weights(config, stored, manifest)
        run = Run(config, directory, environment, stored, manifest, weights)
        with run.cluster_failures_abort():
            run.prepare()
            run.fit()
            signals.check()
            run.export()
            run.synchronize()
        run.report()


class Run:
    """One run on this machine. Call `prepare`, `fit`, `export`, `synchronize` and `report`, in this order.

    In a cluster every machine has a `Run`, and only the chief writes the run directory.

    Args:
        config: Resolved config.
        directory: Open run directory.
        environment: Environment of the job.
        stored: Stored config and history of the run; None for a new run.
        manifest: Manifest of the checkpoint to continue from; None for a new run.
        weights: Weights of another run to begin with; None for random weights.
    """

    def __init__(
        self,
        config: TrainConfig,
        directory: RunDirectory,
        environment: Environment,
        stored: StoredRun | None,
        manifest: CheckpointManifest | None,
        weights: transfer.InitialWeights | None = None,
    ):
        self._config, self._directory, self._environment = config, directory, environment
        self._stored, self._manifest, self._weights = stored, manifest, weights
        self._started = time.monotonic()
        self._exported_step: int | None = None
        self._evaluation: callbacks.Evaluation | None = None
        self._suite: Suite | None = None
        self._callback_states: dict[str, StatefulCallback] = {}

    @property
    def _is_distributed(self) -> bool:
        return self._environment.cluster is not None

    @property
    def _was_interrupted(self) -> bool:
        """True if SIGTERM has stopped training before the last step, or an evaluation."""
        is_pending = self._evaluation is not None and self._evaluation.is_pending
        return is_pending or is_interrupted(self._gan, self._config.steps or 0)

    def prepare(self) -> None:
        """Finds the weights for metrics, checks the networks, loads the data, and builds and compiles the GAN."""
        config = self._config
        metrics.find_weights(config.metrics, config.inception_weights)  # fails before it takes time
        callbacks.check_trackers(config.track if self._environment.writes else ())
        self._strategy = strategies.create(config, self._environment.cluster)
        self._config = config = self._with_checked_networks(config)
        self._extractor = (
            metrics.get_extractor(config.metrics, config.inception_weights) if config.has_metrics else None
        )
        self._data: TrainingData = load_training_data(config)
        self._fingerprints = dict(self._data.fingerprints)
        if self._extractor is not None:
            self._fingerprints[f"{self._extractor.name}_weights"] = self._extractor.sha256
        self._fingerprints |= transfer.source_fingerprint(self._weights, self._manifest)
        info = self._data.info
        self._history = resumed_history(config, self._stored, self._manifest, self._fingerprints)
        check_batch(config.global_batch_size, self._data.max_batch_size, self._strategy.num_replicas_in_sync)
        with self._strategy.scope():
            self._gan: GAN = from_config(config, **info.model_arguments, strategy=self._strategy)
        if isinstance(self._gan, ImageTranslator):
            self._gan.set_grid_images(*self._data.real_images(NUM_GRID_IMAGES))
        weights, self._weights = self._weights, None  # frees the memory after this method
        if weights is not None:
            has_labels = self._gan.num_classes > 0 and not self._gan.labels_are_codes
            explain = functools.partial(transfer.explain_shapes, weights, config, info, has_labels=has_labels)
            initial_weights.assign(self._gan, weights, explain)

    def fit(self) -> None:
        """Trains, and writes the run directory."""
        if self._is_distributed:
            consensus.check_same_settings(self._strategy, shared_fingerprint(self._config))
            consensus.check_same_data(self._strategy, self._fingerprints)
        if self._environment.writes:
            self._fit_and_write()
        else:
            evaluators = self._evaluators()
            self._checkpoint = self._make_checkpoint(reads_only=True)
            self._fit([*evaluators, self._checkpoint], verbose=0)

    def synchronize(self) -> None:
        """Waits until all machines have finished.

        Raises:
            Preempted: If SIGTERM stopped training before the last step, or an evaluation.
        """
        saved_step = self._checkpoint.saved_step
        if self._is_distributed:
            saved_step = max(consensus.gather_per_replica(self._strategy, saved_step))
        if self._was_interrupted:
            folder = self._directory.display_path(self._directory.checkpoints)
            raise Preempted(
                f"stopped by SIGTERM at step {self._gan.step} of {self._config.steps}; "
                f"{describe_saved(self._gan.step, saved_step, folder)}; run the same command again to resume."
            )

    def export(self) -> None:
        """Writes the generator of the best checkpoint as a SavedModel, or the current one if none was evaluated.

        The chief exports a completed run. The other machines wait in `synchronize`.
        """
        if self._was_interrupted or not (self._environment.writes and self._config.export_model):
            return
        gan, directory = self._gan, self._directory
        assert directory.lease is not None
        manifest, problems = self._checkpoint.store.find_best()
        for problem in problems:
            _logger.warning(f"Skipped a better checkpoint: {problem}.")
        step = gan.step if manifest is None else manifest.step
        if step != gan.step:
            load(self._checkpoint.store.folder(step), gan.state)
        directory.lease.verify()
        card = model_card(gan, directory, step)
        saved_model.save(gan, directory.model, step, exported_at_step=gan.step, other_files=card)
        for destination in directory.model_destinations(self._environment.model_dir):
            directory.lease.verify()
            saved_model.publish(directory.model, destination)
        self._exported_step = step

    def report(self) -> None:
        """Logs where the results are."""
        if not self._environment.writes:
            return
        directory, seconds = self._directory, time.monotonic() - self._started
        _logger.info(
            f"Done: {count_of(self._gan.step, 'step')}; this command took {seconds:.0f} s.",
            extra=log_fields({"seconds": seconds}),
        )
        monitor = monitor_of(self._config)
        if monitor is not None and (change := describe_change(directory.metrics, monitor)):
            _logger.info(change)
        display_path = directory.display_path
        samples = [*[*sample_grids(directory.samples).values()][-1:], directory.samples / PROGRESSION]
        _logger.info(
            f"Report: {display_path(directory.report)}. Samples: "
            f"{' and '.join(display_path(path) for path in samples if path.is_file()) or 'none'}. Scalars: "
            f"{display_path(directory.metrics)}. TensorBoard events: {display_path(directory.logs)}. Checkpoints: "
            f"{display_path(directory.checkpoints)}."
        )
        if self._exported_step is not None:
            _logger.info(f"SavedModel of step {self._exported_step}: {display_path(directory.model)}.")
        recipe = self._config.recipe
        flags = [f"--recipe={recipe}"] if recipes.is_custom(recipe) and is_remote(directory.name) else []
        command = shlex.join(["generate", f"--job_dir={directory.name}", *flags, "--out=grid.png"])
        _logger.info(f"Generate more: python -m trainer {command}")

    @contextlib.contextmanager
    def cluster_failures_abort(self) -> Iterator[None]:
        """Ends this process if another machine is lost, so that the job restarts all machines."""
        try:
            yield
        except LOST_WORKER_ERRORS as error:
            if not self._is_distributed:
                raise
            step = self._gan.step if hasattr(self, "_gan") else 0
            abort(f"another machine was lost at or after step {step} ({type(error).__name__})")

    def _with_checked_networks(self, config: TrainConfig) -> TrainConfig:
        """Checks the networks before the data is loaded, which may take long, and chooses the compute settings."""
        is_fast = supports_bfloat16()  # the machines may have different processors
        if self._is_distributed:
            is_fast = min(consensus.gather_per_replica(self._strategy, int(is_fast))) > 0
        facts = describe_training_data(config).model_arguments
        return with_compute_settings(config, **facts, can_use_bfloat16=is_fast)

    def _fit_and_write(self) -> None:
        directory = self._directory
        assert directory.lease is not None
        writers = [callbacks.LeaseCheck(directory.lease), *self._evaluators(), *self._writers()]
        directory.create()
        num_replicas = self._strategy.num_replicas_in_sync
        _logger.info(describe_start(self._config, self._data.info, self._gan.networks, num_replicas))
        for sentence in describe_transfer(self._config, frozen_layers(self._gan.networks)):
            _logger.info(sentence)
        with directory.mirror_changes(self._environment.tensorboard_log_dir) as mirrors:
            self._checkpoint = checkpoint = self._make_checkpoint(mirrors)
            checkpoint.restore(self._gan)  # rejects a run that does not fit before anything of it is overwritten
            directory.write_config(config_document(self._config, self._history))
            session = callbacks.SessionLog(
                directory.events,
                facts(self._data.info, self._gan.networks, num_replicas),
                None if self._suite is None else self._suite.real_vs_real,
            )
            tracking = callbacks.Tracking.of_run(self._config, directory, monitor_of(self._config))
            with callbacks.ReportWriter(RunReport(directory).write) as report, tracking, session:
                try:
                    self._fit([*writers, checkpoint, session, report, tracking])
                except BaseException:
                    with contextlib.suppress(TrainerError, OSError):
                        checkpoint.store.wait()  # commit a checkpoint that is being written
                    raise

    def _fit(self, active: list[keras.callbacks.Callback], verbose: str | int = "auto") -> None:
        config = self._config
        uses_targets = (self._gan.takes_targets and not self._gan.ignores_labels) or config.balance_classes
        with contextlib.ExitStack() as stack:
            if self._is_distributed:
                watchdog = stack.enter_context(callbacks.Watchdog(config.worker_timeout_secs))
                active = [watchdog, callbacks.Heartbeat(), *active]
            self._gan.fit(
                self._data.x,
                self._data.y if uses_targets else None,
                batch_size=config.global_batch_size,
                steps=config.steps,
                steps_per_execution=config.steps_per_execution,
                balance_classes=config.balance_classes,
                horizontal_flips=config.horizontal_flips,
                callbacks=active,
                verbose=verbose,
                handle_sigterm=True,
            )

    def _evaluators(self) -> list[keras.callbacks.Callback]:
        """The callbacks that evaluate. All machines have them, because all machines compute the metrics."""
        config, monitor = self._config, monitor_of(self._config)
        if monitor is None:
            return []
        self._suite = create_suite(config, self._data, self._extractor, self._strategy)
        recall = metrics.recall_name(config.metrics, config.num_metric_samples)
        alarm = callbacks.CollapseAlarm(monitor, recall and log_name(recall), config.stop_on_collapse)
        self._evaluation = callbacks.Evaluation(self._suite, config.evaluate_every_steps)
        self._callback_states = {EVALUATION: self._evaluation, COLLAPSE: alarm}
        return [self._evaluation, alarm]

    def _writers(self) -> list[keras.callbacks.Callback]:
        """The callbacks that write, without the checkpoint."""
        config, directory, environment = self._config, self._directory, self._environment
        writers: list[keras.callbacks.Callback] = [
            callbacks.MetricsLog(directory.metrics),
            callbacks.EventLog(directory.logs, config.identity if environment.trial_id else None, monitor_of(config)),
            callbacks.SampleGrid(directory.samples, config.sample_every_steps, log_dir=directory.logs),
            callbacks.Animation(directory.samples),
        ]
        if environment.metric_file is not None:
            trial, suite = environment.trial_id or "1", config.suite if config.has_metrics else None
            count = config.num_metric_samples
            writers.append(callbacks.TuningReport(environment.metric_file, trial, suite=suite, num_samples=count))
        return writers

    def _make_checkpoint(self, mirrors: Sequence[Mirror] = (), *, reads_only: bool = False) -> callbacks.Checkpoint:
        config, directory = self._config, self._directory
        return callbacks.Checkpoint(
            directory.checkpoints,
            config.checkpoint_every_steps,
            max_to_keep=config.max_to_keep,
            best=None if reads_only else monitor_of(config),
            callback_states=self._callback_states,
            fingerprints=self._history,
            remote=directory.remote_checkpoints,
            mirrors=mirrors,
            reads_only=reads_only,
            lease=directory.lease,
        )
