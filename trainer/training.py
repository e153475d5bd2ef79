"""One run from a config: data, networks, callbacks, and what the user is told."""

import json
import time
from pathlib import Path

import keras
import tensorflow as tf

from trainer import architectures, augment, callbacks, console, data, losses, metrics, penalties
from trainer.config import TrainConfig, check_batch
from trainer.data.loading import Arrays, load_for
from trainer.engine import strategy as strategies
from trainer.engine.checkpoint import CheckpointStore
from trainer.errors import CheckpointError, ConfigError, Preempted
from trainer.gans import GAN, from_config
from trainer.storage import RunDirectory, read_json_lines, write_atomically


def resolve(config: TrainConfig) -> TrainConfig:
    """Checks all of a config that can be checked without touching data or devices, and fills in what was left open.

    Raises:
        ConfigError: A name is unknown or a value does not fit.
    """
    losses.check_name(config.loss)
    architectures.check_name(config.architecture)
    for name in config.penalties:
        penalties.check_name(name)
    if config.augment is not None:
        augment.check_name(config.augment)
    if (config.wiring == "cyclegan") != (config.dataset_b is not None):
        raise ConfigError(
            f"wiring={config.wiring} with dataset_b={config.dataset_b}: a second data set belongs to wiring=cyclegan, "
            "and to no other."
        )
    return config.resolve(data.num_examples(config), config.num_virtual_devices)


def train(config: TrainConfig) -> None:
    """Trains a resolved config in its run directory, from where it stands.

    Raises:
        ConfigError: The strategy, the architecture or the batch does not fit.
        DataError: The data cannot be read.
        CheckpointError: The run directory cannot be written, or holds another run.
        DivergenceError: A loss or a weight is not finite.
        Preempted: SIGTERM came; the state is committed.
    """
    started = time.monotonic()
    directory = RunDirectory(str(config.job_dir))
    if _is_finished(config, directory):
        return
    strategy = strategies.create(config)
    arrays, others = load_for(config)
    targets = arrays.labels if others is None else others.images
    smaller = min(len(loaded.images) for loaded in (arrays, others) if loaded is not None)
    check_batch(config.global_batch_size, smaller, strategy.num_replicas_in_sync)
    with strategy.scope():
        gan = from_config(config, arrays.info.image_shape, arrays.info.num_classes, strategy)
    directory.create()
    write_atomically(directory.config, config.to_json().encode())
    _announce(config, gan, arrays, strategy)
    gan.fit(
        arrays.images,
        targets,
        batch_size=config.global_batch_size,
        steps=config.steps,
        steps_per_window=config.steps_per_window,
        callbacks=_callbacks(config, directory, arrays, others),
    )
    if gan.preempted and gan.step < (config.steps or 0):
        raise Preempted(
            f"stopped by SIGTERM at step {gan.step} of {config.steps}; the state is committed in "
            f"{directory.checkpoints}, and the same command goes on from there."
        )
    _conclude(config, directory, time.monotonic() - started)


def _is_finished(config: TrainConfig, directory: RunDirectory) -> bool:
    """Whether the directory's run has taken all its steps; refuses the directory of another run."""
    if not directory.config.exists():
        return False
    found = TrainConfig.from_dict(json.loads(directory.config.read_bytes()))
    wanted, there = config.identity, found.identity
    changed = [
        f"{name}={there[name]} where {name}={wanted[name]} is asked" for name in wanted if there[name] != wanted[name]
    ]
    if changed and not config.allow_config_change:
        raise CheckpointError(
            f"job_dir={directory.root} holds a run with {', '.join(changed)}; give its settings, another job_dir, or "
            "--allow_config_change to go on all the same."
        )
    manifest, _ = CheckpointStore(directory.checkpoints).find()
    if manifest is None:
        return False
    if config.resume == "never":
        raise CheckpointError(
            f"job_dir={directory.root} holds a run at step {manifest.step} and resume=never; give another job_dir, "
            "or --resume=auto to go on."
        )
    if manifest.step < (config.steps or 0):
        return False
    console.say(
        f"The run in {directory.root} is finished: it stands at step {manifest.step}. Nothing was changed; give more "
        f"than --steps={manifest.step} to go on."
    )
    return True


def _callbacks(
    config: TrainConfig, directory: RunDirectory, arrays: Arrays, others: Arrays | None
) -> list[keras.callbacks.Callback]:
    """The run's callbacks: what adds to the logs first, the checkpoint last."""
    active: list[keras.callbacks.Callback] = []
    best = None
    if config.metrics != "none":
        best = f"metric/{metrics.monitor(config.metrics)}"
        active.append(callbacks.Evaluation(suite_of(config, arrays, others), config.evaluate_every_steps))
    fingerprints = {}
    if not config.allow_config_change:
        fingerprints = {"config": config.fingerprint, "data": arrays.fingerprint}
        if others is not None:
            fingerprints["data_b"] = others.fingerprint
    return [
        *active,
        callbacks.MetricsLog(directory.metrics),
        callbacks.EventLog(directory.logs),
        callbacks.SampleGrid(directory.samples, config.sample_every_steps, log_dir=directory.logs),
        callbacks.Animation(directory.samples),
        callbacks.Checkpoint(
            directory.checkpoints,
            config.checkpoint_every_steps,
            keep=config.keep_checkpoints,
            best=best,
            fingerprints=fingerprints,
        ),
    ]


def suite_of(config: TrainConfig, arrays: Arrays, others: Arrays | None) -> callbacks.evaluation.Metrics:
    """The metrics of a config, on its data."""
    suite = metrics.get(config.metrics)
    return suite(arrays.images) if others is None else suite(arrays.images, others.images)


def _announce(config: TrainConfig, gan: GAN, arrays: Arrays, strategy: tf.distribute.Strategy) -> None:
    height, width, channels = arrays.info.image_shape
    weights = [
        f"{name} {network.count_params():,}" for name, network in gan.networks.items() if network.trainable_weights
    ]
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    console.say(
        f"Training the recipe {config.recipe} on {len(arrays.images):,} images of {config.dataset} "
        f"({height}x{width}x{channels}): {config.steps:,} steps of {config.global_batch_size} images on "
        f"{strategy.num_replicas_in_sync} {kind} device(s); weights: {', '.join(weights)}. "
        f"Everything goes to {config.job_dir}."
    )


def _conclude(config: TrainConfig, directory: RunDirectory, seconds: float) -> None:
    console.say(f"Done: {config.steps:,} steps; this command took {seconds:.0f} s.", fields={"seconds": seconds})
    if config.metrics != "none":
        name = f"metric/{metrics.monitor(config.metrics)}"
        series = [(line["step"], line[name]) for line in read_json_lines(directory.metrics) if name in line]
        first, (step, best) = series[0][1], min(series, key=lambda pair: pair[1])
        fell = f"{first / best:.1f} times less" if best < first else "it did not fall"
        console.say(f"{name[7:]} went from {first:.4g} at step {series[0][0]} to {best:.4g} at step {step}: {fell}.")
    last = max(Path(directory.samples).glob("step-*.png"))
    console.say(
        f"Look at {last} and {directory.samples / 'progression.gif'}; scalars are in {directory.metrics}, "
        f"TensorBoard's events in {directory.logs}, checkpoints in {directory.checkpoints}."
    )
    console.say(f"Make more with: python -m trainer generate --job_dir={directory.root} --out=grid.png")
