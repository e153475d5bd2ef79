"""Decodes image files of the documented formats to pixels of one size, by fixed rules. Needs only Pillow.

- The format is detected from the content of a file, not from its name. Only the decoders of `FORMATS` are used.
- The EXIF orientation is applied. The first frame of an animation is used.
- Transparent pixels are placed on white. Palettes are expanded, CMYK is converted to RGB, and 16 bits become 8.
- For one channel, color is converted to ITU-R 601-2 luma. For three channels, gray is repeated.
- Resizing is antialiased (Lanczos).
- Sizes are checked before memory is taken. Images of many pixels are converted in bands.

Shapes: `H W C` height, width and channels.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from trainer.data.prepare.regular_file import check_file_size, open_regular_file
from trainer.errors import DataError, escape

FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".pgm", ".ppm", ".pnm"),
}
"""Names that Pillow gives to the formats that are read, and the suffixes of their files."""
RESIZES = ("crop", "fit", "stretch", "none")
MAX_PIXELS = 64_000_000
"""Maximum number of pixels of an image. Larger images are rejected after their header is read."""
MAX_SIDE = 2**16
"""Maximum width and height in pixels. Pillow allocates some memory for every row."""
MAX_FILE_BYTES = 2**28
"""Maximum size of an image file in bytes, larger than 64 megapixels of RGB."""
_WHITE = (255, 255, 255, 255)
_GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
_DEPTHS_OF_16_BITS = ("I;16", "I;16B", "I;16L", "I")
_BAND_PIXELS = 2**20
_MEMORY_OF_FORMAT = {"WEBP": 2, "AVIF": 2}  # these decoders allocate images of their own
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition that undoes each EXIF orientation."""


Image.init()
_SUPPORTED_FORMATS = tuple(name for name in FORMATS if name in Image.OPEN)


class TemporaryCopy(NamedTuple):
    """A local copy of an image file, which is deleted when it is opened."""

    path: Path


Content = bytes | Path | TemporaryCopy | np.ndarray
"""Image as the bytes of a file, the path of a file, or pixels uint8 [H, W, C]."""


@dataclass(frozen=True)
class Target:
    """Format of the decoded images.

    Attributes:
        height: Height in pixels; None keeps the size of each image.
        width: Width in pixels; None keeps the size of each image.
        channels: Number of channels, 1 or 3.
        resize: `crop` scales the image to cover the target and crops the center; `fit` scales it to fit inside, on
            black; `stretch` scales both sides independently; `none` accepts only images of the target size.
        bits: Number of bits that the pixel values use, in [1, 16]: values up to `2 ** bits - 1` become values up to
            255. None: all bits of the file, 8 or 16.
    """

    height: int | None
    width: int | None
    channels: int
    resize: str
    bits: int | None = None


class Encoded(NamedTuple):
    """Result of `encode`."""

    png: bytes | None
    """The image as a PNG; None for an unusable image."""
    shape: tuple[int, ...]
    """Shape (H, W, C); empty for an unusable image."""
    max_value: int
    """Largest pixel value in [0, 255]."""
    problem: str
    """Problem of an unusable image. It completes a sentence that begins with the image's name."""


def decode(
    content: bytes | Path | TemporaryCopy, target: Target, reserve: Callable[[int], object] = lambda num_pixels: None
) -> Image.Image:
    """Decodes and resizes one image.

    Args:
        content: Bytes or path of a file in one of `FORMATS`.
        target: Format of the result.
        reserve: Function that is called with the number of pixels before their memory is taken. It may wait.

    Returns:
        An image in 8-bit gray or RGB.

    Raises:
        DataError: If the image cannot be used. The message completes a sentence that begins with the image's name.
    """
    with _explain_damage(), _open_file(content) as file:
        picture = _open_picture(file)
        num_pixels = picture.width * picture.height
        if target.height and target.resize != "none":
            _shrink_while_decoding(picture, target)
        if not picture.info.get("progressive"):  # libjpeg keeps all coefficients of a progressive JPEG
            num_pixels = picture.width * picture.height
        reserve(num_pixels * _MEMORY_OF_FORMAT.get(str(picture.format), 1))
        picture.load()
        transposition = _TRANSPOSITIONS.get(_orientation(picture))
        return _fit_to_target(picture if transposition is None else picture.transpose(transposition), target)


def encode(
    target: Target, content: Content | DataError, reserve: Callable[[int], object] = lambda num_pixels: None
) -> Encoded:
    """Encodes an image as a PNG in the target format.

    Args:
        target: Format of the result.
        content: Image, or the error of reading it.
        reserve: As for `decode`.
    """
    try:
        with _explain_damage():
            if isinstance(content, DataError):
                raise content
            if isinstance(content, np.ndarray):
                reserve(content.shape[0] * content.shape[1])
                picture = _fit_to_target(_from_array(content), target)
            else:
                picture = decode(content, target, reserve)
            picture.info = {}  # the PNG contains only pixels
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
    except DataError as error:
        return Encoded(None, (), 0, str(error))
    shape = (picture.height, picture.width, target.channels)
    return Encoded(buffer.getvalue(), shape, int(np.max(picture.getextrema())), "")


def read_shape(content: Content) -> tuple[int, int, int]:
    """Returns the shape (H, W, C) of a decoded image before resizing.

    Only the header is read, except for images with a palette and for PNGs, whose EXIF data may be at the end.

    Args:
        content: Image.

    Raises:
        DataError: As `decode`.
    """
    if isinstance(content, np.ndarray):
        return content.shape[0], content.shape[1], content.shape[2]
    with _explain_damage(), _open_file(content) as file:
        picture = _open_picture(file)
        width, height = picture.size
        if _is_rotated(picture):
            width, height = height, width
        return height, width, 1 if _is_gray(picture) else 3


def _fit_to_target(picture: Image.Image, target: Target) -> Image.Image:
    """Converts a loaded image to the target's channels and size. Rejects an image whose pixels are all equal."""
    picture = _resize(_convert_mode(picture, target), target)
    low, high = np.transpose(picture.getextrema())  # per channel
    if np.all(low == high):
        raise DataError("has the same value in every pixel, which no model can learn from")
    return picture


def _from_array(array: np.ndarray) -> Image.Image:
    _check_size(array.shape[1], array.shape[0])
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def _open_file(content: bytes | Path | TemporaryCopy) -> BinaryIO:
    if isinstance(content, bytes):
        check_file_size(len(content), MAX_FILE_BYTES)
        return io.BytesIO(content)
    file = open_regular_file(content if isinstance(content, Path) else content.path, MAX_FILE_BYTES)
    if isinstance(content, TemporaryCopy):
        content.path.unlink()
    return file


def _open_picture(file: BinaryIO) -> Image.Image:
    picture = Image.open(file, formats=_SUPPORTED_FORMATS)
    _check_size(picture.width, picture.height)
    return picture


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(f"has {width} × {height} pixels, more than {MAX_PIXELS:,}; make it smaller")
    if max(width, height) > MAX_SIDE:
        raise DataError(f"has {width} × {height} pixels, more than {MAX_SIDE:,} on one side; make it smaller")


@contextlib.contextmanager
def _explain_damage() -> Iterator[None]:
    """Converts every exception of a decoder to DataError, and ignores warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the size, which is checked here, and about odd metadata
            yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"is not an image in one of the formats {', '.join(_SUPPORTED_FORMATS)}; convert it") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"has more than {MAX_PIXELS:,} pixels; make it smaller") from error
    except MemoryError as error:
        raise DataError("needs more memory than is available; make it smaller") from error
    except Exception as error:  # the decoders raise exceptions of any type for damaged files
        reason = escape(error)[:80] or type(error).__name__
        raise DataError(f"cannot be decoded ({reason}); it is damaged or truncated") from error


def _is_rotated(picture: Image.Image) -> bool:
    """Returns whether the EXIF orientation exchanges width and height of a picture that is not loaded yet."""
    return _orientation(picture) >= 5 and picture.format != "TIFF"  # its reader has exchanged them


def _orientation(picture: Image.Image) -> int:
    """Returns the EXIF orientation in [1, 8]. Other values, and values of another type, mean 1."""
    orientation = picture.getexif().get(ExifTags.Base.Orientation)
    return orientation if isinstance(orientation, int) and orientation in _TRANSPOSITIONS else 1


def _shrink_while_decoding(picture: Image.Image, target: Target) -> None:
    """Makes the JPEG decoder shrink the image by up to 8 on each side, but not below twice the target size."""
    width, height = int(target.width or 0), int(target.height or 0)
    if _is_rotated(picture):
        width, height = height, width
    picture.draft(None, (2 * width, 2 * height))  # other decoders ignore it


def _is_gray(picture: Image.Image) -> bool:
    if picture.mode == "P":
        palette = np.asarray(picture.getpalette("RGB")).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return picture.mode in _GRAY_MODES


def _convert_mode(picture: Image.Image, target: Target) -> Image.Image:
    """Converts an image to 8-bit gray or RGB."""
    is_bilevel = picture.mode == "1"
    if picture.mode in _DEPTHS_OF_16_BITS:
        maximum = 2 ** (target.bits or 16) - 1
        return _map_bands(picture, "L", lambda band: _from_16_bits(band, maximum)).convert(_mode(target))
    if picture.mode == "F":
        raise DataError("has floating-point pixels, whose range is unknown; save it with 8 or 16 bits")
    if picture.mode == "LAB":  # Pillow converts it only to RGB
        picture = picture.convert("RGB")
    if picture.has_transparency_data:
        picture = _map_bands(picture, "RGB", _place_on_white)
    if picture.mode != _mode(target):
        picture = picture.convert(_mode(target))
    return picture if target.bits in (None, 8) or is_bilevel else _from_fewer_bits(picture, target.bits)


def _mode(target: Target) -> str:
    return "L" if target.channels == 1 else "RGB"


def _map_bands(picture: Image.Image, mode: str, function: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Applies a function to bands of an image, so that intermediate results take little memory."""
    result = Image.new(mode, picture.size)
    num_rows = max(1, _BAND_PIXELS // picture.width)
    for top in range(0, picture.height, num_rows):
        box = (0, top, picture.width, min(top + num_rows, picture.height))
        result.paste(function(picture.crop(box)), box)
    return result


def _place_on_white(picture: Image.Image) -> Image.Image:
    opaque = Image.new("RGBA", picture.size, _WHITE)
    opaque.alpha_composite(picture.convert("RGBA"))
    return opaque.convert("RGB")


def _from_16_bits(picture: Image.Image, maximum: int) -> Image.Image:
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > maximum:
        raise DataError(
            f"has values from {values.min()} to {values.max()}, expected 0 to {maximum}; save it with 8 or 16 bits, "
            "or correct --bits"
        )
    return Image.fromarray(((values * 255 + maximum // 2) // maximum).astype(np.uint8))


def _from_fewer_bits(picture: Image.Image, bits: int) -> Image.Image:
    maximum, found = 2**bits - 1, int(np.max(picture.getextrema()))
    if bits > 8 or found > maximum:
        raise DataError(
            f"has 8 bits per channel and values up to {found}, which do not fit --bits={bits} (0 to {maximum}); "
            "correct or omit --bits"
        )
    return picture.point(
        [value * 255 // maximum if value <= maximum else 0 for value in range(256)] * len(picture.mode)
    )


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
