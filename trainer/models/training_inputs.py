"""From the arguments of `GAN.fit` to a loader of chunks, checked against the batch and the networks."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from trainer.config import check_batch, check_micro_batches
from trainer.config.fields import check_number
from trainer.data.pipeline.balance import balanced_order
from trainer.data.pipeline.batching import Chunk
from trainer.data.pipeline.loaders import InMemoryLoader, Loader, StreamedDataset, StreamingLoader
from trainer.errors import ConfigError, DataError
from trainer.metrics.extraction import spans_machines
from trainer.models.arrays import as_array, as_classes
from trainer.models.compiled_state import CompiledState
from trainer.models.in_memory import read_pair
from trainer.models.inference import SamplingModel
from trainer.models.validation import Shape, check_reaches, names_with_role
from trainer.training.distributed.host_shard import HostShard

_DEFAULT_BATCH_SIZE = 32
_MAX_EPOCHS = 1e9
_MAX_LABEL_RANK = 2
"""Dimensions of one-hot labels. Images have more."""


def make_loader(gan: SamplingModel, x: Any, y: Any, batch_size: int | None, balance_classes: bool) -> Loader:
    """Returns the loader of the training data of a compiled `GAN`.

    Args:
        gan: The compiled GAN.
        x: First argument of `GAN.fit`.
        y: Second argument of `GAN.fit`.
        batch_size: Global batch size; None for that of the batches of `x`, or 32 without batches.
        balance_classes: Whether to show every class equally often.

    Raises:
        ConfigError: If the batch is larger than the data, the replicas do not divide it, or the scope of another
            strategy is active.
        DataError: If `x` and `y` do not fit each other or the GAN.
        NetworkError: If the networks do not fit the data.
    """
    _check_scope(gan.compiled_state.strategy)
    _check_targets(gan, x, y, balance_classes)
    if isinstance(x, StreamedDataset):
        batch_size = batch_size or _DEFAULT_BATCH_SIZE
        _check_batch_size(gan, batch_size, x.num_examples)
        _check_images(gan, x.image_shape, gan.image_range)
        host_shard = _host_shard(gan.compiled_state, batch_size)
        return StreamingLoader(x, gan.make_chunk, batch_size, balance_classes, host_shard)
    has_targets = y is not None
    x, y, own_batch_size = read_pair(x, y, _image_rank(gan))
    if has_targets and not balance_classes:
        _check_no_labels(gan, y)
    chunk = gan.make_chunk(x, y)
    if balance_classes:
        chunk = _balance(gan, chunk, y)
    _check_rank(gan, chunk.images.shape)
    batch_size = batch_size or own_batch_size or _DEFAULT_BATCH_SIZE
    _check_batch_size(gan, batch_size, chunk.max_batch_size)
    _check_images(gan, chunk.images.shape[1:], chunk.image_range)
    set_image_range(gan, chunk.image_range)
    return InMemoryLoader(chunk, batch_size)


def count_steps(epochs: Any, steps: Any, steps_per_epoch: int) -> int:
    """Returns the total number of steps for the arguments of `GAN.fit`; a part of an epoch has at least one step.

    Raises:
        ConfigError: If `steps` is not a whole number from 0 up, or, without it, `epochs` not a number from 0 up; or if
            Keras limits all calls of `fit`.
    """
    for name in ("max_epochs", "max_steps_per_epoch"):
        if (limit := getattr(keras.config, name)()) is not None:
            raise ConfigError(
                f"keras.config.{name}() is {limit}, which fit of a GAN does not use; pass epochs or steps to fit, call "
                f"keras.config.set_{name}(None), and unset KERAS_{name.upper()}."
            )
    if steps is not None:
        check_number("steps", steps, whole=True)
        return int(steps)
    check_number("epochs", epochs, maximum=_MAX_EPOCHS)
    return max(1, round(epochs * steps_per_epoch)) if epochs else 0


def _check_scope(strategy: tf.distribute.Strategy) -> None:
    """Rejects the scope of another strategy than that of the GAN, because TensorFlow does not nest scopes."""
    current = tf.distribute.get_strategy()
    if tf.distribute.has_strategy() and current is not strategy:
        raise ConfigError(
            f"fit is called in the scope of a {type(current).__name__}, but the GAN was compiled with a "
            f"{type(strategy).__name__}; call fit outside of the scope, or compile the GAN in it."
        )


def _check_batch_size(gan: SamplingModel, batch_size: int, num_examples: int) -> None:
    """Rejects a batch that the replicas cannot divide, or that is larger than the data."""
    num_replicas = gan.compiled_state.strategy.num_replicas_in_sync
    check_batch(batch_size, num_examples, num_replicas, "batch_size")
    check_micro_batches(batch_size, gan.compiled_state.accumulate_steps, num_replicas, "batch_size")


def _check_targets(gan: SamplingModel, x: Any, y: Any, balance_classes: bool) -> None:
    """Rejects a second argument of `GAN.fit` that would have no effect."""
    if y is None:
        return
    if isinstance(x, StreamedDataset):
        raise DataError("y has no effect with a StreamedDataset, which has its own labels; pass y=None.")
    if not (gan.takes_targets or balance_classes):
        raise DataError(
            f"y has no effect, because {type(gan).__name__} learns without labels; omit y, or use ConditionalGAN."
        )


def _check_no_labels(gan: SamplingModel, y: Any) -> None:
    """Rejects labels for a GAN that takes only images as `y`."""
    if gan.ignores_labels and as_array(y, "y").ndim <= _MAX_LABEL_RANK:
        raise DataError(
            f"labels as y have no effect, because {type(gan).__name__} learns without them; pass images as y, or omit "
            "it if x has pairs."
        )


def _image_rank(gan: SamplingModel) -> int | None:
    """Number of dimensions of an image that the networks make; None if it is not known."""
    shape = _image_shape(gan)
    return None if shape is None else len(shape)


def _image_shape(gan: SamplingModel) -> Shape | None:
    """Shape of an image that the networks make; None if it is not known."""
    names = names_with_role("generator", gan.optimizer_groups["generator"])
    tensors = getattr(gan.networks[names[0]], "outputs", None) if names else None
    return tuple(tensors[0].shape[1:]) if tensors else None


def _check_rank(gan: SamplingModel, shape: tuple[int, ...]) -> None:
    """Rejects one image in place of several ones, and an axis too many. The shape is that of all images."""
    expected = _image_shape(gan)
    if expected is None:
        return
    advice = f"pass an array of shape {('N', *expected)}".replace("'", "")
    if shape == expected:
        raise DataError(f"x is one image of shape {shape}; {advice}.")
    if len(shape) > len(expected) + 1 and shape[-len(expected) :] == expected:
        raise DataError(f"x has the shape {shape}, which has too many axes for images of shape {expected}; {advice}.")


def set_image_range(gan: SamplingModel, image_range: tuple[float, float]) -> None:
    """Sets the range of the images, which stays the same during training.

    Raises:
        DataError: If the model has been trained on images in another range.
    """
    if gan.is_trained and gan.is_range_known and image_range != gan.image_range:
        raise DataError(
            f"x is used in the range {image_range[0]:g}..{image_range[1]:g}, but the model has been trained on "
            f"images in {gan.image_range[0]:g}..{gan.image_range[1]:g}; scale x to that range, or set "
            "image_range of the model to it if x is 8-bit."
        )
    gan.image_range, gan.is_range_known = image_range, True


def _host_shard(state: CompiledState, batch_size: int) -> Any:
    """The part of a chunk that this process loads, by the number of steps of a chunk; None to load all of it."""
    if not spans_machines(state.strategy):
        return None
    return lambda num_steps: HostShard(state.strategy, num_steps, batch_size, state.seed, state.discriminator_repeats)


def _balance(gan: SamplingModel, chunk: Chunk, y: Any) -> Chunk:
    if y is None or chunk.is_unpaired:
        raise DataError(f"balance_classes=True needs labels, and {type(gan).__name__}.fit got none; pass labels as y.")
    return dataclasses.replace(chunk, order=balanced_order(as_classes(y, len(chunk.images))))


def _check_images(gan: SamplingModel, shape: tuple[int, ...], image_range: tuple[float, float]) -> None:
    """Rejects images whose shape or range the networks do not take or make."""
    gan.check_image_shape(shape)
    for name in names_with_role("generator", gan.optimizer_groups["generator"]):
        check_reaches(gan.networks[name], image_range)
