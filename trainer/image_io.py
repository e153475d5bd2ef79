"""Writes images to files: grids and animations."""

import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from trainer.storage import write_atomically

_GAP = 2
_CAPTION_HEIGHT = 16
_LAST_FRAME_MS = 2000
_MAX_FRAME_PIXELS = 2**20


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Arranges images in a grid, row by row, with thin gaps.

    Args:
        images: uint8 [N, H, W, C], [N, H, W], or [N, D] for flattened square gray images.
        columns: Number of images per row.

    Returns:
        uint8 [rows * (H + gap) + gap, columns * (W + gap) + gap, C].
    """
    if images.ndim == 2:
        side = round(images.shape[1] ** 0.5)
        images = images.reshape(-1, side, side)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    num_images, height, width, channels = images.shape
    rows = -(-num_images // columns)
    step_y, step_x = height + _GAP, width + _GAP
    grid = np.full((rows * step_y + _GAP, columns * step_x + _GAP, channels), 48, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * step_y + _GAP, index % columns * step_x + _GAP
        grid[top : top + height, left : left + width] = image
    return grid


def png(image: np.ndarray) -> bytes:
    """Returns an image uint8 [H, W, 1 or 3] as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def save_grid(path: Path, grid: np.ndarray) -> None:
    """Writes a grid uint8 [H, W, 1 or 3] as a PNG file, completely or not at all."""
    write_atomically(path, png(grid))


def save_animation(path: Path, frames: Sequence[tuple[str, Path]], *, frame_ms: int = 400) -> None:
    """Writes an endless GIF of images with captions.

    Only one image is in memory at a time. Images of more than a megapixel are reduced.

    Args:
        path: GIF file to write.
        frames: Caption and file of each image.
        frame_ms: Duration of each frame in milliseconds. The last frame is shown for two seconds.
    """
    buffer = io.BytesIO()
    durations = [frame_ms] * (len(frames) - 1) + [_LAST_FRAME_MS]
    images = itertools.starmap(_make_frame, frames)
    next(images).save(buffer, "GIF", save_all=True, append_images=images, duration=durations, loop=0)
    write_atomically(path, buffer.getvalue())


def _make_frame(caption: str, source: Path) -> Image.Image:
    with Image.open(source) as file:
        image = file.convert("RGB")
    scale = math.sqrt(_MAX_FRAME_PIXELS / (image.width * image.height))
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)))
    frame = Image.new("RGB", (image.width, image.height + _CAPTION_HEIGHT), (16, 16, 16))
    frame.paste(image, (0, _CAPTION_HEIGHT))
    ImageDraw.Draw(frame).text((4, 2), caption, fill=(240, 240, 240))
    return frame
