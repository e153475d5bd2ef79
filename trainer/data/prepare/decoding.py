"""Decodes image files of any kind to pixels of one size, by fixed rules. Needs only Pillow.

- The format is detected from the content of a file, not from its name.
- The EXIF orientation is applied. The first frame of an animation is used.
- Transparent pixels are placed on white. Palettes are expanded, CMYK is converted to RGB, and 16 bits become 8.
- For one channel, color is converted to ITU-R 601-2 luma. For three channels, gray is repeated.
- Resizing is antialiased (Lanczos).

Shapes: `H W C` height, width and channels.
"""

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from trainer.errors import DataError

RESIZES = ("crop", "fit", "stretch", "none")
MAX_PIXELS = 64_000_000
"""Maximum number of pixels of an image. Larger images are rejected after their header is read."""
_WHITE = (255, 255, 255, 255)
_GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
_DEPTHS_OF_16_BITS = ("I;16", "I;16B", "I;16L", "I")

Content = bytes | Path | np.ndarray
"""Image as the bytes of a file, the path of a file, or pixels uint8 [H, W, C]."""

Image.init()


@dataclass(frozen=True)
class Target:
    """Format of the decoded images.

    Attributes:
        height: Height in pixels; None keeps the size of each image.
        width: Width in pixels; None keeps the size of each image.
        channels: Number of channels, 1 or 3.
        resize: `crop` scales the image to cover the target and crops the center; `fit` scales it to fit inside, on
            black; `stretch` scales both sides independently; `none` accepts only images of the target size.
    """

    height: int | None
    width: int | None
    channels: int
    resize: str


def decode(content: bytes, target: Target) -> Image.Image:
    """Decodes and resizes one image.

    Args:
        content: Bytes of a file in any format that Pillow reads.
        target: Format of the result.

    Returns:
        An image in 8-bit gray or RGB.

    Raises:
        DataError: If the image cannot be used. The message completes a sentence that begins with the image's name.
    """
    picture = _open(content)
    with _explain_damage():
        if picture.format == "JPEG" and target.height and target.resize != "none":
            _shrink_while_decoding(picture, target)
        picture.load()
        if _orientation(picture) != 1:
            picture = ImageOps.exif_transpose(picture)
    return _fit_to_target(picture, target)


def encode_all(
    target: Target, contents: Sequence[Content | DataError]
) -> list[tuple[bytes | None, tuple[int, int, int] | str]]:
    """Encodes images as PNGs in the target format.

    Args:
        target: Format of the results.
        contents: Images, or the errors of reading them.

    Returns:
        The PNG and the shape (H, W, C) of each image; None and the problem for an unusable image.
    """
    return [_encode(target, content) for content in contents]


def read_shape(content: bytes) -> tuple[int, int, int]:
    """Returns the shape (H, W, C) of a decoded image before resizing.

    Only the header is read, except for images with a palette and for PNGs, whose EXIF data may be at the end.

    Args:
        content: Bytes of a file in any format that Pillow reads.

    Raises:
        DataError: As `decode`.
    """
    picture = _open(content)
    width, height = picture.size
    with _explain_damage():
        if _is_rotated(picture):
            width, height = height, width
        return height, width, 1 if _is_gray(picture) else 3


def _encode(target: Target, content: Content | DataError) -> tuple[bytes | None, tuple[int, int, int] | str]:
    try:
        if isinstance(content, DataError):
            raise content
        if isinstance(content, Path):
            content = _read_file(content)
        if isinstance(content, bytes):
            picture = decode(content, target)
        else:
            picture = _fit_to_target(_from_array(content), target)
    except DataError as error:
        return None, str(error)
    picture.info = {}  # the PNG contains only pixels
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue(), (picture.height, picture.width, target.channels)


def _fit_to_target(picture: Image.Image, target: Target) -> Image.Image:
    """Converts a loaded image to the target's channels and size. Rejects an image whose pixels are all equal."""
    picture = _resize(_convert_mode(picture, target.channels), target)
    low, high = np.transpose(picture.getextrema())  # per channel
    if np.all(low == high):
        raise DataError("has the same value in every pixel, which no model can learn from")
    return picture


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from error


def _from_array(array: np.ndarray) -> Image.Image:
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def _open(content: bytes) -> Image.Image:
    if not content:
        raise DataError("is empty; delete it or copy it again")
    try:
        with warnings.catch_warnings(), _explain_damage():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is lower
            picture = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:
        raise DataError("is not an image, or has a format that Pillow cannot read") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"has more than {MAX_PIXELS:,} pixels; make it smaller") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise DataError(f"has {picture.width} × {picture.height} pixels, more than {MAX_PIXELS:,}; make it smaller")
    return picture


@contextlib.contextmanager
def _explain_damage() -> Iterator[None]:
    """Converts the errors that Pillow raises for damaged files to DataError."""
    try:
        yield
    except UnidentifiedImageError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise DataError(f"cannot be decoded ({error}); it is damaged or truncated") from error


def _is_rotated(picture: Image.Image) -> bool:
    """Returns whether the EXIF orientation exchanges width and height."""
    return _orientation(picture) >= 5


def _orientation(picture: Image.Image) -> int:
    return picture.getexif().get(ExifTags.Base.Orientation, 1)


def _shrink_while_decoding(picture: Image.Image, target: Target) -> None:
    """Makes the JPEG decoder shrink the image by up to 8 on each side, but not below twice the target size."""
    width, height = int(target.width or 0), int(target.height or 0)
    if _is_rotated(picture):
        width, height = height, width
    picture.draft(None, (2 * width, 2 * height))


def _is_gray(picture: Image.Image) -> bool:
    if picture.mode == "P":
        palette = np.asarray(picture.getpalette("RGB")).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return picture.mode in _GRAY_MODES


def _convert_mode(picture: Image.Image, channels: int) -> Image.Image:
    """Converts an image to 8-bit gray or RGB."""
    if picture.mode in _DEPTHS_OF_16_BITS:
        picture = _from_16_bits(picture)
    if picture.mode == "F":
        raise DataError("has floating-point pixels, whose range is unknown; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        opaque = Image.new("RGBA", picture.size, _WHITE)
        opaque.alpha_composite(picture.convert("RGBA"))
        picture = opaque
    mode = "L" if channels == 1 else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def _from_16_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(
            f"has values from {values.min()} to {values.max()}, more than 16 bits; save it with 8 or 16 bits"
        )
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _resize(picture: Image.Image, target: Target) -> Image.Image:
    if target.height is None or target.width is None or picture.size == (target.width, target.height):
        return picture
    size = (target.width, target.height)
    match target.resize:
        case "none":
            raise DataError(
                f"is {picture.height}×{picture.width}, expected {target.height}×{target.width}; resize it with "
                "--image_size=H,W and --resize=crop, fit or stretch"
            )
        case "crop":
            return ImageOps.fit(_shrink(picture, size), size, Image.Resampling.LANCZOS)
        case "fit":
            return ImageOps.pad(_shrink(picture, size), size, Image.Resampling.LANCZOS, color=0)
    return _shrink(picture, size).resize(size, Image.Resampling.LANCZOS)


def _shrink(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Shrinks a large image by an integer factor to at least twice `size`, which makes resampling much faster."""
    factor = min(picture.width // size[0], picture.height // size[1]) // 2
    return picture.reduce(factor) if factor > 1 else picture
