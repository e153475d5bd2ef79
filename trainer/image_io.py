"""Images as files: grids and animations."""

import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from trainer.storage import write_atomically

_GAP = 2
_MAX_FRAME_PIXELS = 2**20


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Images row by row in one picture, with thin gaps.

    Args:
        images: uint8 [N, H, W, C], [N, H, W] or flat [N, D] of square images.
        columns: Images a row.

    Returns:
        uint8 [rows*H + gaps, columns*W + gaps, C].
    """
    if images.ndim == 2:
        side = round(images.shape[1] ** 0.5)
        images = images.reshape(-1, side, side)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    step_y, step_x = height + _GAP, width + _GAP
    grid = np.full((rows * step_y + _GAP, columns * step_x + _GAP, channels), 48, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * step_y + _GAP, index % columns * step_x + _GAP
        grid[top : top + height, left : left + width] = image
    return grid


def png(grid: np.ndarray) -> bytes:
    """A picture uint8 [H, W, 1 or 3] as a PNG file holds it."""
    buffer = io.BytesIO()
    Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid).save(buffer, "PNG")
    return buffer.getvalue()


def save_grid(path: Path, grid: np.ndarray) -> None:
    """Writes a picture uint8 [H, W, 1 or 3] as PNG, whole or not at all."""
    write_atomically(path, png(grid))


def save_animation(path: Path, frames: Sequence[tuple[str, Path]], *, frame_ms: int = 400) -> None:
    """Writes an endless GIF of pictures, each under its caption; the last one stays for two seconds.

    One picture is in memory at a time, and one of more than a megapixel is made smaller.
    """
    buffer = io.BytesIO()
    durations = [frame_ms] * (len(frames) - 1) + [2000]
    captioned = itertools.starmap(_captioned, frames)
    next(captioned).save(buffer, "GIF", save_all=True, append_images=captioned, duration=durations, loop=0)
    write_atomically(path, buffer.getvalue())


def _captioned(caption: str, source: Path) -> Image.Image:
    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    scale = math.sqrt(_MAX_FRAME_PIXELS / (picture.width * picture.height))
    if scale < 1:
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    frame = Image.new("RGB", (picture.width, picture.height + 16), (16, 16, 16))
    frame.paste(picture, (0, 16))
    ImageDraw.Draw(frame).text((4, 2), caption, fill=(240, 240, 240))
    return frame
