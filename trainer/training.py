"""One run from a config: data, networks, callbacks, and what the user is told."""

import contextlib
import time
from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer import augment, callbacks, combinations, console, metrics, penalties, recipes, served
from trainer.cloud.environment import Environment, without_mount
from trainer.config import TrainConfig, check_batch
from trainer.data import num_examples, windows_of
from trainer.data.loading import TrainingData, load_training_data
from trainer.engine import agreement, strategy as strategies
from trainer.engine.checkpoint import CheckpointStore, load
from trainer.errors import CheckpointError, ConfigError, Preempted, TrainerError
from trainer.gans import GAN, from_config, traits
from trainer.storage import Mirror, RunDirectory, is_remote, locate, read_json_lines, write_atomically
from trainer.trained import stored_config

_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
"""What TensorFlow raises where another machine of the cluster is gone."""
_CHOSEN_AT = "chosen_at_step"
"""Of a model: where the run stood, which may be after the step of the best checkpoint."""


def resolve(config: TrainConfig) -> TrainConfig:
    """Checks all of a config that can be checked without touching data or devices, and fills in what was left open.

    Raises:
        ConfigError: A name is unknown, or settings do not fit each other or the data.
    """
    for name in config.penalties:
        penalties.check_name(name)
    if config.augment is not None:
        augment.check_name(config.augment)
    combinations.check(config, traits(config))
    environment = Environment.read()
    config = _placed(config, environment)
    num_workers = environment.cluster.num_workers if environment.cluster else 1
    return config.resolve(num_examples(config), config.num_virtual_devices * num_workers)


def _placed(config: TrainConfig, environment: Environment) -> TrainConfig:
    """The config with the run directory that the job names, where the flags name none, and buckets by their names."""
    places = {
        "job_dir": config.job_dir or environment.job_dir,
        "dataset": config.dataset,
        "dataset_b": config.dataset_b,
    }
    return config.override(**{name: path and without_mount(path) for name, path in places.items()})


def train(config: TrainConfig) -> None:
    """Trains a resolved config in its run directory, from where it stands.

    Raises:
        ConfigError: The strategy, the architecture or the batch does not fit.
        DataError: The data cannot be read.
        CheckpointError: The run directory cannot be written, or holds another run.
        DivergenceError: A loss or a weight is not finite.
        Preempted: SIGTERM came; the state is committed.
    """
    environment = Environment.read()
    if environment.cluster is not None and environment.cluster.is_evaluator:
        raise ConfigError("this machine is an evaluator, and the chief evaluates; leave the evaluator's pool empty.")
    with RunDirectory(str(config.job_dir)).opened() as directory:
        _train(_with_windows(config, directory), directory, environment)


def _train(config: TrainConfig, directory: RunDirectory, environment: Environment) -> None:
    started, cluster = time.monotonic(), environment.cluster
    if _is_finished(config, directory, environment):
        return
    strategy = strategies.create(config, cluster)
    data = load_training_data(config)
    check_batch(config.global_batch_size, data.largest_batch, strategy.num_replicas_in_sync)
    with strategy.scope():
        gan = from_config(config, data.info.image_shape, data.info.num_classes, strategy)
    if cluster is None:
        exported = _fit_and_write(config, directory, environment, gan, data, [])
    else:
        exported = _fit_with_others(config, directory, environment, gan, data, is_chief=cluster.is_chief)
    if _is_cut(config, gan):
        raise Preempted(
            f"stopped by SIGTERM at step {gan.step} of {config.steps}; the state is committed in "
            f"{directory.shown(directory.checkpoints)}, and the same command goes on from there."
        )
    if cluster is None or cluster.is_chief:
        _conclude(config, directory, gan.step, exported, time.monotonic() - started)


def _fit_with_others(
    config: TrainConfig,
    directory: RunDirectory,
    environment: Environment,
    gan: GAN,
    data: TrainingData,
    *,
    is_chief: bool,
) -> int | None:
    """Trains as one of several machines, of which the chief alone writes; all end together.

    A machine that the others lose, or wait for in vain, ends all of them, so that the job can start them again.
    """
    strategy = gan.distribute_strategy
    watchdog = callbacks.Watchdog(config.worker_timeout_secs)
    exported = None
    try:
        agreement.check_same(strategy, config.fingerprint)
        if is_chief:
            exported = _fit_and_write(config, directory, environment, gan, data, [watchdog])
        else:
            _fit(config, gan, data, [watchdog, _checkpoint(config, directory, data, reads_only=True)], verbose=0)
        agreement.gathered(strategy, gan.step)  # nobody leaves while another one needs it
    except _LOST as error:
        callbacks.watchdog.end(f"another machine was lost at or after step {gan.step} ({type(error).__name__})")
    return exported


def _fit_and_write(
    config: TrainConfig,
    directory: RunDirectory,
    environment: Environment,
    gan: GAN,
    data: TrainingData,
    more: list[keras.callbacks.Callback],
) -> int | None:
    """Trains, writes the run directory, and exports; the step whose generator was exported."""
    with directory.explained():
        active = _callbacks(config, directory, environment, data)
        directory.create()
        _announce(config, gan, data)
        with directory.mirrored(environment.tensorboard_log_dir) as mirrors:
            write_atomically(directory.config, config.to_json().encode())
            checkpoint = _checkpoint(config, directory, data, mirrors)
            try:
                _fit(config, gan, data, [*more, *active, checkpoint, *more])
            except BaseException:
                with contextlib.suppress(TrainerError, OSError):
                    checkpoint.store.wait()  # what is being written is committed, before a folder of scratch goes
                raise
        if config.export_model and not _is_cut(config, gan):
            return _export(gan, directory, environment, checkpoint.store)
    return None


def _is_cut(config: TrainConfig, gan: GAN) -> bool:
    """Whether SIGTERM has left steps to take; one that comes after the last step leaves a run that is concluded."""
    return gan.preempted and gan.step < (config.steps or 0)


def _fit(
    config: TrainConfig,
    gan: GAN,
    data: TrainingData,
    active: list[keras.callbacks.Callback],
    verbose: str | int = "auto",
) -> None:
    gan.fit(
        data.x,
        data.y,
        batch_size=config.global_batch_size,
        steps=config.steps,
        steps_per_window=config.steps_per_window,
        balance_classes=config.balance_classes,
        horizontal_flips=config.horizontal_flips,
        callbacks=active,
        verbose=verbose,
    )


def _with_windows(config: TrainConfig, directory: RunDirectory) -> TrainConfig:
    """The config with the windows that its run was begun with, or, where it begins, that its memory allows."""
    if config.data_windows is not None:
        return config
    found = stored_config(directory)
    begun_with = None if found is None else found.data_windows
    return config.override(data_windows=begun_with or windows_of(config))


def _is_finished(config: TrainConfig, directory: RunDirectory, environment: Environment) -> bool:
    """Whether the directory's run has taken all its steps and left its model; refuses the directory of another run.

    Every machine of a job looks, and finds the same: none writes before all have met.
    """
    found = stored_config(directory)
    if found is None:
        return False
    wanted, there = config.identity, found.identity
    changed = [
        f"{name}={there[name]} where {name}={wanted[name]} is asked" for name in wanted if there[name] != wanted[name]
    ]
    if changed and not config.allow_config_change:
        kept = there["schedule_images"]
        is_moved = kept not in (None, wanted["schedule_images"])
        keeping = f" (--schedule_images={kept} keeps its schedules)" if is_moved else ""
        raise CheckpointError(
            f"job_dir={directory.name} holds a run with {', '.join(changed)}; give its settings{keeping}, another "
            "job_dir, or --allow_config_change to go on all the same."
        )
    manifest, _ = CheckpointStore(directory.checkpoints, remote=directory.remote_checkpoints).find()
    if manifest is None:
        return False
    if config.resume == "never":
        raise CheckpointError(
            f"job_dir={directory.name} holds a run at step {manifest.step} and resume=never; give another job_dir, "
            "or --resume=auto to go on."
        )
    if manifest.step < (config.steps or 0):
        return False
    if config.export_model and not _has_model(manifest.step, directory, environment):
        console.say(f"The run in {directory.name} stands at step {manifest.step}; its model is missing, and follows.")
        return False
    console.say(
        f"The run in {directory.name} is finished: it stands at step {manifest.step}. Nothing was changed; give more "
        f"than --steps={manifest.step} to go on."
    )
    return True


def _has_model(step: int, directory: RunDirectory, environment: Environment) -> bool:
    """Whether a model that was chosen when the run stood at this step is whole wherever it is to lie."""
    places = [locate(directory.model), *directory.copies_of_model(environment.model_dir)]
    return all(served.about(place).get(_CHOSEN_AT) == step for place in places)


def _callbacks(
    config: TrainConfig, directory: RunDirectory, environment: Environment, data: TrainingData
) -> list[keras.callbacks.Callback]:
    """What writes and tells, the checkpoint left out: what adds to the logs first."""
    active: list[keras.callbacks.Callback] = []
    if config.metrics != "none":
        active.append(callbacks.Evaluation(metrics.get(config.metrics)(*data.real_images), config.evaluate_every_steps))
    active += [
        callbacks.MetricsLog(directory.metrics),
        callbacks.EventLog(directory.logs),
        callbacks.SampleGrid(directory.samples, config.sample_every_steps, log_dir=directory.logs),
        callbacks.Animation(directory.samples),
    ]
    if environment.metric_file is not None:
        active.append(callbacks.TuningReport(environment.metric_file, environment.trial_id or "1"))
    return active


def _checkpoint(
    config: TrainConfig,
    directory: RunDirectory,
    data: TrainingData,
    mirrors: Sequence[Mirror] = (),
    *,
    reads_only: bool = False,
) -> callbacks.Checkpoint:
    """The callback that resumes and saves; it goes last."""
    return callbacks.Checkpoint(
        directory.checkpoints,
        config.checkpoint_every_steps,
        keep=config.keep_checkpoints,
        best=None if config.metrics == "none" else f"metric/{metrics.monitor(config.metrics)}",
        fingerprints={} if config.allow_config_change else {"config": config.fingerprint, **data.fingerprints},
        remote=directory.remote_checkpoints,
        mirrors=mirrors,
        reads_only=reads_only,
    )


def _announce(config: TrainConfig, gan: GAN, data: TrainingData) -> None:
    height, width, channels = data.info.image_shape
    weights = [
        f"{name} {network.count_params():,}" for name, network in gan.networks.items() if network.trainable_weights
    ]
    windows = f", {config.data_windows} windows an epoch" if (config.data_windows or 1) > 1 else ""
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    console.say(
        f"Training the recipe {config.recipe} on {data.info.num_examples:,} images of {config.dataset} "
        f"({height}x{width}x{channels}{windows}): {config.steps:,} steps of {config.global_batch_size} images on "
        f"{gan.distribute_strategy.num_replicas_in_sync} {kind} device(s); weights: {', '.join(weights)}. "
        f"Everything goes to {config.job_dir}."
    )


def _export(gan: GAN, directory: RunDirectory, environment: Environment, store: CheckpointStore) -> int:
    """Writes the generator of the best checkpoint, or as it stands where none was evaluated; its step."""
    manifest, problems = store.find_best()
    for problem in problems:
        console.say(f"Passed over a better checkpoint: {problem}.", severity="WARNING")
    step = gan.step if manifest is None else manifest.step
    if step != gan.step:
        load(store.folder(step), gan.state)
    served.save(gan, directory.model, {"step": step, _CHOSEN_AT: gan.step})
    for place in directory.copies_of_model(environment.model_dir):
        served.publish(directory.model, place)
    return step


def _conclude(config: TrainConfig, directory: RunDirectory, step: int, exported: int | None, seconds: float) -> None:
    console.say(f"Done: {step:,} steps; this command took {seconds:.0f} s.", fields={"seconds": seconds})
    if config.metrics != "none":
        name = f"metric/{metrics.monitor(config.metrics)}"
        _tell_best(name, [(line["step"], line[name]) for line in read_json_lines(directory.metrics) if name in line])
    last, shown = max(directory.samples.glob("step-*.png")), directory.shown
    console.say(
        f"Look at {shown(last)} and {shown(directory.samples / 'progression.gif')}; scalars are in "
        f"{shown(directory.metrics)}, TensorBoard's events in {shown(directory.logs)}, checkpoints in "
        f"{shown(directory.checkpoints)}."
    )
    if exported is not None:
        console.say(f"The generator of step {exported} is in {shown(directory.model)}, ready to be served.")
    named = f" --recipe={config.recipe}" if recipes.is_own(config.recipe) and is_remote(directory.name) else ""
    console.say(f"Make more with: python -m trainer generate --job_dir={directory.name}{named} --out=grid.png")


def _tell_best(name: str, series: list[tuple[int, float]]) -> None:
    """Says how a metric went; one that was asked for after the last step has no values."""
    if not series:
        return
    (started, first), (step, best) = series[0], min(series, key=lambda pair: pair[1])
    fell = f"{first / best:.1f} times less" if best < first else "it did not fall"
    console.say(f"{name[7:]} went from {first:.4g} at step {started} to {best:.4g} at step {step}: {fell}.")
