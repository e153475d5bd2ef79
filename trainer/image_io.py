"""Limits of the size of images, and functions that write images to files: grids and animations."""

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from trainer.storage import write_atomically

MAX_PIXELS = 64_000_000
"""Maximum number of pixels of an image. Larger images are rejected after their header is read."""
MAX_SIDE = 2**16
"""Maximum width and height in pixels. Pillow allocates some memory for every row."""
_GAP = 2
_CAPTION_HEIGHT = 16
_SQUARE = 4
_BOARD_GRAYS = 204.0, 255.0
_FRAME_MS, _LAST_FRAME_MS = 400, 2000
_MAX_FRAME_PIXELS = 2**20
_MIN_CELL_WIDTH, _MAX_CELL_SIDE = 64, 256
_MAX_GRID_PIXELS = 2 * MAX_PIXELS
"""More than a grid of 10 x 10 images of 1024 x 1024 pixels."""


def place_on_white(picture: Image.Image) -> Image.Image:
    """Returns an image with transparency as opaque RGB on white."""
    opaque = Image.new("RGBA", picture.size, "white")
    opaque.alpha_composite(picture.convert("RGBA"))
    return opaque.convert("RGB")


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Arranges images in a grid, row by row, with thin gaps.

    Args:
        images: uint8 [N, H, W, C], [N, H, W], or [N, D]: flattened square gray images, or rows of pixels if D is no
            square number. Images with alpha (C = 4) are placed on a checkerboard.
        columns: Number of images per row.

    Returns:
        uint8 [rows * (H + gap) + gap, columns * (W + gap) + gap, C], with C of 1 or 3.
    """
    if images.ndim == 2:
        side = math.isqrt(images.shape[1])
        height = side if side**2 == images.shape[1] else 1
        images = images.reshape(len(images), height, -1)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.shape[-1] == 4:
        images = over_checkerboard(images)
    num_images, height, width, channels = images.shape
    rows = -(-num_images // columns)
    step_y, step_x = height + _GAP, width + _GAP
    grid = np.full((rows * step_y + _GAP, columns * step_x + _GAP, channels), 48, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * step_y + _GAP, index % columns * step_x + _GAP
        grid[top : top + height, left : left + width] = image
    return grid


def as_color(images: np.ndarray) -> np.ndarray:
    """Returns images uint8 [..., 1, 3 or 4] as color images [..., 3], with alpha over a checkerboard."""
    if images.shape[-1] == 4:
        return over_checkerboard(images)
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def over_checkerboard(images: np.ndarray) -> np.ndarray:
    """Returns images with straight alpha, uint8 [..., H, W, 4], over squares of two grays: uint8 [..., H, W, 3]."""
    alpha = images[..., 3:].astype(np.float32) / 255.0
    return np.rint(images[..., :3] * alpha + checkerboard(*images.shape[-3:-1]) * (1.0 - alpha)).astype(np.uint8)


def checkerboard(height: int, width: int) -> np.ndarray:
    """Returns squares of two grays: float32 [H, W, 1] in [0, 255]."""
    squares = np.add.outer(np.arange(height) // _SQUARE, np.arange(width) // _SQUARE) % 2
    return np.where(squares, *_BOARD_GRAYS).astype(np.float32)[..., np.newaxis]


def png(image: np.ndarray, text: Mapping[str, str] | None = None) -> bytes:
    """Returns an image uint8 [H, W, 1, 3 or 4] as the bytes of a PNG file.

    Args:
        image: Image.
        text: Texts by keyword, for the file. Keywords are ASCII.
    """
    buffer, info = io.BytesIO(), PngInfo()
    for name, value in (text or {}).items():
        info.add_itxt(name, value)
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def tile_with_captions(images: Sequence[np.ndarray], captions: Sequence[str], columns: int) -> np.ndarray:
    """Arranges images in a grid, row by row, each with a caption below it.

    Small images are enlarged by a whole factor, so that the captions fit. Large ones are reduced.

    Args:
        images: uint8 [H, W, C] each, C 1, 3 or 4. Images with alpha (C = 4) are placed on a checkerboard.
        captions: Caption of each image.
        columns: Number of images per row.

    Returns:
        uint8 [height, width, 3].
    """
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    side = max(height, width)
    factor = min(-(-_MIN_CELL_WIDTH // width), _MAX_CELL_SIDE // side)
    scale = factor if factor >= 1 else _MAX_CELL_SIDE / side
    step_y, step_x = round(height * scale) + _CAPTION_HEIGHT + _GAP, max(round(width * scale), _MIN_CELL_WIDTH) + _GAP
    rows = -(-len(images) // columns)
    grid = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), (16, 16, 16))
    draw = ImageDraw.Draw(grid)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = index % columns * step_x + _GAP, index // columns * step_y + _GAP
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        cell = Image.fromarray(as_color(image))
        grid.paste(cell.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS), (left, top))
        draw.text((left + 2, top + round(height * scale) + 2), caption, fill=(240, 240, 240))
    return np.asarray(grid)


def save_grid(path: Path, grid: np.ndarray) -> None:
    """Writes a grid uint8 [H, W, 1 or 3] as a PNG file, completely or not at all."""
    write_atomically(path, png(grid))


def save_animation(path: Path, frames: Sequence[tuple[str, Path]]) -> list[Path]:
    """Writes an endless GIF of grids with captions. If no grid can be read, it writes nothing.

    Grids are read one after the other, but Pillow keeps the frames in memory until the file is complete, so that images
    of more than a megapixel are reduced. All frames have the size of the first one. The last one is shown for two
    seconds.

    Args:
        path: GIF file to write.
        frames: Caption and PNG file of each grid.

    Returns:
        Files that cannot be read.
    """
    unreadable: list[Path] = []
    images = _make_frames(frames, unreadable)
    first = next(images, None)
    if first is not None:
        buffer = io.BytesIO()
        first.save(buffer, "GIF", save_all=True, append_images=images, loop=0)
        write_atomically(path, buffer.getvalue())
    return unreadable


def _make_frames(frames: Sequence[tuple[str, Path]], unreadable: list[Path]) -> Iterator[Image.Image]:
    """Yields the frames of an animation, and collects the files that cannot be read."""
    size = None
    for index, (caption, source) in enumerate(frames):
        frame = _make_frame(caption, source, size)
        if frame is None:
            unreadable.append(source)
            continue
        size = frame.size
        frame.info["duration"] = _FRAME_MS if index < len(frames) - 1 else _LAST_FRAME_MS
        yield frame


def _make_frame(caption: str, source: Path, size: tuple[int, int] | None) -> Image.Image | None:
    """Returns the frame of a grid, in this size if it is set; None if the grid cannot be read."""
    image = read_grid(source)
    if image is None:
        return None
    if size is None:
        scale = min(1.0, math.sqrt(_MAX_FRAME_PIXELS / (image.width * image.height)))
        size = round(image.width * scale), round(image.height * scale) + _CAPTION_HEIGHT
    frame = Image.new("RGB", size, (16, 16, 16))
    frame.paste(image.resize((size[0], size[1] - _CAPTION_HEIGHT)), (0, _CAPTION_HEIGHT))
    ImageDraw.Draw(frame).text((4, 2), caption, fill=(240, 240, 240))
    return frame


def read_grid(path: Path) -> Image.Image | None:
    """Returns the RGB image in a PNG file; None if it cannot be read or is too large to be a grid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # this function has its own limit
        try:
            with Image.open(path, formats=["PNG"]) as file:
                return None if file.width * file.height > _MAX_GRID_PIXELS else file.convert("RGB")
        except Exception:  # decoders raise exceptions of many types for damaged files
            return None
