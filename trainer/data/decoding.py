"""From the bytes of any picture to pixels of one size: every kind of file by a stated rule. Needs Pillow alone.

- What a file is, its content says, not its name.
- It is turned upright as its EXIF orientation says. Of an animation the first frame is taken.
- Transparent pixels are put on white. Palettes are looked up, CMYK is converted, 16 bits a channel become 8.
- Colour becomes grey by ITU-R 601-2 luma where one channel is asked for; grey is repeated where three are.
- Resizing is antialiased (Lanczos).

Shapes: `H W C` height, width and channels.
"""

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from trainer.errors import DataError

RESIZES = ("crop", "fit", "stretch", "none")
MAX_PIXELS = 64_000_000
"""Pixels that an image may have; of one that has more nothing but the header is read."""
_WHITE = (255, 255, 255, 255)
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
_DEPTHS_OF_16_BITS = ("I;16", "I;16B", "I;16L", "I")

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


def decode(content: bytes, target: Target) -> np.ndarray:
    """Decodes and resizes one image.

    Args:
        content: Of a file, in any format that Pillow reads.
        target: What it becomes.

    Returns:
        uint8 [H, W, C] in [0, 255].

    Raises:
        DataError: What is wrong with the image: the end of a sentence that begins with its name.
    """
    picture = _opened(content)
    with _damage_told():
        if picture.format == "JPEG" and target.height and target.resize != "none":
            _shrink_while_decoding(picture, target)
        picture.load()
        picture = ImageOps.exif_transpose(picture)
    return pixels(picture, target)


def pixels(picture: Image.Image, target: Target) -> np.ndarray:
    """A loaded picture as uint8 [H, W, C].

    Raises:
        DataError: It has another size and is not to be resized, or all its pixels are the same.
    """
    array = np.asarray(_resized(_converted(picture, target.channels), target))
    if (array == array[0, 0]).all():
        raise DataError("has the same value in every pixel, which no model can learn from")
    return array.reshape(*array.shape[:2], target.channels)


def encode_all(
    target: Target, contents: Sequence[bytes | np.ndarray | DataError]
) -> list[tuple[bytes | None, tuple[int, int, int] | str]]:
    """Files, or pixels uint8 [H, W, C], as PNGs of the target's size, with their shapes; None and what is wrong with
    one that cannot be used."""
    return [_encode(target, content) for content in contents]


def shape_of(content: bytes) -> tuple[int, int, int]:
    """(H, W, C) of an image as `decode` would leave it without a target; from its header alone.

    Raises:
        DataError: as `decode`.
    """
    picture = _opened(content)
    width, height = picture.size
    with _damage_told():
        if _is_turned(picture):
            width, height = height, width
    return height, width, 1 if _is_grey(picture) else 3


def _encode(target: Target, content: bytes | np.ndarray | DataError) -> tuple[bytes | None, tuple[int, int, int] | str]:
    if isinstance(content, DataError):
        return None, str(content)
    try:
        array = decode(content, target) if isinstance(content, bytes) else pixels(_as_picture(content), target)
    except DataError as error:
        return None, str(error)
    buffer = io.BytesIO()
    _as_picture(array).save(buffer, "PNG")
    height, width, channels = array.shape
    return buffer.getvalue(), (height, width, channels)


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
    return picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5


def _shrink_while_decoding(picture: Image.Image, target: Target) -> None:
    """Lets the JPEG decoder leave out what resizing would average away: an eighth to a half of each side, never below
    twice the target."""
    width, height = int(target.width or 0), int(target.height or 0)
    if _is_turned(picture):
        width, height = height, width
    picture.draft(None, (2 * width, 2 * height))


def _is_grey(picture: Image.Image) -> bool:
    if picture.mode == "P":
        palette = np.asarray(picture.getpalette("RGB")).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return picture.mode in _GREY_MODES


def _converted(picture: Image.Image, channels: int) -> Image.Image:
    """The picture as 8-bit grey or RGB."""
    if picture.mode in _DEPTHS_OF_16_BITS:
        picture = _from_16_bits(picture)
    if picture.mode == "F":
        raise DataError("holds floating-point pixels, whose range is not known; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        opaque = Image.new("RGBA", picture.size, _WHITE)
        opaque.alpha_composite(picture.convert("RGBA"))
        picture = opaque
    return picture.convert("L" if channels == 1 else "RGB")


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
            return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
        case "fit":
            return ImageOps.pad(picture, size, Image.Resampling.LANCZOS, color=0)
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
