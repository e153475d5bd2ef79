"""Sentences about a run, for its log: what it trains, and how its metric changed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from trainer import __version__
from trainer.config import TrainConfig
from trainer.data.datasets import DatasetInfo
from trainer.errors import count_of
from trainer.metrics.log_names import own_name
from trainer.storage.run_directory import read_metrics
from trainer.training.processors import gpu_memory_gib

_MAX_CLASS_NAMES = 1000

_MAX_COLUMN = 40
"""Largest width of the column with settings and values. Longer ones move their reason to the right."""


def describe_start(
    config: TrainConfig, info: DatasetInfo, networks: Mapping[str, keras.layers.Layer], num_replicas: int
) -> str:
    """Returns a description of what a run trains.

    Args:
        config: Resolved config.
        info: Description of the dataset.
        networks: All networks, by name.
        num_replicas: Number of replicas on all machines.
    """
    height, width, channels = info.image_shape
    weights = ", ".join(f"{name} {count:,}" for name, count in _num_weights(networks).items())
    inputs = f", inputs of {count_of(info.input_channels, 'channel')}" if info.input_channels else ""
    chunks = f", {count_of(config.num_chunks or 1, 'chunk')} per epoch" if (config.num_chunks or 1) > 1 else ""
    devices = count_of(num_replicas, f"{_device_kind()} device")
    return (
        f"Training the recipe {config.recipe} on {count_of(info.num_examples, 'image')} of {config.dataset} "
        f"({height}x{width}x{channels}{inputs}{chunks}): {count_of(config.steps or 0, 'step')} of "
        f"{config.global_batch_size} images on {devices} in {config.precision}; weights: {weights}. Results go to "
        f"{config.job_dir}."
    )


def describe_saved(step: int, saved_step: int, folder: str) -> str:
    """Returns a part of a sentence: what was saved of a run that SIGTERM has stopped.

    Args:
        step: Step at which it stopped.
        saved_step: Step of the newest checkpoint, an earlier one if the state is not finite; -1 if there is none.
        folder: Folder of the checkpoints.
    """
    if saved_step == step:
        return f"the state is committed in {folder}"
    newest = (
        "there is no checkpoint" if saved_step < 0 else f"the newest checkpoint in {folder} is of step {saved_step}"
    )
    return f"its state is not finite, and {newest}"


def describe_choices(values: Mapping[str, Any], reasons: Mapping[str, str]) -> str:
    """Returns a table of the settings that a recipe chose: one line per setting, with its value and the reason.

    Args:
        values: Values by setting.
        reasons: Reasons by setting.
    """
    texts = {name: f"{name}={_value_text(value)}" for name, value in values.items()}
    width = max((len(text) for text in texts.values() if len(text) <= _MAX_COLUMN), default=0)
    return "\n".join(f"  {text:{width}}  {reasons[name]}" for name, text in texts.items())


def _value_text(value: Any) -> str:
    """Returns a value as a flag takes it."""
    if value is None:
        return "none"
    return json.dumps(value) if isinstance(value, bool | Mapping) else str(value)


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


def facts(info: DatasetInfo, networks: Mapping[str, keras.layers.Layer], num_replicas: int) -> dict[str, Any]:
    """Returns what a run trains as JSON values. The arguments are those of `describe_start`."""
    return {
        "version": __version__,
        "num_images": info.num_examples,
        "class_names": None if info.condition_names else list(info.class_names[:_MAX_CLASS_NAMES]),
        "image_shape": list(info.image_shape),
        "num_devices": num_replicas,
        "device": _device_kind(),
        "device_memory_gib": gpu_memory_gib() if _device_kind() == "GPU" else None,
        "weights": _num_weights(networks),
    }


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
    name, start = own_name(metric), f"{first[metric]:.4g} at step {first['step']}"
    if best is first:
        return f"{name} has not fallen below its first value, {start}."
    return f"{name} fell from {start} to {best[metric]:.4g} at step {best['step']}."


def _num_weights(networks: Mapping[str, keras.layers.Layer]) -> dict[str, int]:
    """Returns the number of weights of each trained network by name."""
    return {name: network.count_params() for name, network in networks.items() if network.trainable_weights}


def _device_kind() -> str:
    return "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
