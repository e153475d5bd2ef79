"""The files of a checkpoint: all variables of a model by name, and the manifest."""

import dataclasses
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.errors import DIVERGENCE_ADVICE, CheckpointError, DivergenceError, quote
from trainer.storage import file_sha256
from trainer.training import divergence
from trainer.training.checkpoint.manifest import MANIFEST, CheckpointManifest, state_sha256

_PREFIX = "state"
AUGMENTER, EMA_PREFIX, OPTIMIZER_SUFFIX = "augmenter", "ema_", "_optimizer"
"""Name, beginning and end of names of parts of a model's state."""


def is_reserved(part: str) -> bool:
    """Returns whether a part of a model's state with this name is no network of its own: `ema_generator`, for one."""
    has_name = part in (AUGMENTER, divergence.STATE_NAME)
    return has_name or part.startswith(EMA_PREFIX) or part.endswith(OPTIMIZER_SUFFIX)


def snapshot(state: Mapping[str, keras.Variable]) -> dict[str, tf.Tensor]:
    """Returns the current values of variables, by name. Later updates do not change them."""
    return {name: _read(variable) for name, variable in state.items()}


def first_not_finite(values: Mapping[str, tf.Tensor]) -> str | None:
    """Returns the name of the first tensor with a value that is not finite, or None."""
    floats = {name: value for name, value in values.items() if value.dtype.is_floating}
    are_finite = tf.stack([tf.reduce_all(tf.math.is_finite(value)) for value in floats.values()] or [True]).numpy()
    return next((name for name, is_finite in zip(floats, are_finite, strict=False) if not is_finite), None)


def check_finite(values: Mapping[str, tf.Tensor], step: int) -> None:
    """Checks that a snapshot is finite.

    Raises:
        DivergenceError: If a value is not.
    """
    broken = first_not_finite(values)
    if broken is not None:
        raise DivergenceError(
            f"{broken} is not finite at step {step}; this checkpoint was not written, earlier ones remain: "
            f"{DIVERGENCE_ADVICE}."
        )


def write(folder: Path, values: Mapping[str, tf.Tensor], manifest: CheckpointManifest) -> None:
    """Writes tensors to an empty folder, and a manifest with the hashes of their files. All files are on the disk then.

    Raises:
        OSError, tf.errors.OpError: If a file cannot be written.
    """
    with tf.device("CPU:0"):
        tf.raw_ops.SaveV2(
            prefix=str(folder / _PREFIX),
            tensor_names=list(values),
            shape_and_slices=[""] * len(values),
            tensors=list(values.values()),
        )
    paths = sorted(folder.iterdir())
    manifest = dataclasses.replace(
        manifest,
        files={path.name: {"num_bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in paths},
        state_sha256=state_sha256({name: value.numpy() for name, value in values.items()}),
    )
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    for path in (*paths, folder / MANIFEST, folder):
        sync(path)


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(folder: Path, state: Mapping[str, keras.Variable], *, unchanged: Collection[str] = ()) -> None:
    """Assigns the tensors of a verified checkpoint to `state`.

    Parts of the checkpoint that the state does not have, such as an EMA, are ignored. Checkpoints of earlier versions
    have no record of skipped steps; then it begins with zeros.

    Args:
        folder: Folder of the checkpoint.
        state: Variables by name. A name begins with the name of its part: a network or an optimizer.
        unchanged: Names of variables that keep their values.

    Raises:
        CheckpointError: If a name, type or shape differs; the message names the first one.
    """
    reader = open_checkpoint(folder)
    types = reader.get_variable_to_dtype_map()
    stored = {name: (tuple(shape), types[name].name) for name, shape in reader.get_variable_to_shape_map().items()}
    expected = {name: (tuple(value.shape), tf.as_dtype(value.dtype).name) for name, value in state.items()}
    parts = {_part(name) for name in state}
    added = {name for name in state if _part(name) == divergence.STATE_NAME and name not in stored}
    for name in [*state, *sorted(name for name in stored if _part(name) in parts)]:
        if name not in added and stored.get(name) != expected.get(name):
            raise CheckpointError(
                f"{folder.name} has {stored.get(name, 'nothing')} for {name}, but this model has "
                f"{expected.get(name, 'nothing')}: {_describe(_part(name))} differs from that of the run; "
                "use the same one, or another job_dir."
            )
    for name, variable in state.items():
        if name not in unchanged:
            variable.assign(np.zeros(variable.shape, variable.dtype) if name in added else reader.get_tensor(name))


def last_applied_step(folder: Path, step: int) -> int:
    """Returns the last step before the consecutive skipped steps that end at `step`, by a verified checkpoint of it."""
    reader = open_checkpoint(folder)
    if not reader.has_tensor(divergence.SKIPS):
        return step
    return divergence.last_applied_step(reader.get_tensor(divergence.SKIPS), step)


def open_checkpoint(folder: Path) -> Any:
    """Returns TensorFlow's reader of the tensors of a verified checkpoint, by the names of the state."""
    return tf.train.load_checkpoint(str(folder / _PREFIX))


def check_same_optimizers(manifest: CheckpointManifest, settings: Mapping[str, str | float]) -> None:
    """Rejects optimizers of another kind than those of a checkpoint, whose variables have another meaning."""
    for name, value in settings.items():
        stored = manifest.settings.get(name, value)
        if isinstance(value, str) and stored != value:
            raise CheckpointError(
                f"the checkpoint of step {manifest.step} was written with {quote(stored)} as {_describe(name)}, not "
                f"{quote(value)}; use the same one, or another job_dir."
            )


def _part(name: str) -> str:
    """Returns the name of the part of a model that a variable belongs to."""
    return name.partition("/")[0]


def _describe(part: str) -> str:
    """Returns the name of a part of a model for messages."""
    if part.endswith(OPTIMIZER_SUFFIX):
        return f"the optimizer of the {part.removesuffix(OPTIMIZER_SUFFIX)}"
    if part.startswith(EMA_PREFIX):
        return f"the EMA of the {part.removeprefix(EMA_PREFIX)}"
    return f"the {part}"


def _read(variable: keras.Variable) -> tf.Tensor:
    value = variable.value
    if hasattr(value, "values"):  # a mirrored variable, equal on all replicas
        value = value.values[0]
    return value.read_value()
