"""Says what a data set holds: `python -m trainer inspect --dataset=data/photos --contact_sheet=photos.png`."""

from typing import Any

import numpy as np
from absl import flags as absl_flags

from trainer.cli import app
from trainer.data import DatasetInfo, describe
from trainer.image_io import png, tile
from trainer.logging import print_json, quiet_import

_USAGE = """Says what a data set holds: counts, shape, classes, and the pixels of its first images, or of all of them.

  python -m trainer inspect --dataset=NAME|DIRECTORY|gs://BUCKET/NAME [--verify] [--contact_sheet=FILE.png]
"""
_COLUMNS = 10
_MOST_ROWS = 20


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("dataset", None, "As --dataset of trainer.task.", required=True, flag_values=values)
    absl_flags.DEFINE_bool(
        "verify", False, "Read every image and compare every checksum, not only the first shard's.", flag_values=values
    )
    absl_flags.DEFINE_string(
        "contact_sheet", None, "Contact sheet to write, local or gs://: a .png, ten images a class.", flag_values=values
    )


def act(values: absl_flags.FlagValues) -> None:
    """Prints what is found as JSON, and writes the sheet."""
    sheet = (
        app.file_to_write("contact_sheet", values.contact_sheet, {".png": "a .png"}) if values.contact_sheet else None
    )
    with quiet_import():
        from trainer.data.loading import blocks

    info = describe(values.dataset)
    pixels = _Pixels(info)
    for images, labels in blocks(values.dataset):
        pixels.add(images, labels)
        if not values.verify:
            break
    if sheet is not None:
        sheet.write_bytes(png(pixels.sheet()))
    print_json(_told(info, pixels, values.verify))


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    return app.run(argv, _USAGE, define, act)


def _told(info: DatasetInfo, pixels: "_Pixels", verified: bool) -> dict[str, Any]:
    return {
        "name": info.name,
        "num_examples": info.num_examples,
        "image_shape": list(info.image_shape),
        "classes": dict(zip(info.class_names, info.class_counts, strict=True)),
        "mib_in_memory": round(info.num_examples * float(np.prod(info.image_shape)) / 2**20, 1),
        "verified": verified,
        "pixels": pixels.statistics(),
    }


class _Pixels:
    """What was seen of the pixels so far."""

    def __init__(self, info: DatasetInfo):
        channels = info.image_shape[2]
        self._sums, self._squares, self._seen = np.zeros(channels), np.zeros(channels), 0
        self._low, self._high = 255, 0
        self._empty = np.zeros(info.image_shape, np.uint8)
        self._shown: list[list[np.ndarray]] = [[] for _ in info.class_names[:_MOST_ROWS]]

    def add(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Takes images uint8 [N, H, W, C] and labels [N]."""
        self._seen += len(images)
        counts = [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(images.shape[3])]
        values = np.arange(256, dtype=np.float64)
        self._sums += np.stack(counts) @ values
        self._squares += np.stack(counts) @ values**2
        self._low, self._high = min(self._low, int(images.min())), max(self._high, int(images.max()))
        for label, row in enumerate(self._shown):
            row.extend(images[labels == label][: _COLUMNS - len(row)])

    def statistics(self) -> dict[str, Any]:
        """Mean and standard deviation of each channel, and the range, in [0, 255]."""
        pixels = self._seen * self._empty[..., 0].size
        mean = self._sums / pixels
        deviation = np.sqrt(np.maximum(0.0, self._squares / pixels - mean**2))
        return {
            "images": self._seen,
            "mean": mean.round(2).tolist(),
            "standard_deviation": deviation.round(2).tolist(),
            "range": [self._low, self._high],
        }

    def sheet(self) -> np.ndarray:
        """A row a class, black where it has no more images: uint8 [height, width, C]."""
        rows = [[*row, *[self._empty] * (_COLUMNS - len(row))] for row in self._shown]
        return tile(np.stack([image for row in rows for image in row]), _COLUMNS)
