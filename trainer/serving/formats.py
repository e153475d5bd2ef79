"""Generators as files for Keras, onnxruntime and LiteRT, and the check of what was written.

Shapes: `N` images, `H W C` an image, `Z` latent size, `K` classes.
"""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainer.config.choices import ModelFormat
from trainer.errors import ConfigError, NetworkError, TrainerError
from trainer.metrics.extraction import without_tf32
from trainer.models import GAN, ImageTranslator, StyleGAN2
from trainer.models.network_inputs import find_label_input
from trainer.networks.layers.cpu_kernels.convolutions import general_kernels
from trainer.serving import saved_model
from trainer.storage import scratch_folder

NUM_COMPARED = 64
"""Number of images that are compared with those of TensorFlow."""
MAX_DIFFERENCE = 1
"""Largest accepted difference of a pixel, of 255: another order of additions may change how a value is rounded."""
_OPSET = 18


class _Format(NamedTuple):
    file_name: str
    """File without which the model is incomplete."""
    write: Callable[[GAN, Path, int], None]
    """Writes the model at a step to a new folder."""
    run: Callable[[Path, Mapping[str, np.ndarray]], np.ndarray]
    """Returns the images of the model in a folder for inputs by name."""
    extra: str = ""
    """Extra of the package that installs the modules; empty if none is needed."""
    modules: tuple[str, ...] = ()


def check_installed(model_format: ModelFormat) -> None:
    """Rejects a format whose converter is not installed.

    Raises:
        ConfigError: If a module is missing.
    """
    entry = _FORMATS[model_format]
    missing = [name for name in entry.modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"format={model_format} needs packages that are not installed ({', '.join(missing)}); run pip install "
            f"'gan-trainer[{entry.extra}]', or export a savedmodel."
        )


def file_of(model_format: ModelFormat) -> str:
    """Returns the name of the file without which a model is incomplete."""
    return _FORMATS[model_format].file_name


def write(
    gan: GAN, model_format: ModelFormat, folder: Path, step: int, other_files: Mapping[str, bytes] | None = None
) -> int | None:
    """Writes the EMA generator of a GAN, and compares its images with those that TensorFlow computes.

    Args:
        gan: Compiled GAN. Formats other than SavedModels need networks that compute in float32.
        model_format: Format to write.
        folder: Folder of the model, which is created.
        step: Step of the weights, which a SavedModel stores.
        other_files: Content of more files, by name.

    Returns:
        Largest difference of a pixel of 64 images, of 255. None for a SavedModel with random layers that are active
        during inference, whose images cannot be compared.

    Raises:
        DivergenceError: If a weight is not finite.
        NetworkError: If another format has no counterpart of a layer, or the images differ by more than
            `MAX_DIFFERENCE`.
        OSError: If the folder cannot be written.
    """
    entry = _FORMATS[model_format]
    is_saved_model = entry is _SAVED_MODEL
    inputs = _inputs_to_compare(gan)
    generate = _compiled_generator(gan)
    expected = generate(inputs)
    is_random = bool((generate(inputs) != expected).any())
    if is_random and not is_saved_model:
        raise NetworkError(
            f"the generator has random layers that are active during inference, which format={model_format} does not "
            "have; export a savedmodel."
        )
    try:
        entry.write(gan, folder, step)
        images = entry.run(folder, inputs)
    except (TrainerError, OSError, MemoryError):
        raise
    except Exception as error:  # converters and interpreters have no common exception for layers they do not know
        if is_saved_model:
            raise
        reason = next(iter(str(error).strip().splitlines()), "no message")
        raise NetworkError(
            f"the generator cannot be exported with format={model_format} ({type(error).__name__}: {reason}); export a "
            "savedmodel."
        ) from error
    difference = None if is_random else _difference(images, expected, model_format)
    for name, content in (other_files or {}).items():
        (folder / name).write_bytes(content)
    return difference


def _difference(images: np.ndarray, expected: np.ndarray, model_format: ModelFormat) -> int:
    """Returns the largest difference of a pixel. Rejects images that differ too much."""
    has_shape = images.shape == expected.shape
    difference = int(np.abs(images.astype(int) - expected).max()) if has_shape else 255
    if difference > MAX_DIFFERENCE:
        raise NetworkError(
            f"the generator with format={model_format} gives images that differ from those of TensorFlow by up to "
            f"{difference} of 255, more than {MAX_DIFFERENCE}; export another format."
        )
    return difference


def _inputs_to_compare(gan: GAN) -> dict[str, np.ndarray]:
    """Returns fixed inputs of the generator by name."""
    if isinstance(gan, ImageTranslator):
        shape = saved_model.inputs_of(gan)["images"]
        return {"images": np.random.default_rng(0).integers(0, 256, (NUM_COMPARED, *shape), np.uint8)}
    labels = gan.labels_to_sample(NUM_COMPARED, None)
    inputs = {"latents": gan.latents_of(np.arange(NUM_COMPARED), seed=0)}
    if labels is not None and gan.conditions is not None:
        labels = gan.vectors_of(labels)
    return inputs if labels is None else inputs | {"labels": labels}


def _compiled_generator(gan: GAN) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Returns a function of inputs by name that returns images. Rejects weights that are not finite."""
    module = saved_model.export_module(gan)
    convert = tf.function(module.convert, autograph=False).get_concrete_function(*module.inputs)
    saved_model.check_finite(convert.variables)

    def generate(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        with without_tf32():
            return convert(**{name: tf.constant(value) for name, value in inputs.items()}).numpy()

    return generate


def _portable_function(gan: GAN) -> tuple[tf.Module, Any]:
    """Returns the module to save, and its function of named inputs to a named output, in general operations."""
    module = saved_model.export_module(gan)

    @tf.function(autograph=False, input_signature=module.inputs)
    def convert(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        with general_kernels():
            return {module.output: module.convert(*inputs)}

    return module, convert


def _run_saved_model(folder: Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    serve = saved_model.load(folder).signatures[saved_model.SERVE]
    with without_tf32():
        return serve(**{name: tf.constant(value) for name, value in inputs.items()})["images"].numpy()


_KERAS_FILE = "generator.keras"


def _write_keras(gan: GAN, folder: Path, step: int) -> None:
    """Writes a functional model with the inputs and the 8-bit images of the other formats."""
    inputs = {
        spec.name: keras.Input(spec.shape[1:], dtype=spec.dtype.name, name=spec.name)
        for spec in saved_model.export_module(gan).inputs
    }
    low, high = gan.image_range
    if isinstance(gan, ImageTranslator):
        network = gan.translator
        outputs = network(keras.ops.cast(inputs["images"], "float32") * ((high - low) / 255.0) + low)
    else:
        network = gan.ema_generator
        if isinstance(gan, StyleGAN2):
            outputs = gan.generate(inputs["latents"], inputs.get("labels"), network, training=False)
        else:
            outputs = network(_network_inputs(gan, network, **inputs))
    pixels = (keras.ops.cast(outputs, "float32") - low) * (255.0 / (high - low))
    images = keras.ops.cast(keras.ops.clip(keras.ops.round(pixels), 0.0, 255.0), "uint8")
    folder.mkdir()
    keras.Model(inputs, images, name="generator").save(folder / _KERAS_FILE)


def _network_inputs(gan: GAN, network: keras.Model, latents: Any, labels: Any = None) -> Any:
    """Returns the symbolic inputs of a generator, as `call_with_labels` gives them to it."""
    if labels is None:
        return latents
    position = find_label_input("generator", network, (gan.latent_size,), gan.label_size)
    has_vectors = gan.conditions is not None
    one_hot = labels if has_vectors else keras.ops.one_hot(labels, gan.num_classes, dtype="float32")
    if position is None:
        return keras.ops.concatenate([latents, one_hot], axis=-1)
    shape = tuple(network.inputs[position].shape[1:])
    values = one_hot if shape == (gan.label_size,) else keras.ops.reshape(labels, (-1, *shape))
    return keras.tree.pack_sequence_as(network.input, [latents, values] if position else [values, latents])


def _run_keras(folder: Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    with without_tf32():
        model = keras.saving.load_model(folder / _KERAS_FILE, compile=False)
        return keras.ops.convert_to_numpy(model(dict(inputs)))


_ONNX_FILE = "generator.onnx"


def _write_onnx(gan: GAN, folder: Path, step: int) -> None:
    import onnx
    import tf2onnx

    module, convert = _portable_function(gan)
    model, _ = tf2onnx.convert.from_function(convert, input_signature=module.inputs, opset=_OPSET)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    folder.mkdir()
    onnx.save(model, folder / _ONNX_FILE)


def _run_onnx(folder: Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / _ONNX_FILE, providers=["CPUExecutionProvider"])
    return session.run(None, dict(inputs))[0]


_LITERT_FILE = "generator.tflite"


def _write_litert(gan: GAN, folder: Path, step: int) -> None:
    module, convert = _portable_function(gan)
    with scratch_folder() as scratch:
        saved_model.save_functions(module, {saved_model.SERVE: convert.get_concrete_function()}, scratch / "model")
        with saved_model.without_gradient_warnings():
            source = str(scratch / "model")
            converter = tf.lite.TFLiteConverter.from_saved_model(source, signature_keys=[saved_model.SERVE])
            content = converter.convert()
    folder.mkdir()
    (folder / _LITERT_FILE).write_bytes(content)


def _run_litert(folder: Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(folder / _LITERT_FILE)).get_signature_runner(saved_model.SERVE)
    return next(iter(run(**inputs).values()))


_SAVED_MODEL = _Format(saved_model.SAVED_MODEL, saved_model.save, _run_saved_model)
_FORMATS = {
    ModelFormat.SAVED_MODEL: _SAVED_MODEL,
    ModelFormat.KERAS: _Format(_KERAS_FILE, _write_keras, _run_keras),
    ModelFormat.ONNX: _Format(_ONNX_FILE, _write_onnx, _run_onnx, "onnx", ("onnx", "onnxruntime", "tf2onnx")),
    ModelFormat.LITERT: _Format(_LITERT_FILE, _write_litert, _run_litert, "litert", ("ai_edge_litert",)),
}
