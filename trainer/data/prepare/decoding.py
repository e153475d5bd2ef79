"""From the bytes of any picture to pixels of one size: every kind of file by a stated rule. Needs Pillow alone.

- What a file is, its content says, not its name.
- It is turned upright as its EXIF orientation says. Of an animation the first frame is taken.
- Transparent pixels are put on white. Palettes are looked up, CMYK is converted, 16 bits a channel become 8.
- Color becomes gray by ITU-R 601-2 luma where one channel is asked for; gray is repeated where three are.
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
"""Pixels that an image may have; of one that has more nothing but the header is read."""
_WHITE = (255, 255, 255, 255)
_GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
_DEPTHS_OF_16_BITS = ("I;16", "I;16B", "I;16L", "I")

Content = bytes | Path | np.ndarray
"""A picture: what its file holds, or the file, or pixels uint8 [H, W, C]."""

Image.init()


@dataclass(frozen=True)
class Target:
    """What every image becomes.

    Attributes:
        height: H; None leaves the size as it is.
        width: W.
        channels: C, 1 or 3.
        resize: `crop` scales until the image covers the target and cuts its middle out; `fit` scales until it fits in,
            on black; `stretch` scales each side; `none` takes images of that size alone.
    """

    height: int | None
    width: int | None
    channels: int
    resize: str


def decode(content: bytes, target: Target) -> Image.Image:
    """Decodes and resizes one image.

    Args:
        content: Of a file, in any format that Pillow reads.
        target: What it becomes.

    Returns:
        A picture of 8-bit gray or RGB.

    Raises:
        DataError: What is wrong with the image: the end of a sentence that begins with its name.
    """
    picture = _opened(content)
    with _damage_told():
        if picture.format == "JPEG" and target.height and target.resize != "none":
            _shrink_while_decoding(picture, target)
        picture.load()
        if _orientation(picture) != 1:
            picture = ImageOps.exif_transpose(picture)
    return _fitted(picture, target)


def encode_all(
    target: Target, contents: Sequence[Content | DataError]
) -> list[tuple[bytes | None, tuple[int, int, int] | str]]:
    """Pictures as PNGs of the target's size, with their shapes; None and what is wrong with one that cannot be used."""
    return [_encode(target, content) for content in contents]


def shape_of(content: bytes) -> tuple[int, int, int]:
    """(H, W, C) of an image as `decode` would leave it without a target.

    From its header alone, but for an image with a palette and a PNG whose EXIF may come last: these are decoded.

    Raises:
        DataError: as `decode`.
    """
    picture = _opened(content)
    width, height = picture.size
    with _damage_told():
        if _is_turned(picture):
            width, height = height, width
        return height, width, 1 if _is_gray(picture) else 3


def _encode(target: Target, content: Content | DataError) -> tuple[bytes | None, tuple[int, int, int] | str]:
    try:
        if isinstance(content, DataError):
            raise content
        if isinstance(content, Path):
            content = _content_of(content)
        picture = decode(content, target) if isinstance(content, bytes) else _fitted(_as_picture(content), target)
    except DataError as error:
        return None, str(error)
    picture.info = {}  # nothing but pixels
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue(), (picture.height, picture.width, target.channels)


def _fitted(picture: Image.Image, target: Target) -> Image.Image:
    """A loaded picture in the target's channels and size; refuses one whose pixels are all the same."""
    picture = _resized(_converted(picture, target.channels), target)
    low, high = np.transpose(picture.getextrema())  # of each channel
    if np.all(low == high):
        raise DataError("has the same value in every pixel, which no model can learn from")
    return picture


def _content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from error


def _as_picture(array: np.ndarray) -> Image.Image:
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise DataError("is empty; delete it or copy it again")
    try:
        with warnings.catch_warnings(), _damage_told():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            picture = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:
        raise DataError("is not an image, or of a kind that Pillow cannot read") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"has more than {MAX_PIXELS:,} pixels; make it smaller") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise DataError(f"has {picture.width} × {picture.height} pixels, more than {MAX_PIXELS:,}; make it smaller")
    return picture


@contextlib.contextmanager
def _damage_told() -> Iterator[None]:
    """What Pillow raises of damaged files, as half a sentence."""
    try:
        yield
    except UnidentifiedImageError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise DataError(f"cannot be decoded ({error}); it is damaged or cut short") from error


def _is_turned(picture: Image.Image) -> bool:
    """Whether its EXIF orientation makes its width its height."""
    return _orientation(picture) >= 5


def _orientation(picture: Image.Image) -> int:
    return picture.getexif().get(ExifTags.Base.Orientation, 1)


def _shrink_while_decoding(picture: Image.Image, target: Target) -> None:
    """Lets the JPEG decoder leave out what resizing would average away: an eighth to a half of each side, never below
    twice the target."""
    width, height = int(target.width or 0), int(target.height or 0)
    if _is_turned(picture):
        width, height = height, width
    picture.draft(None, (2 * width, 2 * height))


def _is_gray(picture: Image.Image) -> bool:
    if picture.mode == "P":
        palette = np.asarray(picture.getpalette("RGB")).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return picture.mode in _GRAY_MODES


def _converted(picture: Image.Image, channels: int) -> Image.Image:
    """The picture as 8-bit gray or RGB."""
    if picture.mode in _DEPTHS_OF_16_BITS:
        picture = _from_16_bits(picture)
    if picture.mode == "F":
        raise DataError("holds floating-point pixels, whose range is not known; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        opaque = Image.new("RGBA", picture.size, _WHITE)
        opaque.alpha_composite(picture.convert("RGBA"))
        picture = opaque
    mode = "L" if channels == 1 else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def _from_16_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"holds values from {values.min()} to {values.max()}, more than 16 bits; save it with 8 or 16")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _resized(picture: Image.Image, target: Target) -> Image.Image:
    if target.height is None or target.width is None or picture.size == (target.width, target.height):
        return picture
    size = (target.width, target.height)
    match target.resize:
        case "none":
            raise DataError(
                f"is {picture.height}×{picture.width} where {target.height}×{target.width} is asked for; choose how to "
                "resize with --image_size=H,W and --resize=crop, fit or stretch"
            )
        case "crop":
            return ImageOps.fit(_nearer(picture, size), size, Image.Resampling.LANCZOS)
        case "fit":
            return ImageOps.pad(_nearer(picture, size), size, Image.Resampling.LANCZOS, color=0)
    return _nearer(picture, size).resize(size, Image.Resampling.LANCZOS)


def _nearer(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A large picture shrunk by a whole factor, by plain averages, to no less than twice the size: what is left for
    the resampling costs a fraction."""
    factor = min(picture.width // size[0], picture.height // size[1]) // 2
    return picture.reduce(factor) if factor > 1 else picture
