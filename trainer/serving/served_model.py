"""Requests to an exported model: images by seed and label, or translations of images, as PNG, JPEG or WebP in base64.

Shapes: `N` instances of a request, `H W C` an image.
"""

import base64
import io
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from trainer.data.prepare.decoding import decode
from trainer.data.prepare.pixels import Target
from trainer.errors import DataError, StorageError, count_of, quote
from trainer.image_io import place_on_white, png
from trainer.metrics.extraction import without_tf32
from trainer.models.inference import MAX_SAMPLE_INDEX
from trainer.registry import check_known
from trainer.serving import saved_model
from trainer.storage import Location, documents, scratch_folder, state_absence
from trainer.storage.local import LocalLocation
from trainer.storage.run_directory import MODEL

_INSTANCES, _PARAMETERS = "instances", "parameters"
_REMEDY = 'send {"instances": [{"seed": 0}]}, as docs/serving.md describes'
_OF_SAMPLES: dict[str, documents.Check] = {
    "label": documents.optional(documents.any_whole),  # the model checks the range
    "truncation": documents.optional(documents.number),
}
_OF_FILES: dict[str, documents.Check] = {
    "format": documents.optional(documents.text("png|jpeg|webp", "png, jpeg or webp")),
    "quality": documents.optional(documents.whole(1, 100)),
}
_SCHEMA = documents.record(
    {
        _INSTANCES: documents.list_of(documents.record({})),
        _PARAMETERS: documents.optional(documents.record({})),
    }
)
_SEED_INSTANCE: dict[str, documents.Check] = {"seed": documents.whole(0, MAX_SAMPLE_INDEX), **_OF_SAMPLES}
_IMAGE_INSTANCE: dict[str, documents.Check] = {"b64": documents.text()}
_PNG, _QUALITY = "png", 90
"""Format and quality of the images if the parameters do not state them."""
_BLOCK = 64
"""Largest number of images that the model computes at once."""
_OUT_OF_RANGE = re.compile(rf"(\w+) is out of range, (expected [^]\n]*)\] \[{saved_model.INSTANCE}\] \[(\d+)")
_INPUT_FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True)
class PredictionRequest:
    """A checked request.

    Attributes:
        instances: One object per image.
        parameters: Defaults of the instances, and the format of the images.
    """

    instances: Sequence[Mapping[str, Any]]
    parameters: Mapping[str, Any]


_OTHER_FORMATS = ".keras", ".onnx", ".tflite"
"""Ends of the names of exported models that cannot be served."""


def _check_is_saved_model(location: Location, names: Sequence[str]) -> None:
    """Rejects a folder without a SavedModel, and names a run or a model in another format in it."""
    if saved_model.SAVED_MODEL in names:
        return
    if f"{MODEL}/{saved_model.SAVED_MODEL}" in names:
        raise StorageError(f"{location} is the directory of a run; give the model in it, {location / MODEL}.")
    other = next((name for name in names if name.endswith(_OTHER_FORMATS)), None)
    if other is not None:
        raise StorageError(
            f"{location} has {other}, but only a SavedModel can be served; export one with --format=savedmodel."
        )
    absence = state_absence(location, f"has no {saved_model.SAVED_MODEL}")
    raise StorageError(f"{location} {absence}; export a model, or correct the name.")


class ServedModel:
    """An exported SavedModel that answers requests. Threads may share it; it answers one request after the other.

    Args:
        folder: Local folder of the model.
        origin: Name of the model for messages.

    Attributes:
        metadata: Numbers that the export stored with the model.
        has_labels: True if instances may have a label.

    Raises:
        StorageError: If the folder has no complete model whose files match their hashes, or an older version wrote it.
    """

    def __init__(self, folder: Path, origin: object):
        self.metadata = saved_model.read_metadata(LocalLocation(folder))
        if not self.metadata:
            raise StorageError(
                f"{origin} has no complete model whose files match their hashes; export it again, or correct the name."
            )
        self._model = saved_model.load(folder)
        signatures = self._model.signatures
        self._generate: Any = signatures.get(saved_model.IMAGE)
        serve = signatures[saved_model.SERVE]
        inputs = serve.structured_input_signature[1]
        self._translate: Any = serve if "images" in inputs else None
        if self._generate is None and self._translate is None:
            raise StorageError(
                f"{origin} was exported by an earlier version, without the signature {saved_model.IMAGE}; export it "
                "again with this version."
            )
        self._image_shape = tuple(inputs["images"].shape[1:]) if self._translate is not None else ()
        self.has_labels = self._generate is not None and "label" in self._generate.structured_input_signature[1]
        self._lock = threading.Lock()

    @classmethod
    def load(cls, location: Location) -> "ServedModel":
        """Returns the model in a folder, local or in a bucket.

        Raises:
            StorageError: If the folder cannot be read, or as for the constructor.
        """
        with scratch_folder() as scratch:  # the variables are in memory after the load
            names = [entry.name for entry in location.entries()]
            _check_is_saved_model(location, names)  # before large files of another kind are copied
            for name in names:
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            location.download({name: scratch / name for name in names})
            return cls(scratch, location)

    @property
    def translates(self) -> bool:
        """True if the model maps images to images."""
        return self._translate is not None

    def example(self) -> dict[str, Any]:
        """Returns an instance for a test request."""
        if self._generate is not None:
            return {"seed": 0}
        height, width, channels = (size or saved_model.EXAMPLE_SIDE for size in self._image_shape)
        return {"b64": base64.b64encode(png(np.zeros((height, width, channels), np.uint8))).decode()}

    def parse(self, content: bytes, max_instances: int) -> PredictionRequest:
        """Returns a request.

        Args:
            content: Body of the request.
            max_instances: Maximum number of instances.

        Raises:
            TrainerError: If the request is not JSON, does not fit the schema, has too many instances, or has a
                parameter without effect on the images.
        """
        origin = "the request"
        value = documents.parse_json(content, origin, _SCHEMA, remedy=_REMEDY)
        _check_keys("key of the request", value, (_INSTANCES, _PARAMETERS))
        instances, parameters = value[_INSTANCES], _with_whole_numbers(value.get(_PARAMETERS) or {})
        known = _OF_FILES if self.translates else _OF_SAMPLES | _OF_FILES
        schema = documents.record({_PARAMETERS: documents.record(known)})
        documents.check_json({_PARAMETERS: parameters}, origin, schema, remedy=_REMEDY)
        _check_keys("parameter", parameters, known)
        if parameters.get("quality") is not None and (parameters.get("format") or _PNG) == _PNG:
            raise DataError(
                f"{origin} has parameters.quality={parameters['quality']}, which has no effect on a {_PNG}; omit it, "
                "or set parameters.format to jpeg or webp."
            )
        if not 1 <= len(instances) <= max_instances:
            raise DataError(
                f"the request has {count_of(len(instances), 'instance')}; send 1 to {max_instances} in one request."
            )
        keys = _IMAGE_INSTANCE if self.translates else _SEED_INSTANCE
        instances = [_with_whole_numbers(instance) for instance in instances]
        for index, instance in enumerate(instances):
            documents.check_json(instance, _place_of(index), documents.record(keys), remedy=_REMEDY)
            _check_keys(f"key of instance {index}", instance, keys)
        entries = [(f"{origin} has parameters.label", parameters)]
        entries += [(f"{_place_of(index)} has a label", instance) for index, instance in enumerate(instances)]
        labeled = [place for place, entry in entries if entry.get("label") is not None]
        if labeled and not self.has_labels:
            raise DataError(f"{labeled[0]}, but the model has no classes; remove it.")
        return PredictionRequest(instances, parameters)

    def predict(self, request: PredictionRequest) -> list[dict[str, Any]]:
        """Returns one prediction per instance: the image as `b64`, and the seed and the label of the instance.

        Raises:
            DataError: If a value is out of range, or an image to translate cannot be used.
        """
        predictions = []
        for start in range(0, len(request.instances), _BLOCK):
            block = request.instances[start : start + _BLOCK]
            for instance, image in zip(block, self._images(block, request.parameters, start), strict=True):
                own = {name: instance[name] for name in ("seed", "label") if instance.get(name) is not None}
                content = _encoded(image, request.parameters)
                predictions.append({"b64": base64.b64encode(content).decode(), **own})
        return predictions

    def _images(self, instances: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any], start: int) -> list[bytes]:
        """Returns the images of instances as PNGs. `start` is the index of the first one."""
        if self._translate is not None:
            with self._lock, without_tf32():  # one image is decoded at a time, so that its memory is taken once
                images = [self._decoded(instance["b64"], start + index) for index, instance in enumerate(instances)]
                index = next((i for i, image in enumerate(images) if image.shape != images[0].shape), None)
                if index is not None:
                    raise DataError(f"{_place_of(start + index)} has another size than the first; send it by itself.")
                outputs = self._translate(images=tf.constant(np.stack(images)))["images"]
                return [png(image) for image in outputs.numpy()]

        def column(name: str) -> list[Any]:
            values = [instance.get(name) for instance in instances]
            default = parameters.get(name)
            return [(-1 if default is None else default) if value is None else value for value in values]

        inputs = {"seed": tf.constant(column("seed"), tf.int64)}
        # A number of hundreds of digits is no float32 and no int32, and as much out of range as the nearest of these.
        inputs["truncation"] = tf.constant([min(max(value, -2), 2) for value in column("truncation")], tf.float32)
        if self.has_labels:
            labels = [min(max(value, -2), tf.int32.max) for value in column("label")]
            inputs["label"] = tf.constant(labels, tf.int32)
        try:
            with self._lock, without_tf32():
                return self._generate(**inputs)["png_bytes"].numpy().tolist()
        except tf.errors.InvalidArgumentError as error:
            match = _OUT_OF_RANGE.search(str(error))
            if match is None:
                raise
            name, expected, index = match[1], match[2], int(match[3])
            is_own = instances[index].get(name) is not None
            place = f"{_place_of(start + index)} has {name}" if is_own else f"the request has parameters.{name}"
            raise DataError(f"{place}={quote(column(name)[index])}, {expected}; correct it.") from None

    def _decoded(self, text: str, index: int) -> np.ndarray:
        """Returns the image to translate of an instance, uint8 [H, W, C], as `prepare` reads it."""
        height, width, channels = self._image_shape
        target = Target(height, width, channels, "none", allows_constant=True)
        try:
            picture = decode(base64.b64decode(text, validate=True), target, formats=_INPUT_FORMATS)
        except DataError as error:
            raise DataError(f"b64 of {_place_of(index)} {error}.") from error
        except ValueError as error:
            raise DataError(f"{_place_of(index)} has b64={quote(text)}, which is not base64; correct it.") from error
        return np.asarray(picture).reshape(picture.height, picture.width, channels)


def _place_of(index: int) -> str:
    """Returns the name of an instance for messages."""
    return f"instance {index} of the request"


def _check_keys(kind: str, value: Mapping[str, Any], known: Any) -> None:
    for name in value:
        check_known(kind, name, known)


def _with_whole_numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values with whole numbers such as 3.0, which clients of Vertex AI may send, as integers."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in values.items()
    }


def _encoded(content: bytes, parameters: Mapping[str, Any]) -> bytes:
    """Returns a PNG in the format of the parameters."""
    name = parameters.get("format") or _PNG
    if name == _PNG:
        return content
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        if name == "jpeg" and image.mode == "RGBA":  # JPEG has no alpha
            image = place_on_white(image)
        image.save(buffer, name.upper(), quality=parameters.get("quality") or _QUALITY)
    return buffer.getvalue()
