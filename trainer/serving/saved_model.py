"""A generator as a `tf.Module` with the signatures that are served; see `trainer.cli.export` for them.

Legend: `N` instances of a request, `M` images of one of them, `Z` latent size, `K` classes, `H W C` an image.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf

from trainer.models import GAN, CycleGAN
from trainer.models.sampler import as_bytes
from trainer.storage import Location, locate
from trainer.training.rng import StepRng

SAVED_MODEL = "saved_model.pb"
"""The file that makes a folder a model: where it is, all of the model is."""
_ABOUT = "assets.extra/run.json"
"""What `about` reads, in the folder that SavedModels have for files of others."""
EXPORTED_AT = "exported_at_step"
"""Key of the note in `about`: the step of the run at the export. The step of the best checkpoint may be earlier."""
MOST_IMAGES = 64
"""Of one instance of `sample`."""
_GAP, _GRAY = 2, 48


class _Served(tf.Module):
    """Holds a GAN, but not as an attribute: all state of those would be saved."""

    def __init__(self, gan: GAN):
        super().__init__()
        self._held = lambda: gan

    @property
    def _gan(self) -> Any:
        return self._held()


class _Generator(_Served):
    """What a GAN samples with."""

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """The functions that are served, by name."""
        latents = tf.TensorSpec([None, self._gan.latent_size], tf.float32, "latents")
        of_each = {"seed": tf.int64, "number": tf.int32} | ({"label": tf.int32} if self._gan.num_classes else {})
        labels = [tf.TensorSpec([None], tf.int32, "labels")] if self._gan.num_classes else []
        return {
            "serving_default": tf.function(self._serve, autograph=False).get_concrete_function(latents, *labels),
            "sample": tf.function(self._sample, autograph=False).get_concrete_function(
                *(tf.TensorSpec([None], kind, name) for name, kind in of_each.items())
            ),
        }

    def _serve(self, latents: tf.Tensor, labels: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        if labels is not None:
            labels = self._known("a label", labels)
        return {"images": self._images(latents, labels)}

    def _sample(self, seed: tf.Tensor, number: tf.Tensor, label: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        label = -tf.ones_like(number) if label is None else label
        pngs = tf.map_fn(lambda one: self._grid(*one), (seed, number, label), fn_output_signature=tf.string)
        return {"png_bytes": pngs}

    def _grid(self, seed: tf.Tensor, number: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        number = _in_range("number", number, 1, MOST_IMAGES)
        latents = self._gan.sample_latents(StepRng(seed, 0, MOST_IMAGES, purpose="served"))[:number]
        labels = None
        if self._gan.num_classes:
            classes = tf.constant(self._gan.classes, tf.int32)
            in_turn = tf.gather(classes, tf.range(number) % len(self._gan.classes))
            labels = tf.where(label == -1, in_turn, self._known("label", label, -1))
        return tf.io.encode_png(_tiled(self._images(latents, labels)))

    def _known(self, name: str, labels: tf.Tensor, *also: int) -> tf.Tensor:
        """The labels of a request, all of them checked."""
        classes = [*also, *self._gan.classes.tolist()]
        if len(classes) == 1 + classes[-1] - classes[0]:
            return _in_range(name, labels, classes[0], classes[-1])
        is_right = tf.reduce_all(tf.reduce_any(labels[..., tf.newaxis] == tf.constant(classes, tf.int32), axis=-1))
        return _checked(labels, is_right, f"{name} is out of range, expected one of {', '.join(map(str, classes))}")

    def _images(self, latents: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        return as_bytes(self._gan.generate(latents, labels, self._gan.ema_generator, False), self._gan.image_range)


class _Translator(_Served):
    """What a CycleGAN translates with."""

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """The function that is served."""
        shape = self._gan.ema_network("generator_ab").inputs[0].shape
        images = tf.TensorSpec([None, *shape[1:]], tf.uint8, "images")
        return {"serving_default": tf.function(self._serve, autograph=False).get_concrete_function(images)}

    def _serve(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        low, high = self._gan.image_range
        floats = tf.cast(images, tf.float32) * ((high - low) / 255.0) + low
        return {"images": as_bytes(self._gan(floats), self._gan.image_range)}


def save(gan: GAN, folder: Path, note: dict[str, int] | None = None) -> None:
    """Writes the SavedModel of a GAN's generator (the average, where there is one), whole or not at all.

    Args:
        gan: What to save.
        folder: Where; a model that is there is replaced.
        note: What `about` is to find.

    Raises:
        OSError: It cannot be written.
    """
    module = _Translator(gan) if isinstance(gan, CycleGAN) else _Generator(gan)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    signatures = module.signatures()
    module.read = [variable for function in signatures.values() for variable in function.variables]
    tf.saved_model.save(module, str(partial), signatures=signatures)
    (partial / _ABOUT).parent.mkdir()
    (partial / _ABOUT).write_text(json.dumps(note or {}), encoding="utf-8")
    (folder / SAVED_MODEL).unlink(missing_ok=True)  # of the model before, which goes
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(partial, folder)


def about(place: Location) -> dict[str, int]:
    """The note that the model in a folder was saved with; empty where there is none, or no whole model.

    Raises:
        StorageError: It cannot be read.
    """
    there = (place / SAVED_MODEL).exists() and (place / _ABOUT).exists()
    return json.loads((place / _ABOUT).read_bytes()) if there else {}


def publish(folder: Path, to: Location) -> None:
    """Copies a SavedModel: its `saved_model.pb` arrives last, and that of a model before goes first.

    Raises:
        StorageError: It cannot be written; then there is no `saved_model.pb`.
    """
    if any(entry.name == SAVED_MODEL for entry in to.entries(deep=False)):
        to.delete([SAVED_MODEL])
    to.upload(folder, [entry.name for entry in locate(folder).entries() if entry.name != SAVED_MODEL])
    to.upload(folder, [SAVED_MODEL])


def _in_range(name: str, values: tf.Tensor, least: int, most: int) -> tf.Tensor:
    """The integers of a request, all of them checked."""
    is_right = tf.reduce_all((values >= least) & (values <= most))
    return _checked(values, is_right, f"{name} is out of range, expected {least} to {most}")


def _checked(values: tf.Tensor, is_right: tf.Tensor, sentence: str) -> tf.Tensor:
    checked = tf.debugging.assert_equal(is_right, True, sentence)
    with tf.control_dependencies([checked]):
        return tf.identity(values)


def _tiled(images: tf.Tensor) -> tf.Tensor:
    """Images uint8 [M, H, W, C] in a square grid with thin gaps, as `trainer.image_io.tile` draws it."""
    count = tf.shape(images)[0]
    columns = tf.cast(tf.math.ceil(tf.sqrt(tf.cast(count, tf.float32))), tf.int32)
    rows = -(-count // columns)
    images = tf.pad(images, [[0, rows * columns - count], [0, _GAP], [0, _GAP], [0, 0]], constant_values=_GRAY)
    height, width, channels = images.shape[1:]
    grid = tf.reshape(images, [rows, columns, height, width, channels])
    grid = tf.reshape(tf.transpose(grid, [0, 2, 1, 3, 4]), [rows * height, columns * width, channels])
    return tf.pad(grid, [[_GAP, 0], [_GAP, 0], [0, 0]], constant_values=_GRAY)
