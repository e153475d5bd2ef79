"""Generators as SavedModels. `python -m trainer export --help` describes their signatures.

Shapes: `N` instances of a request, `M` images of one instance, `Z` latent size, `K` classes, `H W C` an image.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.errors import DIVERGENCE_ADVICE, DivergenceError, DocumentError
from trainer.image_io import checkerboard
from trainer.models import GAN, ImageTranslator
from trainer.models.inference import MAX_SAMPLE_INDEX
from trainer.models.sampler import as_bytes
from trainer.storage import Location, documents, file_sha256, read_json
from trainer.storage.local import LocalLocation
from trainer.training.rng import StepRng

SAVED_MODEL = "saved_model.pb"
"""The file that is written last: a folder without it has no complete model."""
_SHA256 = "sha256"
"""Key of the metadata: SHA-256 of every other file of the model, by name."""
_METADATA = "assets.extra/run.json"
"""File of the metadata, in the folder that SavedModels reserve for additional files."""
_METADATA_SCHEMA = documents.record({_SHA256: documents.map_of(documents.text())})
EXPORTED_AT = "exported_at_step"
"""Key of the metadata: the step of the run at the export. The exported checkpoint may be of an earlier step."""
MAX_IMAGES = 64
"""Largest number of images of one instance of `sample`."""
EXAMPLE_SIDE = 64
"""Height and width of images for a model that translates images of any size, in comparisons and examples."""
SERVE, IMAGE = "serving_default", "image"
"""Names of signatures: the one of all models, and that of single images by seed."""
INSTANCE = "instance"
"""Text in the error of a request for a value out of range, before the index of the instance."""
_GAP, _GRAY = 2, 48


class _ExportModule(tf.Module):
    """A module that refers to a GAN through a function, because the state of attributes would be saved."""

    def __init__(self, gan: GAN):
        super().__init__()
        self._get_gan = lambda: gan

    @property
    def _gan(self) -> Any:
        return self._get_gan()


class _Generator(_ExportModule):
    """The generator of a GAN."""

    output = "images"

    @property
    def inputs(self) -> list[tf.TensorSpec]:
        """Inputs of `convert`."""
        latents = tf.TensorSpec([None, self._gan.latent_size], tf.float32, "latents")
        if not self._gan.num_classes:
            return [latents]
        if self._gan.conditions is not None:
            return [latents, tf.TensorSpec([None, self._gan.label_size], tf.float32, "labels")]
        return [latents, tf.TensorSpec([None], tf.int32, "labels")]

    def convert(self, latents: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        """Returns images uint8 [N, H, W, C], without a check of the labels."""
        return as_bytes(self._gan.generate(latents, labels, self._gan.ema_generator, False), self._gan.image_range)

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Returns the functions to serve, by name."""
        label = {"label": tf.int32} if self._gan.num_classes else {}

        def concrete(function: Any, inputs: Mapping[str, tf.DType]) -> tf.types.experimental.ConcreteFunction:
            specs = (tf.TensorSpec([None], dtype, name) for name, dtype in inputs.items())
            return tf.function(function, autograph=False).get_concrete_function(*specs)

        return {
            SERVE: tf.function(self._serve, autograph=False).get_concrete_function(*self.inputs),
            "sample": concrete(self._sample, {"seed": tf.int64, "number": tf.int32} | label),
            IMAGE: concrete(self._image, {"seed": tf.int64, "truncation": tf.float32} | label),
        }

    def _serve(self, latents: tf.Tensor, labels: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        if labels is not None and labels.dtype == tf.int32:
            labels = self._check_labels("a label", labels)
        return {"images": self.convert(latents, labels)}

    def _sample(self, seed: tf.Tensor, number: tf.Tensor, label: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        number = _check_range("number", number, 1, MAX_IMAGES)
        label = -tf.ones_like(number) if label is None else self._check_labels("label", label, -1)
        pngs = tf.map_fn(lambda instance: self._grid(*instance), (seed, number, label), fn_output_signature=tf.string)
        return {"png_bytes": pngs}

    def _image(self, seed: tf.Tensor, truncation: tf.Tensor, label: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Returns one PNG per seed, of the image that `generate --seeds` writes for it."""
        gan, seed = self._gan, _check_range("seed", seed, 0, MAX_SAMPLE_INDEX)
        truncation = _check_truncation(truncation)[:, tf.newaxis]
        latents = tf.map_fn(
            lambda number: gan.sample_latents(StepRng(gan.seed, 0, 1, number, purpose="samples"))[0],
            seed,
            fn_output_signature=tf.float32,
        )
        latents = tf.where(truncation < 0, latents, gan.truncate(latents, truncation))
        labels = None
        if label is not None:
            labels = tf.where(label == -1, gan.default_labels(seed), self._check_labels("label", label, -1))
        images = self.convert(latents, labels)
        return {"png_bytes": tf.map_fn(tf.io.encode_png, images, fn_output_signature=tf.string)}

    def _grid(self, seed: tf.Tensor, number: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        latents = self._gan.sample_latents(StepRng(seed, 0, MAX_IMAGES, purpose="served"))[:number]
        labels = None
        if self._gan.num_classes:
            labels = tf.where(label == -1, self._gan.default_labels(tf.range(number)), label)
        return tf.io.encode_png(_make_grid(self.convert(latents, labels)))

    def _check_labels(self, name: str, labels: tf.Tensor, *other: int) -> tf.Tensor:
        """Returns the labels of a request. Running it fails if a label is out of range."""
        classes = [*other, *self._gan.classes.tolist()]
        if len(classes) == 1 + classes[-1] - classes[0]:
            return _check_range(name, labels, classes[0], classes[-1])
        is_valid = tf.reduce_any(labels[:, tf.newaxis] == tf.constant(classes, tf.int32), axis=1)
        return _assert(labels, is_valid, f"{name} is out of range, expected one of {', '.join(map(str, classes))}")


class _Translator(_ExportModule):
    """The generator that translates images: of a CycleGAN that from domain A to B."""

    output = "translations"

    @property
    def inputs(self) -> list[tf.TensorSpec]:
        """Inputs of `convert`."""
        shape = self._gan.translator.inputs[0].shape
        return [tf.TensorSpec([None, *shape[1:]], tf.uint8, "images")]

    def convert(self, images: tf.Tensor) -> tf.Tensor:
        """Returns translations of images, uint8 [N, H, W, C]."""
        low, high = self._gan.image_range
        floats = tf.cast(images, tf.float32) * ((high - low) / 255.0) + low
        return as_bytes(self._gan(floats), self._gan.image_range)

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Returns the function to serve, by name."""
        return {SERVE: tf.function(self._serve, autograph=False).get_concrete_function(*self.inputs)}

    def _serve(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"images": self.convert(images)}


def export_module(gan: GAN) -> _Generator | _Translator:
    """Returns the module that generates, or translates, the images of a compiled GAN.

    Its `convert` is a function of tensors with the specifications `inputs`, and its result is named `output`.
    """
    return _Translator(gan) if isinstance(gan, ImageTranslator) else _Generator(gan)


def inputs_of(gan: GAN) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each input of the generator by name, without N, with `EXAMPLE_SIDE` for open sizes."""
    return {spec.name: tuple(size or EXAMPLE_SIDE for size in spec.shape[1:]) for spec in export_module(gan).inputs}


def save(
    gan: GAN,
    folder: Path,
    step: int,
    *,
    exported_at_step: int | None = None,
    other_files: Mapping[str, bytes] | None = None,
) -> None:
    """Writes the SavedModel of a GAN's EMA generator, completely or not at all.

    Args:
        gan: Compiled GAN.
        folder: Folder of the model. An existing model is replaced.
        step: Step of the weights.
        exported_at_step: Step of the run at the export. None: the model is not that of a run.
        other_files: Content of files that users may change, by name.

    Raises:
        DivergenceError: If a weight is not finite.
        OSError: If the folder cannot be written.
    """
    module = export_module(gan)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_functions(module, module.signatures(), partial)
    digests = {path.relative_to(partial).as_posix(): file_sha256(path) for path in partial.rglob("*") if path.is_file()}
    (partial / _METADATA).parent.mkdir()
    steps = {"step": step} | ({} if exported_at_step is None else {EXPORTED_AT: exported_at_step})
    (partial / _METADATA).write_text(json.dumps({**steps, _SHA256: digests}), encoding="utf-8")
    for name, content in (other_files or {}).items():
        (partial / name).write_bytes(content)
    (folder / SAVED_MODEL).unlink(missing_ok=True)  # the previous model is incomplete from here on
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(partial, folder)


def save_functions(
    module: tf.Module, functions: Mapping[str, tf.types.experimental.ConcreteFunction], folder: Path
) -> None:
    """Writes functions of a module that `export_module` returned, and the variables that they read, as a SavedModel.

    Raises:
        DivergenceError: If a weight is not finite.
    """
    module.read = [variable for function in functions.values() for variable in function.variables]
    check_finite(module.read)
    tf.saved_model.save(module, str(folder), signatures=dict(functions))


def load(folder: Path) -> Any:
    """Returns the object of a SavedModel, whose `signatures` are its functions by name."""
    with without_gradient_warnings():
        return tf.saved_model.load(str(folder))


@contextlib.contextmanager
def without_gradient_warnings() -> Iterator[None]:
    """Suppresses TensorFlow's warning per custom gradient of a SavedModel that it loads. Images need no gradients."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def read_metadata(folder: Location) -> dict[str, int]:
    """Returns the metadata of the model in a folder; empty if there is no complete model whose files match it.

    Models of version 0.1.0 have no hashes, so their metadata is empty, too.

    Raises:
        StorageError: If a file cannot be read.
    """
    names = {entry.name for entry in folder.entries()}
    if not {SAVED_MODEL, _METADATA} <= names:
        return {}
    try:
        metadata = read_json(folder / _METADATA, _METADATA_SCHEMA, remedy="export the model again")
    except DocumentError:  # the model counts as incomplete, and is exported again
        return {}
    digests = metadata.pop(_SHA256)
    if SAVED_MODEL not in digests or not names.issuperset(digests):
        return {}
    is_intact = all(sha256((folder / name).read_bytes()).hexdigest() == digest for name, digest in digests.items())
    return metadata if is_intact else {}


def was_exported_at(step: int, folder: Location) -> bool:
    """Returns whether a folder has a complete model that was exported when its run had taken `step` steps.

    Raises:
        StorageError: If a file cannot be read.
    """
    return read_metadata(folder).get(EXPORTED_AT) == step


def publish(folder: Path, to: Location, last: str = SAVED_MODEL) -> None:
    """Copies a model. It deletes the `last` file of a previous model first, and writes the new one last.

    Raises:
        StorageError: If the model cannot be written; then there is no `last` file.
    """
    if any(entry.name == last for entry in to.entries(recursive=False)):
        to.delete([last])
    to.upload(folder, [entry.name for entry in LocalLocation(folder).entries() if entry.name != last])
    to.upload(folder, [last])


def check_finite(variables: Iterable[tf.Variable]) -> None:
    """Rejects variables of a generator that are not finite.

    Raises:
        DivergenceError: If a value is not finite.
    """
    for variable in variables:
        if variable.dtype.is_floating and not np.isfinite(variable.read_value().numpy()).all():
            raise DivergenceError(
                f"{variable.name} has values that are not finite, so the generator is not exported; choose another "
                f"checkpoint, or train again: {DIVERGENCE_ADVICE}."
            )


def _check_range(name: str, values: tf.Tensor, minimum: int, maximum: int) -> tf.Tensor:
    """Returns the integers of a request. Running it fails if one is out of range."""
    is_valid = (values >= minimum) & (values <= maximum)
    return _assert(values, is_valid, f"{name} is out of range, expected {minimum} to {maximum}")


def _check_truncation(values: tf.Tensor) -> tf.Tensor:
    """Returns the truncations of a request. Running it fails if one is neither -1 nor in [0, 1]."""
    is_valid = (values == -1) | ((values >= 0) & (values <= 1))
    return _assert(values, is_valid, "truncation is out of range, expected 0 to 1, or -1 for none")


def _assert(values: tf.Tensor, is_valid: tf.Tensor, message: str) -> tf.Tensor:
    """Returns the values of a request, [N]. Running it fails with the message and the first instance that is wrong."""
    wrong = tf.where(tf.logical_not(is_valid))[:1, 0]
    checked = tf.debugging.Assert(tf.reduce_all(is_valid), [message, INSTANCE, wrong])
    with tf.control_dependencies([checked]):
        return tf.identity(values)


def _make_grid(images: tf.Tensor) -> tf.Tensor:
    """Returns images uint8 [M, H, W, C] in a square grid with thin gaps, as `trainer.image_io.tile` draws it."""
    images = _over_checkerboard(images) if images.shape[-1] == 4 else images
    count = tf.shape(images)[0]
    columns = tf.cast(tf.math.ceil(tf.sqrt(tf.cast(count, tf.float32))), tf.int32)
    rows = -(-count // columns)
    images = tf.pad(images, [[0, rows * columns - count], [0, _GAP], [0, _GAP], [0, 0]], constant_values=_GRAY)
    height, width, channels = images.shape[1:]
    grid = tf.reshape(images, [rows, columns, height, width, channels])
    grid = tf.reshape(tf.transpose(grid, [0, 2, 1, 3, 4]), [rows * height, columns * width, channels])
    return tf.pad(grid, [[_GAP, 0], [_GAP, 0], [0, 0]], constant_values=_GRAY)


def _over_checkerboard(images: tf.Tensor) -> tf.Tensor:
    """Returns images uint8 [M, H, W, 4] on the checkerboard of `trainer.image_io`: uint8 [M, H, W, 3]."""
    alpha = tf.cast(images[..., 3:], tf.float32) / 255.0
    board = checkerboard(*images.shape[1:3])
    return tf.cast(tf.round(tf.cast(images[..., :3], tf.float32) * alpha + board * (1.0 - alpha)), tf.uint8)
