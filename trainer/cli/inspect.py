"""The `inspect` command."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags as absl_flags

from trainer.cli import app
from trainer.data import DatasetInfo
from trainer.image_io import as_color, png, tile
from trainer.logging import print_json, quiet_import

_USAGE = """Describes a dataset as JSON: number of images, shape, classes, and statistics of pixels.

  {command} --dataset=NAME|DIRECTORY|gs://BUCKET/NAME [--verify] [--contact_sheet=FILE.png]
"""
_COLUMNS = 10
_MAX_CLASSES = 20
_ROWS_OF_ALL_CLASSES = 10


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string(
        "dataset", None, "Dataset, named like --dataset of the train command.", required=True, flag_values=values
    )
    absl_flags.DEFINE_bool(
        "verify", False, "Read all images and verify all checksums, not only the first shard.", flag_values=values
    )
    absl_flags.DEFINE_string(
        "contact_sheet",
        None,
        f"Contact sheet to write: a local or gs:// .png file with about {_COLUMNS * _ROWS_OF_ALL_CLASSES} images, or "
        f"{_COLUMNS} per class if there are many classes.",
        flag_values=values,
    )


def run_command(values: absl_flags.FlagValues) -> None:
    """Prints the description, and writes the contact sheet."""
    sheet = None
    if values.contact_sheet:
        sheet = app.output_file("contact_sheet", values.contact_sheet, {".png": "a .png"})
    with quiet_import():
        from trainer.data.loading import open_batches

    info, batches = open_batches(values.dataset, None if values.verify else 1)
    num_classes = 1 if info.condition_names else info.num_classes
    pixels = _PixelStats(info.image_shape, num_classes)
    height, width, _ = info.image_shape
    inputs = _PixelStats((height, width, info.input_channels), num_classes) if info.input_channels else None
    for images, labels in batches:
        if info.condition_names:  # shown like one class
            labels = np.zeros_like(labels)
        pixels.add(images[..., info.input_channels :], labels)
        if inputs is not None:
            inputs.add(images[..., : info.input_channels], labels)
    if sheet is not None:
        sheet.write_bytes(png(_contact_sheet([pixels] if inputs is None else [inputs, pixels])))
    print_json(_description(info, pixels, inputs, values.verify))


main = app.command(_USAGE, define_flags, run_command)


def _description(
    info: DatasetInfo, pixels: "_PixelStats", inputs: "_PixelStats | None", verified: bool
) -> dict[str, Any]:
    return {
        "name": info.name,
        "num_examples": info.num_examples,
        "image_shape": list(info.image_shape),
        **({} if inputs is None else {"input_channels": info.input_channels}),
        **({} if info.encoding is None else {"encoding": info.encoding}),
        **_labels(info),
        "mib_in_memory": round(info.num_examples * float(np.prod(info.array_shape)) / 2**20, 1),
        "verified": verified,
        "pixels": pixels.statistics(),
        **({} if inputs is None else {"input_pixels": inputs.statistics()}),
    }


def _labels(info: DatasetInfo) -> dict[str, Any]:
    """Returns the number of images of each class, or the range and the mean of each condition."""
    if info.conditions is None:
        return {"classes": dict(zip(info.class_names, info.class_counts, strict=True))}
    vectors, counts = info.conditions.astype(np.float64), np.array(info.class_counts)
    statistics = np.stack([vectors.min(axis=0), vectors.max(axis=0), counts @ vectors / counts.sum()], axis=1)
    conditions = {
        name: dict(zip(("min", "max", "mean"), row, strict=True))
        for name, row in zip(info.condition_names, statistics.round(4).tolist(), strict=True)
    }
    return {"num_vectors": len(vectors), "conditions": conditions}


def _contact_sheet(parts: Sequence["_PixelStats"]) -> np.ndarray:
    """Returns a grid, uint8 [height, width, C], of the first images of each class.

    Args:
        parts: Images; or inputs and images, whose rows alternate.
    """
    rows = [np.stack(row) for part_rows in zip(*(part.rows() for part in parts), strict=True) for row in part_rows]
    if len(parts) > 1:
        rows = [as_color(row) for row in rows]
    return tile(np.concatenate(rows), _COLUMNS)


class _PixelStats:
    """Accumulates statistics of pixels, and the first images of each class.

    Args:
        image_shape: Height, width and channels of the images.
        num_classes: Number of classes to tell apart.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int):
        channels = image_shape[2]
        self._sums, self._squares, self._num_images = np.zeros(channels), np.zeros(channels), 0
        self._min, self._max = 255, 0
        self._black_image = np.zeros(image_shape, np.uint8)
        self._first: list[list[np.ndarray]] = [[] for _ in range(min(num_classes, _MAX_CLASSES))]
        self._num_shown = _COLUMNS * max(1, _ROWS_OF_ALL_CLASSES // num_classes)

    def add(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Adds images uint8 [N, H, W, C] with labels [N]."""
        self._num_images += len(images)
        counts = np.stack(
            [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(images.shape[3])]
        )
        values = np.arange(256, dtype=np.float64)
        self._sums += counts @ values
        self._squares += counts @ values**2
        self._min, self._max = min(self._min, int(images.min())), max(self._max, int(images.max()))
        for label, first in enumerate(self._first):
            first.extend(images[labels == label][: self._num_shown - len(first)])

    def statistics(self) -> dict[str, Any]:
        """Returns mean and standard deviation of each channel, and the range of all values, in [0, 255]."""
        num_pixels = self._num_images * self._black_image[..., 0].size
        mean = self._sums / num_pixels
        deviation = np.sqrt(np.maximum(0.0, self._squares / num_pixels - mean**2))
        return {
            "images": self._num_images,
            "mean": mean.round(2).tolist(),
            "standard_deviation": deviation.round(2).tolist(),
            "range": [self._min, self._max],
        }

    def rows(self) -> list[list[np.ndarray]]:
        """Returns the first images of each class, uint8 [H, W, C], in rows padded with black images."""
        rows = []
        for first in self._first:
            for start in range(0, max(1, len(first)), _COLUMNS):
                row = first[start : start + _COLUMNS]
                rows.append(row + [self._black_image] * (_COLUMNS - len(row)))
        return rows
