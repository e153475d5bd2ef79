"""Decodes image files of the documented formats to pixels of one size, by fixed rules. Needs only Pillow.

- The format is detected from the content of a file, not from its name. Only the decoders of `FORMATS` are used.
- The EXIF orientation is applied. The first frame of an animation is used.
- Sizes are checked before memory is taken.
- `pixels` converts the pixels.

Shapes: `H W C` height, width and channels.
"""

import contextlib
import io
import mmap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from trainer.data.prepare.contents import (
    Content,
    TemporaryCopy,
    check_system,
    digest_content,
    digest_file,
    open_content,
)
from trainer.data.prepare.pixels import Target, check_dimensions, fit_to_target, is_gray
from trainer.errors import ConfigError, DataError, FilteredImageError, TrainerError, escape
from trainer.image_io import MAX_PIXELS, MAX_SIDE

FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".pbm", ".pgm", ".ppm", ".pnm"),
}
"""Names that Pillow gives to the formats that are read, and the suffixes of their files."""
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


_MARKS_OF_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Bytes of which a PNG with an orientation contains at least one."""
_SCALES = (8, 4, 2)
"""Factors by which the decoder of JPEG can shrink an image."""
_SCALES_OF_GRAY = {"L;2": 85, "L;4": 17}
"""Factors by which Pillow multiplies the values of gray PNGs of 2 and 4 bits."""
_START_OF_SCAN = b"\xff\xda"
_MAX_SCANS = 100
"""Number of scans of a JPEG that is rejected. A progressive JPEG has about ten; each one is a pass over all pixels."""
_MAX_COMMENTS = 1000
"""Number of comments of a plain PNM that is rejected. Pillow copies up to a MiB to remove each one."""


_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "jpeg": {"subsampling": "4:4:4"},  # colors have the same resolution as brightness
    "webp": {"method": 4, "exact": True},  # colors below transparent pixels stay
}
"""Options of Pillow for encodings. JPEGs are baseline: the other kinds fail for images of much noise."""


class Encoded(NamedTuple):
    """Result of `encode`."""

    image: bytes | None
    """Image in the encoding of the target; None for an unusable image."""
    shape: tuple[int, ...]
    """Shape (H, W, C); empty for an unusable image."""
    max_value: int
    """Largest pixel value in [0, 255]."""
    problem: str
    """Problem of an unusable image. It completes a sentence that begins with the image's name."""
    is_filtered: bool = False
    """True if a filter of the user leaves out the image."""
    digest: bytes = b""
    """Result of `digest_content` for the content; empty if it cannot be read."""
    has_more_frames: bool = False
    """True if the file has further frames or pages, which are not used."""


def decode(
    content: bytes | Path | TemporaryCopy,
    target: Target,
    reserve: Callable[[int], object] = lambda num_pixels: None,
    formats: tuple[str, ...] = _SUPPORTED_FORMATS,
) -> Image.Image:
    """Decodes and resizes one image.

    Args:
        content: Bytes or path of a file in one of `FORMATS`.
        target: Format of the result.
        reserve: Function that is called with the number of pixels before their memory is taken. It may wait.
        formats: Keys of `FORMATS` that are accepted.

    Returns:
        An image in 8-bit gray, RGB or RGBA.

    Raises:
        DataError: If the image cannot be used. The message completes a sentence that begins with the image's name.
        StorageError: If the system cannot read the file, which may be intact.
    """
    with _explain_damage(content, formats), open_content(content) as file:
        return _decode(file, target, reserve, formats)[0]


def _decode(
    file: BinaryIO,
    target: Target,
    reserve: Callable[[int], object],
    formats: tuple[str, ...] = _SUPPORTED_FORMATS,
) -> tuple[Image.Image, bool]:
    """Returns the image in a file as `decode` does, and whether the file has further frames."""
    opened = picture = _open_picture(file, formats)
    size = _size_in_header(picture, file) if target.limits_size else None
    if size is not None:
        check_dimensions(*size, target)
    num_pixels = picture.width * picture.height
    if picture.format in ("JPEG", "MPO") and target.height and target.resize != "none":
        _shrink_while_decoding(picture, target)
    if not picture.info.get("progressive"):  # libjpeg keeps all coefficients of a progressive JPEG
        num_pixels = picture.width * picture.height
    reserve(num_pixels * _MEMORY_OF_FORMAT.get(str(picture.format), 1))
    picture = _load_upright(picture)
    if size is None:
        check_dimensions(*picture.size, target)
    return fit_to_target(picture, target), _has_more_frames(opened, file)


def encode(
    target: Target, content: Content | DataError, reserve: Callable[[int], object] = lambda num_pixels: None
) -> Encoded:
    """Encodes an image in the target format.

    Args:
        target: Format of the result.
        content: Image, or the error of reading it.
        reserve: As for `decode`.

    Raises:
        StorageError: As `decode`.
    """
    digest, has_more_frames = b"", False
    try:
        with _explain_damage(content):
            if isinstance(content, DataError):
                raise content
            if isinstance(content, np.ndarray):
                digest = digest_content(content)
                check_dimensions(content.shape[1], content.shape[0], target)
                reserve(content.shape[0] * content.shape[1])
                picture = fit_to_target(_from_array(content), target)
            else:
                with open_content(content) as file:
                    digest = digest_file(file)  # of the same open file as the pixels, also if it is replaced meanwhile
                    picture, has_more_frames = _decode(file, target, reserve)
            picture.info = {}  # the result contains only pixels
            buffer = io.BytesIO()
            picture.save(buffer, target.encoding, **_save_options(target))
    except DataError as error:
        return Encoded(None, (), 0, str(error), isinstance(error, FilteredImageError), digest)
    shape = (picture.height, picture.width, target.channels)
    max_value = int(np.max(picture.getextrema()))
    return Encoded(buffer.getvalue(), shape, max_value, "", digest=digest, has_more_frames=has_more_frames)


def _save_options(target: Target) -> dict[str, Any]:
    """Returns the options with which Pillow encodes images."""
    options = _SAVE_OPTIONS.get(target.encoding, {})
    return options if target.quality is None else options | {"quality": target.quality}


def check_encoder(encoding: str) -> None:
    """Checks that Pillow was built with an encoder.

    Raises:
        ConfigError: If it was not.
    """
    if encoding.upper() not in Image.SAVE:
        raise ConfigError(f"encoding={encoding} is not a part of this Pillow; install Pillow with {encoding} support.")


def read_shape(content: Content) -> tuple[int, int, int]:
    """Returns the shape (H, W, C) of a decoded image before resizing: C is 1 for gray, else 3, also with alpha.

    Only the header is read, except for PNGs with EXIF data, which may be at the end.

    Args:
        content: Image.

    Raises:
        DataError, StorageError: As `decode`.
    """
    if isinstance(content, np.ndarray):
        return content.shape[0], content.shape[1], 1 if content.shape[2] == 1 else 3
    with _explain_damage(content), open_content(content) as file:
        picture = _open_picture(file)
        width, height = _size_in_header(picture, file) or _load_upright(picture).size
        return height, width, 1 if is_gray(picture) else 3


def _from_array(array: np.ndarray) -> Image.Image:
    _check_size(array.shape[1], array.shape[0])
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def _count(file: BinaryIO, mark: bytes, limit: int) -> int:
    """Returns how often some bytes occur in a file, up to a limit."""
    with contextlib.ExitStack() as stack:
        content: bytes | mmap.mmap
        if isinstance(file, io.BytesIO):
            content = file.getvalue()
        else:
            content = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        count, start = 0, -1
        while count < limit and (start := content.find(mark, start + 1)) >= 0:
            count += 1
        return count


def _open_picture(file: BinaryIO, formats: tuple[str, ...] = _SUPPORTED_FORMATS) -> Image.Image:
    picture = Image.open(file, formats=formats)
    _check_size(picture.width, picture.height)
    if picture.format in ("JPEG", "MPO") and _count(file, _START_OF_SCAN, _MAX_SCANS) == _MAX_SCANS:
        raise DataError(f"is a JPEG of {_MAX_SCANS} or more scans, which takes long to decode; save it again")
    if picture.tile and picture.tile[0][0] == "ppm_plain" and _count(file, b"#", _MAX_COMMENTS) == _MAX_COMMENTS:
        raise DataError(f"is a PNM of {_MAX_COMMENTS:,} or more comments, which takes long to decode; save it again")
    if picture.format == "PNG" and "transparency" in picture.info:
        _correct_transparency(picture)
    return picture


def _correct_transparency(picture: Image.Image) -> None:
    """Scales the transparent value of a PNG like its pixels, which Pillow does not do.

    Raises:
        DataError: If Pillow reduces the pixels to 8 bits, so that they cannot be compared with the transparent color.
    """
    raw_mode = picture.tile[0].args  # type: ignore[attr-defined]  # of every file, before its pixels are loaded
    if raw_mode == "RGB;16B":
        raise DataError("has 16 bits per channel and a transparent color; save it with 8 bits or with an alpha channel")
    picture.info["transparency"] = picture.info["transparency"] * _SCALES_OF_GRAY.get(raw_mode, 1)


def _has_more_frames(picture: Image.Image, file: BinaryIO) -> bool:
    """Returns whether a file has several frames or pages. The other pictures of an MPO are previews of the first one.

    Args:
        picture: Image as it was opened.
        file: File of the image.
    """
    if picture.format != "GIF":
        return picture.format != "MPO" and bool(getattr(picture, "is_animated", False))
    try:
        with Image.open(file, formats=["GIF"]) as gif:
            return bool(gif.is_animated)  # looks for a second frame, which moves the file
    except Exception:  # a file that is damaged after its first frame raises exceptions of several types
        return False


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(f"has {width} × {height} pixels, more than {MAX_PIXELS:,}; make it smaller")
    if max(width, height) > MAX_SIDE:
        raise DataError(f"has {width} × {height} pixels, more than {MAX_SIDE:,} on one side; make it smaller")


@contextlib.contextmanager
def _explain_damage(content: Content | DataError, formats: tuple[str, ...] = _SUPPORTED_FORMATS) -> Iterator[None]:
    """Converts every exception of a decoder to DataError, and ignores warnings. Errors of the system stay errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the size, which is checked here, and about odd metadata
            yield
    except TrainerError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"is not an image in one of the formats {', '.join(formats)}; convert it") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"has more than {MAX_PIXELS:,} pixels; make it smaller") from error
    except MemoryError as error:
        raise DataError("needs more memory than is available; make it smaller") from error
    except Exception as error:  # the decoders raise exceptions of any type for damaged files
        check_system(error, getattr(content, "path", content if isinstance(content, Path) else "an image"))
        reason = escape(error)[:80] or type(error).__name__
        raise DataError(f"cannot be decoded ({reason}); it is damaged or truncated") from error


def _size_in_header(picture: Image.Image, file: BinaryIO) -> tuple[int, int] | None:
    """Returns the width and height after the EXIF orientation is applied, without loading the pixels.

    None: a PNG with EXIF data, which may be after the pixels.
    """
    if picture.format == "PNG":
        return None if any(_count(file, mark, 1) for mark in _MARKS_OF_EXIF) else picture.size
    return picture.size[::-1] if _is_rotated(picture) else picture.size


def _load_upright(picture: Image.Image) -> Image.Image:
    """Loads the pixels and applies the EXIF orientation."""
    picture.load()
    transposition = _TRANSPOSITIONS.get(_orientation(picture))
    return picture if transposition is None else picture.transpose(transposition)


def _is_rotated(picture: Image.Image) -> bool:
    """Returns whether the EXIF orientation exchanges width and height of a picture that is not loaded yet."""
    return _orientation(picture) >= 5 and picture.format != "TIFF"  # its reader has exchanged them


def _orientation(picture: Image.Image) -> int:
    """Returns the EXIF orientation in [1, 8]. Other values, and values of another type, mean 1."""
    orientation = picture.getexif().get(ExifTags.Base.Orientation)
    return orientation if isinstance(orientation, int) and orientation in _TRANSPOSITIONS else 1


def _shrink_while_decoding(picture: Image.Image, target: Target) -> None:
    """Makes the decoder shrink a JPEG by up to 8 on each side, but not below twice the target size."""
    width, height = int(target.width or 0) * (1 if target.side is None else 2), int(target.height or 0)
    divided = picture.width
    if _is_rotated(picture):
        width, height, divided = height, width, picture.height
    most = min(picture.width // (2 * width), picture.height // (2 * height))
    for scale in _SCALES:
        if scale <= most and (target.side is None or divided % (2 * scale) == 0):  # both halves have whole pixels
            picture.draft(None, (picture.width // scale, picture.height // scale))
            return
