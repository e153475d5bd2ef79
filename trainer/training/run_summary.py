"""Sentences about a run, for its log: what it trains, and how its metric changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from trainer.config import TrainConfig
from trainer.data.datasets import DatasetInfo
from trainer.errors import count_of
from trainer.storage.run_directory import read_metrics


def describe_start(
    config: TrainConfig, info: DatasetInfo, networks: Mapping[str, keras.layers.Layer], num_replicas: int
) -> str:
    """Returns a description of what a run trains.

    Args:
        config: Resolved config.
        info: Description of the data set.
        networks: All networks, by name.
        num_replicas: Number of replicas on all machines.
    """
    height, width, channels = info.image_shape
    trained = {name: network for name, network in networks.items() if network.trainable_weights}
    weights = ", ".join(f"{name} {network.count_params():,}" for name, network in trained.items())
    chunks = f", {count_of(config.num_chunks or 1, 'chunk')} per epoch" if (config.num_chunks or 1) > 1 else ""
    device = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return (
        f"Training the recipe {config.recipe} on {count_of(info.num_examples, 'image')} of {config.dataset} "
        f"({height}x{width}x{channels}{chunks}): {count_of(config.steps or 0, 'step')} of {config.global_batch_size} "
        f"images on {count_of(num_replicas, f'{device} device')}; weights: {weights}. Results go to {config.job_dir}."
    )


def describe_transfer(config: TrainConfig, frozen: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns descriptions of the weights that a run began with, and of those that it does not train.

    Args:
        config: Resolved config.
        frozen: Names of the frozen layers, by network.
    """
    sentences = []
    if config.init_from is not None:
        sentences.append(
            f"The weights began as those of {config.init_from}: the generator and its EMA as the EMA of that generator "
            "if it has one. Optimizers and schedules began anew."
        )
    for name, layers in frozen.items():
        sentences.append(f"Frozen layers of the {name}, counted from the image: {', '.join(layers)}.")
    return sentences


def describe_change(path: Path, metric: str) -> str:
    """Returns a description of how a metric changed during a run; empty without values.

    Args:
        path: Path of `metrics.jsonl`.
        metric: Name of the metric in its lines. Smaller is better.
    """
    try:
        lines, _ = read_metrics(path)
    except OSError:
        return ""  # the callback that writes the file has logged it
    lines = [line for line in lines if isinstance(line.get(metric), int | float)]
    if not lines:
        return ""
    first, best = lines[0], min(lines, key=lambda line: line[metric])
    change = "not lower"
    if 0 < best[metric] < first[metric]:
        change = f"{first[metric] / best[metric]:.3g} times lower"
    return (
        f"{metric.removeprefix('metric/')} went from {first[metric]:.4g} at step {first['step']} to {best[metric]:.4g} "
        f"at step {best['step']}: {change}."
    )
