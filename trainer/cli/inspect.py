"""The `inspect` command."""

from typing import Any

import numpy as np
from absl import flags as absl_flags

from trainer.cli import app
from trainer.data import DatasetInfo
from trainer.image_io import png, tile
from trainer.logging import print_json, quiet_import

_USAGE = """Describes a data set as JSON: number of images, shape, classes, and statistics of pixels.

  {command} --dataset=NAME|DIRECTORY|gs://BUCKET/NAME [--verify] [--contact_sheet=FILE.png]
"""
_COLUMNS = 10
_MAX_ROWS = 20


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string(
        "dataset", None, "Data set, named like --dataset of the train command.", required=True, flag_values=values
    )
    absl_flags.DEFINE_bool(
        "verify", False, "Read all images and verify all checksums, not only the first shard.", flag_values=values
    )
    absl_flags.DEFINE_string(
        "contact_sheet",
        None,
        f"Contact sheet to write: a local or gs:// .png file with {_COLUMNS} images per class.",
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
    pixels = _PixelStats(info)
    for images, labels in batches:
        pixels.add(images, labels)
    if sheet is not None:
        sheet.write_bytes(png(pixels.contact_sheet()))
    print_json(_description(info, pixels, values.verify))


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit code."""
    return app.run(argv, _USAGE, define_flags, run_command)


def _description(info: DatasetInfo, pixels: "_PixelStats", verified: bool) -> dict[str, Any]:
    return {
        "name": info.name,
        "num_examples": info.num_examples,
        "image_shape": list(info.image_shape),
        "classes": dict(zip(info.class_names, info.class_counts, strict=True)),
        "mib_in_memory": round(info.num_examples * float(np.prod(info.image_shape)) / 2**20, 1),
        "verified": verified,
        "pixels": pixels.statistics(),
    }


class _PixelStats:
    """Accumulates statistics of pixels, and the first images of each class.

    Args:
        info: Description of the data set.
    """

    def __init__(self, info: DatasetInfo):
        channels = info.image_shape[2]
        self._sums, self._squares, self._num_images = np.zeros(channels), np.zeros(channels), 0
        self._min, self._max = 255, 0
        self._black_image = np.zeros(info.image_shape, np.uint8)
        self._rows: list[list[np.ndarray]] = [[] for _ in info.class_names[:_MAX_ROWS]]

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
        for label, row in enumerate(self._rows):
            row.extend(images[labels == label][: _COLUMNS - len(row)])

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

    def contact_sheet(self) -> np.ndarray:
        """Returns a grid, uint8 [height, width, C], with one row per class, padded with black images."""
        rows = [[*row, *[self._black_image] * (_COLUMNS - len(row))] for row in self._rows]
        return tile(np.stack([image for row in rows for image in row]), _COLUMNS)
