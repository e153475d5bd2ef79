"""Points of latent space that a page requests, and their images.

A point is a JSON object with one of these bases:

    {"seed": 7}                                        the sample with this seed
    {"corners": [0, 1, 2, 3], "x": 0.5, "y": 0.25}     a place between four samples: top left, top right, bottom left,
                                                       bottom right
    {"between": [POINT, POINT], "share": 0.5}          a place between two points

All may have `principal` and `coordinates`, which map the number of a direction or of a latent to the distance to move.
The first two may have `label`, a class, and `truncation`, a number in [0, 1].

Shapes: `N` points, `Z` latent size with codes, `K` classes, `D` directions.
"""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.config.choices import LatentDistribution
from trainer.errors import ConfigError, DataError
from trainer.image_io import png
from trainer.models import GAN, ImageTranslator
from trainer.models.inference import MAX_SAMPLE_INDEX
from trainer.sampling.outputs import image_names
from trainer.sampling.samples import Samples, image_blocks, labels_of
from trainer.sampling.walk import interpolate, interpolate_labels
from trainer.storage import documents

NUM_DIRECTIONS = 8
MAP_SIZE = 5
"""Number of images in a row and in a column of a map."""
_NUM_MEASURED = 500
"""Number of images from which the principal directions are computed."""
_NUM_MEASURED_LABELS = 10
_MEASURED_SIDE = 16
_MAX_DISTANCE = 100.0
_MAX_NESTING = 8
_REMEDY = "reload the page"


@dataclass(frozen=True, eq=False)
class _Inputs:
    """Inputs of the generator at points.

    Attributes:
        latents: Latents float32 [N, Z].
        labels: Labels int32 [N], or weights of classes float32 [N, K]; None if the model has no classes.
        seeds: Seeds of the samples that the points are computed from.
        is_sample: True if the point is a sample, whose seed random layers use, too.
    """

    latents: np.ndarray
    labels: np.ndarray | None
    seeds: tuple[int, ...]
    is_sample: bool = False


@dataclass(frozen=True, eq=False)
class PointImage:
    """Image of a point.

    Attributes:
        content: PNG file. Its text states the seeds, the point, and the SHA-256 of the generator's inputs.
        name: File name, which has the seeds.
    """

    content: bytes
    name: str


class Explorer:
    """Images of a generator at points of its latent space. One thread at a time may use it.

    Args:
        gan: Compiled model.
        class_names: Name of each class; empty if the model has none.
        source: Run and step of the generator, for the files.

    Raises:
        ConfigError: If the model has no latents.
    """

    def __init__(self, gan: GAN, class_names: Sequence[str] = (), source: str = ""):
        if isinstance(gan, ImageTranslator):
            raise ConfigError(
                f"explore moves through the latents of a generator, and a {type(gan).__name__} has none, because it "
                "translates images; use generate, or GAN.translate for your own images."
            )
        self._gan, self._class_names, self._source = gan, class_names, source

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the generator that the page needs, as JSON values."""
        gan = self._gan
        classes = [int(label) for label in gan.classes] if gan.num_classes else []
        names = self._class_names or [str(number) for number in range(gan.num_classes or 0)]
        return {
            "title": self._source,
            "num_latents": self._num_latents,
            "num_codes": self._num_latents - gan.latent_dim,
            "is_normal": gan.latent_distribution == LatentDistribution.NORMAL,
            "classes": [{"label": label, "name": names[label]} for label in classes],
            "num_directions": min(NUM_DIRECTIONS, self._num_latents),
            "map_size": MAP_SIZE,
            "max_seed": MAX_SAMPLE_INDEX,
        }

    def image(self, content: bytes) -> PointImage:
        """Returns the image of a point, which is a JSON document.

        Raises:
            DataError: If it is no point of this generator.
        """
        point = documents.parse_json(content, "the point", documents.record({}), remedy=_REMEDY, error=DataError)
        inputs = self._inputs(point)
        indices = np.array(inputs.seeds) if inputs.is_sample else None
        (images,) = image_blocks(self._gan, inputs.latents, inputs.labels, indices=indices)
        digest = hashlib.sha256(inputs.latents.tobytes())
        if inputs.labels is not None:
            digest.update(inputs.labels.tobytes())
        seeds = ",".join(map(str, inputs.seeds))
        text = {
            "Software": "gan-trainer",
            "source": self._source,
            "seed": seeds,
            "latent_sha256": digest.hexdigest(),
            "point": json.dumps(point, separators=(",", ":")),
        }
        return PointImage(png(images[0], text), _file_name(inputs, point, digest.hexdigest()))

    def map(self, content: bytes) -> bytes:
        """Returns a PNG of `MAP_SIZE` rows of images between the corners of a point, without gaps.

        Raises:
            DataError: If the document is no point with corners.
        """
        point = documents.parse_json(
            content, "the map", documents.record({"corners": _SEEDS}), remedy=_REMEDY, error=DataError
        )
        shares = np.linspace(0.0, 1.0, MAP_SIZE)
        y, x = (values.reshape(-1, 1) for values in np.meshgrid(shares, shares, indexing="ij"))
        inputs = self._inputs(point | {"x": 0.0, "y": 0.0}, (x, y))
        images = np.concatenate(list(image_blocks(self._gan, inputs.latents, inputs.labels)))
        rows = images.reshape(MAP_SIZE, MAP_SIZE, *images.shape[1:])
        return png(np.concatenate([np.concatenate(list(row), axis=1) for row in rows]))

    @property
    def _num_latents(self) -> int:
        """Number of latents that can be moved, which are those of the network: not StyleGAN2's truncation."""
        return self._gan.network_latent_size

    def _inputs(
        self, point: Mapping[str, Any], places: tuple[np.ndarray, np.ndarray] | None = None, nesting: int = 0
    ) -> _Inputs:
        """Returns the inputs at a point, or at the places (x, y), [N, 1] each, between its corners.

        Raises:
            DataError: If it is no point of this generator.
        """
        bases = [name for name in _BASES if point.get(name) is not None]
        if len(bases) != 1:
            raise DataError(f"a point has one of {', '.join(_BASES)}, but this one has {len(bases)}; {_REMEDY}.")
        base = bases[0]
        documents.check_json(point, "the point", _BASES[base], remedy=_REMEDY, error=DataError)
        self._check_numbers(point)
        if base == "between":
            return self._shift(point, self._between(point, nesting))
        seeds = np.array([point["seed"]] if base == "seed" else point["corners"])
        label = point.get("label")
        samples = Samples(seeds, labels_of(self._gan, seeds, None if label is None else [label]))
        inputs = _Inputs(samples.latents(self._gan), samples.labels, tuple(seeds.tolist()), base == "seed")
        if base == "corners":
            x, y = (np.full((1, 1), float(point[name])) for name in "xy") if places is None else places
            inputs = self._on_map(inputs, x, y)
        inputs = self._shift(point, inputs)
        if point.get("truncation") is None:
            return inputs
        latents = self._gan.truncate_latents(inputs.latents, float(point["truncation"]))
        return _Inputs(latents, inputs.labels, inputs.seeds, inputs.is_sample)

    def _on_map(self, corners: _Inputs, x: np.ndarray, y: np.ndarray) -> _Inputs:
        """Returns the inputs at places between four samples."""

        def at(index: int) -> tuple[np.ndarray, np.ndarray | None]:
            labels = corners.labels
            return (
                np.repeat(corners.latents[index : index + 1], len(x), axis=0),
                None if labels is None else np.repeat(labels[index : index + 1], len(x), axis=0),
            )

        top, bottom = (self._mix(at(index), at(index + 1), x) for index in (0, 2))
        return _Inputs(*self._mix(top, bottom, y), corners.seeds)

    def _between(self, point: Mapping[str, Any], nesting: int) -> _Inputs:
        """Returns the inputs at a place between two points."""
        if nesting >= _MAX_NESTING:
            raise DataError(f"the point is between points more than {_MAX_NESTING} times; fix another point.")
        first, second = (self._inputs(end, nesting=nesting + 1) for end in point["between"])
        share = np.full((1, 1), float(point["share"]))
        mixed = self._mix((first.latents, first.labels), (second.latents, second.labels), share)
        return _Inputs(*mixed, tuple(dict.fromkeys(first.seeds + second.seeds)))

    def _mix(
        self,
        first: tuple[np.ndarray, np.ndarray | None],
        second: tuple[np.ndarray, np.ndarray | None],
        share: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns latents and labels between two sets of them, for shares [N, 1]."""
        labels = None
        if first[1] is not None and second[1] is not None:
            labels = interpolate_labels(self._gan, first[1], second[1], share)
        return interpolate(self._gan, first[0], second[0], share), labels

    def _shift(self, point: Mapping[str, Any], inputs: _Inputs) -> _Inputs:
        """Returns the inputs with latents that are moved along the directions of a point."""
        latents = inputs.latents.copy()
        for name, distance in (point.get("coordinates") or {}).items():
            latents[:, int(name)] += distance
        for name, distance in (point.get("principal") or {}).items():
            if distance:
                latents += distance * self._directions[int(name)]
        if self._gan.latent_distribution != LatentDistribution.NORMAL:
            own = self._gan.latent_dim
            latents[:, :own] = np.clip(latents[:, :own], 0.0, 1.0)
        return _Inputs(latents.astype(np.float32), inputs.labels, inputs.seeds, inputs.is_sample)

    def _check_numbers(self, point: Mapping[str, Any]) -> None:
        """Rejects numbers that are out of range, and directions that do not exist."""
        for name in ("x", "y", "share", "truncation"):
            value = point.get(name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise DataError(f"{name}={value} is out of range; give a number from 0 to 1.")
        counts = {"principal": min(NUM_DIRECTIONS, self._num_latents), "coordinates": self._num_latents}
        for name, count in counts.items():
            for key, distance in (point.get(name) or {}).items():
                if not (key.isascii() and key.isdigit() and len(key) < 9 and int(key) < count):
                    raise DataError(f"{name} has the number {key[:20]!r}; give numbers from 0 to {count - 1}.")
                if not -_MAX_DISTANCE <= distance <= _MAX_DISTANCE:
                    raise DataError(f"{name} has a distance of more than {_MAX_DISTANCE:g}; give a smaller one.")

    @functools.cached_property
    def _directions(self) -> np.ndarray:
        """Principal directions, float32 [D, Z], sorted by how much the images change along them.

        They are those directions of latents that correlate with the principal components of images, which are reduced
        in size. A distance of 1 is one standard deviation of the latents. The mean of each label does not count. Few
        labels are used, in turn, because the mean of few images would be the images themselves.

        Source: arXiv 2004.02546, with images in place of features.
        """
        gan, indices = self._gan, np.arange(_NUM_MEASURED)
        latents, labels = gan.latents_of(indices), labels_of(gan, indices, None)
        if labels is not None:
            used = list(dict.fromkeys(labels.tolist()))[:_NUM_MEASURED_LABELS]
            labels = np.array(used, labels.dtype)[indices % len(used)]
        images = np.concatenate([_reduce(block) for block in image_blocks(gan, latents, labels, indices=indices)])
        for label in [None] if labels is None else np.unique(labels):
            members = np.full(len(indices), True) if labels is None else labels == label
            images[members] -= images[members].mean(axis=0)
        components, sizes, _ = np.linalg.svd(images, full_matrices=False)
        centered = latents - latents.mean(axis=0)
        directions = (components * sizes).T[: min(NUM_DIRECTIONS, latents.shape[1])] @ centered
        peaks = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, np.newaxis], axis=1)
        lengths = np.linalg.norm(directions, axis=1, keepdims=True)
        scale = np.sqrt(np.square(centered).mean()) / np.maximum(lengths, 1e-12)
        return (directions * np.where(peaks < 0, -scale, scale)).astype(np.float32)


def _reduce(images: np.ndarray) -> np.ndarray:
    """Returns the means of square parts of images uint8 [B, H, W, C]: float32 [B, F]."""
    factor = max(1, min(images.shape[1:3]) // _MEASURED_SIDE)
    height, width = (side // factor for side in images.shape[1:3])
    cropped = images[:, : height * factor, : width * factor].astype(np.float32)
    return cropped.reshape(len(images), height, factor, width, factor, -1).mean(axis=(2, 4)).reshape(len(images), -1)


def _file_name(inputs: _Inputs, point: Mapping[str, Any], digest: str) -> str:
    """Returns the name that `generate` gives a sample; for other points a name with the seeds and a digest."""
    is_changed = any(point.get(name) for name in ("coordinates", "principal")) or point.get("truncation") is not None
    if inputs.is_sample and not is_changed:
        return image_names(np.array(inputs.seeds), inputs.labels)[0]
    seeds = "-".join(f"{seed:08d}" for seed in inputs.seeds[:4])
    return f"seed-{seeds}-latents-{digest[:8]}.png"


_SEED = documents.whole(0, MAX_SAMPLE_INDEX)
_SEEDS = documents.list_of(_SEED, length=4)
_MOVES = {name: documents.optional(documents.map_of(documents.number)) for name in ("coordinates", "principal")}
_CHOICES = {
    "label": documents.optional(documents.whole()),
    "truncation": documents.optional(documents.number),
    **_MOVES,
}
_BASES = {
    "seed": documents.record({"seed": _SEED, **_CHOICES}),
    "corners": documents.record({"corners": _SEEDS, "x": documents.number, "y": documents.number, **_CHOICES}),
    "between": documents.record(
        {"between": documents.list_of(documents.record({}), length=2), "share": documents.number, **_MOVES}
    ),
}
