"""Weights of a run with which another one begins."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from trainer import metrics
from trainer.config import TrainConfig
from trainer.config.source_run import BEST, SourceRun
from trainer.data import describe
from trainer.data.datasets import DatasetInfo
from trainer.errors import CheckpointError, ConfigError, TrainerError, quote
from trainer.storage import RunDirectory, locate, state_absence
from trainer.storage.run_directory import CONFIG
from trainer.training.checkpoint.committed import CommittedCheckpoints
from trainer.training.checkpoint.manifest import CheckpointManifest
from trainer.training.checkpoint.state_file import EMA_PREFIX, is_reserved, open_checkpoint
from trainer.training.stored_run import StoredRun, select, stored_run

FINGERPRINT = "init_from"
"""Name of the fingerprint of the weights with which a run began."""
_SAME_MEANING = ("model", "architecture", "image_range", "latent_distribution")
"""Settings on which the meaning of weights depends, also if their shapes do not."""
_SAME_SHAPES = ("latent_dim", "architecture_options", "model_options")
"""Settings that often explain other shapes."""
GENERAL_ADVICE = (
    "both runs need the same networks, for images of the same size and channels and for the same number of classes; "
    "choose another run, or omit init_from"
)
"""End of a sentence about shapes that differ, if the reason is not known."""


@dataclass(frozen=True)
class InitialWeights:
    """Weights of a verified checkpoint.

    Attributes:
        source: Run and step, in the form `RUN@STEP`.
        sha256: SHA-256 of all state of the checkpoint, in hexadecimal, as its manifest states it.
        config: Config of the run; None if the folder has only checkpoints.
        networks: Weights by network, and by their names in the order of the network. If a network has an EMA, they are
            those of the EMA. State of the data that the run has seen, such as an adapted probability, is left out.
        image_range: Range (low, high) of the images; None if an earlier version of the package wrote the checkpoint.
    """

    source: str
    sha256: str
    config: TrainConfig | None
    networks: Mapping[str, Mapping[str, np.ndarray]]
    image_range: tuple[float, float] | None


def read(source: str | os.PathLike[str]) -> InitialWeights:
    """Reads the weights of a checkpoint, after a check against its manifest. No code of the run is imported.

    Args:
        source: `RUN`, `RUN@STEP`, or `RUN@latest`, as in the setting `init_from`. RUN is a run directory, or a folder
            that `trainer.callbacks.Checkpoint` has written, whose newest checkpoint is its best one.

    Raises:
        CheckpointError: If there is no such run or checkpoint, or it is damaged.
        ConfigError: If the path is neither local nor in a bucket, or the best checkpoint is meant and unknown.
        StorageError: If the bucket cannot be read, or has unsafe names.
    """
    run = SourceRun.parse(source)
    with RunDirectory(run.path).open(only={CONFIG}) as directory:
        stored = stored_run(directory)
        if stored is not None:
            store = stored.checkpoints(directory, with_best=_needs_best(run, stored.config))
        else:
            remote = None if directory.remote_checkpoints is None else locate(run.path)
            store = CommittedCheckpoints(directory.root, remote=remote)
            if not store.steps():
                raise _no_run(run)
        manifest = select(store, run.checkpoint, f"init_from={run}")
        networks = _read_networks(store, manifest.step)
    verified = replace(run, checkpoint=str(manifest.step))
    config = None if stored is None else stored.config
    return InitialWeights(str(verified), manifest.state_sha256, config, networks, manifest.image_range)


def with_stored_source(config: TrainConfig, stored: TrainConfig | None) -> TrainConfig:
    """Returns a config with the checkpoint that its run began with, if the config names the same run or none.

    The best or the latest checkpoint of the other run may have changed since.

    Args:
        config: Config with which the run resumes.
        stored: Stored config of the run. None: a new run.
    """
    if stored is None or stored.init_from is None:
        return config
    is_same = config.init_from is None or SourceRun.parse(config.init_from).may_be(SourceRun.parse(stored.init_from))
    return config.override(init_from=stored.init_from) if is_same else config


def with_initial_weights(
    config: TrainConfig, stored: StoredRun | None = None, manifest: CheckpointManifest | None = None
) -> tuple[TrainConfig, InitialWeights | None]:
    """Reads the weights of the other run with which a new run begins.

    Args:
        config: Resolved config.
        stored: Stored config and history of the run. None: a new run, or one that is only planned.
        manifest: Manifest that `check_resumable` returned. If the run has a checkpoint, nothing is read.

    Returns:
        The config, in which `init_from` has the step of the checkpoint, and the weights; None if the run has a
        checkpoint or begins with random weights.

    Raises:
        CheckpointError: If the other run has no such checkpoint, or another one than when the run was started.
        ConfigError: If the other run has another kind of networks.
        StorageError: If the other run cannot be read.
    """
    if manifest is not None or config.init_from is None:
        return config, None
    weights = read(config.init_from)
    _check_same_kind(weights, config)
    if stored is not None and not config.allow_config_change:
        recorded = stored.history.after(0).get(FINGERPRINT, weights.sha256)
        if recorded != weights.sha256:
            raise CheckpointError(
                f"init_from={weights.source} has other weights than when the run in job_dir={config.job_dir} was "
                f"started: their SHA-256 was {quote(recorded)} and is {weights.sha256}; restore them, use another "
                "job_dir, or pass --allow_config_change."
            )
    return config.override(init_from=weights.source), weights


def source_fingerprint(weights: InitialWeights | None, manifest: CheckpointManifest | None) -> dict[str, str]:
    """Returns the fingerprint of the weights that a run began with, by its name; empty if they were random.

    Args:
        weights: Weights that were just read; None for a run that has a checkpoint.
        manifest: Manifest of that checkpoint.
    """
    if weights is not None:
        return {FINGERPRINT: weights.sha256}
    stored = {} if manifest is None else manifest.fingerprints
    return {name: value for name, value in stored.items() if name == FINGERPRINT}


def explain_shapes(weights: InitialWeights, config: TrainConfig, info: DatasetInfo, *, has_labels: bool) -> str:
    """Returns the end of a sentence: why shapes may differ from those of the source, and what to do.

    Args:
        weights: Weights that do not fit.
        config: Config of the new run.
        info: Description of its dataset.
        has_labels: Whether the networks take labels.
    """
    source = weights.config
    if source is None:
        return GENERAL_ADVICE
    try:
        original = describe(source.dataset, source.padding)
    except TrainerError:  # the dataset may be on another machine; the weights are enough to begin with
        original = info
    if original.image_shape != info.image_shape:
        sizes = ["×".join(map(str, shape)) for shape in (original.image_shape, info.image_shape)]
        return (
            f"that run has images of {sizes[0]}, and {config.dataset} has images of {sizes[1]}; prepare the data in "
            "the size and channels of that run, or omit init_from"
        )
    if has_labels and original.num_classes != info.num_classes:
        return (
            f"that run has {original.num_classes} classes, and {config.dataset} has {info.num_classes}; choose data "
            "with the same number of classes, train both runs without labels, or omit init_from"
        )
    for name in _SAME_SHAPES:
        expected, received = getattr(source, name), getattr(config, name)
        if expected != received:
            return (
                f"that run has {name}={quote(expected)}, not {name}={quote(received)}; set the same {name}, or omit "
                "init_from"
            )
    return GENERAL_ADVICE


def _check_same_kind(weights: InitialWeights, config: TrainConfig) -> None:
    """Checks that the networks of a run have the same meaning as those of the run that begins with their weights.

    Raises:
        ConfigError: If a setting differs that gives the weights their meaning.
    """
    for name in _SAME_MEANING if weights.config is not None else ():
        expected, received = getattr(weights.config, name), getattr(config, name)
        if expected != received:
            raise ConfigError(
                f"init_from={weights.source} is a run with {name}={quote(expected)}, not {name}={quote(received)}; set "
                f"the same {name}, choose another run, or omit init_from."
            )


def _needs_best(run: SourceRun, config: TrainConfig) -> bool:
    """Returns whether a source means the best checkpoint of its run.

    Raises:
        ConfigError: If it does, and the metric suite of the run is unknown.
    """
    if run.checkpoint != BEST:
        return False
    if config.has_metrics and config.suite not in metrics.names():
        raise ConfigError(
            f"init_from={run} has metrics={quote(config.suite)}, which no imported module registers, so its best "
            "checkpoint is unknown; name a step, or latest, after an @."
        )
    return True


def _read_networks(store: CommittedCheckpoints, step: int) -> dict[str, dict[str, np.ndarray]]:
    """Returns the weights of a verified checkpoint as `InitialWeights` has them."""
    reader = open_checkpoint(store.folder(step))
    names: dict[str, list[str]] = {}
    for name in sorted(reader.get_variable_to_shape_map()):
        names.setdefault(name.partition("/")[0], []).append(name)
    networks = {}
    for part in names:
        if is_reserved(part):
            continue
        best = EMA_PREFIX + part if EMA_PREFIX + part in names else part
        networks[part] = {name.partition("/")[2]: np.asarray(reader.get_tensor(name)) for name in names[best]}
    return networks


def _no_run(run: SourceRun) -> CheckpointError:
    hint = "; write RUN@STEP, RUN@latest or RUN@best" if "@" in run.path else ""
    absence = state_absence(locate(run.path), f"has no run (it has neither {CONFIG} nor checkpoints)")
    return CheckpointError(f"init_from={run.path} {absence}; pass the directory of a run{hint}.")
