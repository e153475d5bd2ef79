"""Conversion of pixels to 8-bit gray, RGB or RGBA of one size.

- Transparent pixels are placed on white, unless there is a fourth channel, which is straight alpha.
- Palettes are expanded, CMYK is converted to RGB, and 16 bits become 8.
- For one channel, color is converted to ITU-R 601-2 luma. For three channels, gray is repeated.
- Resizing is antialiased (Lanczos), of transparent pixels in proportion to their alpha.

Images of many pixels are converted in bands, so that intermediate results take little memory.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from trainer.data.image_encodings import PNG
from trainer.errors import DataError, FilteredImageError
from trainer.image_io import place_on_white

CONVERSION_VERSION = 4
"""Version of the conversion. Increase it with every change of the pixels of any image, so that no dataset mixes two."""
RESIZES = ("crop", "fit", "stretch", "none")
_GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
_DEPTHS_OF_16_BITS = ("I;16", "I;16B", "I;16L", "I")
_BAND_PIXELS = 2**20


@dataclass(frozen=True)
class Target:
    """Format of the decoded images.

    Attributes:
        height: Height in pixels; None keeps the size of each image.
        width: Width in pixels; None keeps the size of each image.
        channels: Number of channels, 1, 3 or 4.
        resize: `crop` scales the image to cover the target and crops the center; `fit` scales it to fit inside, on
            black; `stretch` scales both sides independently; `none` accepts only images of the target size.
        bits: Number of bits that the pixel values use, in [1, 16]: values up to `2 ** bits - 1` become values up to
            255. None: all bits of the file, 8 or 16.
        allows_constant: True if images whose pixels are all equal are accepted.
        side: Half of each file to use, `left` or `right`. None: all of it.
        min_side: Smallest side in pixels, before resizing, of the images to use. None: no limit.
        max_aspect_ratio: Largest ratio of the longer to the shorter side of the images to use. None: no limit.
        encoding: Encoding of the results: a key of `image_encodings.ENCODINGS`.
        quality: Quality of a lossy encoding, in [1, 100]. None: the encoding is lossless.
    """

    height: int | None
    width: int | None
    channels: int
    resize: str
    bits: int | None = None
    allows_constant: bool = False
    side: str | None = None
    min_side: int | None = None
    max_aspect_ratio: float | None = None
    encoding: str = PNG
    quality: int | None = None

    @property
    def limits_size(self) -> bool:
        """True if `check_dimensions` does not accept images of every size."""
        return self.resize == "none" or self.min_side is not None or self.max_aspect_ratio is not None


def check_dimensions(width: int, height: int, target: Target) -> None:
    """Checks the size of an image after its EXIF orientation is applied, if possible before its pixels are decoded.

    Raises:
        FilteredImageError: If the target leaves out images of this size.
        DataError: If the target accepts only its own size, which is another one.
    """
    part_width = width if target.side is None else width // 2
    shorter, longer = sorted((part_width, height))
    if target.min_side is not None and shorter < target.min_side:
        raise FilteredImageError(f"is {height}×{width}, and --min_side={target.min_side} leaves out smaller images")
    if target.max_aspect_ratio is not None and longer > target.max_aspect_ratio * shorter:
        raise FilteredImageError(
            f"is {height}×{width}, and --max_aspect_ratio={target.max_aspect_ratio:g} leaves out longer images"
        )
    if target.resize == "none" and not _has_size(part_width, height, target):
        raise _wrong_size(part_width, height, target)


def fit_to_target(picture: Image.Image, target: Target) -> Image.Image:
    """Converts a loaded image to the target's channels and size. Rejects constant images unless they are allowed."""
    if target.side is not None:
        picture = half_of(picture, target.side)
    picture = _resize(_convert_mode(picture, target), target)
    low, high = np.transpose(picture.getextrema())  # per channel
    if np.all(low == high) and not target.allows_constant:
        raise DataError("has the same value in every pixel, which no model can learn from")
    return picture


def half_of(picture: Image.Image, side: str) -> Image.Image:
    """Returns the `left` or `right` half of an image."""
    width, height = picture.size
    if width % 2:
        raise DataError(f"is {width} pixels wide, which are not two halves of the same width; correct or remove it")
    return picture.crop((0, 0, width // 2, height) if side == "left" else (width // 2, 0, width, height))


def is_gray(picture: Image.Image) -> bool:
    """Returns whether an image is gray, from its mode or its palette."""
    if picture.mode == "P":
        palette = np.asarray(picture.getpalette("RGB")).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return picture.mode in _GRAY_MODES


def _convert_mode(picture: Image.Image, target: Target) -> Image.Image:
    """Converts an image to 8-bit gray, RGB or RGBA."""
    bits = None if target.bits == 8 or picture.mode == "1" else target.bits
    if picture.mode in _DEPTHS_OF_16_BITS:
        maximum, transparent = 2 ** (target.bits or 16) - 1, picture.info.get("transparency")
        mode = "LA" if target.channels == 4 and transparent is not None else "L"
        convert = functools.partial(_from_16_bits, mode=mode, maximum=maximum, transparent=transparent)
        return _map_bands(picture, mode, convert).convert(_mode(target))
    if picture.mode == "F":
        raise DataError("has floating-point pixels, whose range is unknown; save it with 8 or 16 bits")
    if picture.mode == "LAB":  # Pillow converts it only to RGB
        picture = picture.convert("RGB")
    if picture.has_transparency_data and target.channels != 4:
        picture, bits = _map_bands(picture, "RGB", functools.partial(_place_on_white, bits=bits)), None
    if picture.mode != _mode(target):
        picture = picture.convert(_mode(target))
    return picture if bits is None else _from_fewer_bits(picture, bits)


def _place_on_white(picture: Image.Image, bits: int | None) -> Image.Image:
    """Places an image on white, after its values were scaled: white is 255 with any number of bits."""
    return place_on_white(picture if bits is None else _from_fewer_bits(picture.convert("RGBA"), bits))


def _mode(target: Target) -> str:
    return {1: "L", 3: "RGB", 4: "RGBA"}[target.channels]


def _map_bands(picture: Image.Image, mode: str, function: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Applies a function to bands of an image, so that intermediate results take little memory."""
    result = Image.new(mode, picture.size)
    num_rows = max(1, _BAND_PIXELS // picture.width)
    for top in range(0, picture.height, num_rows):
        box = (0, top, picture.width, min(top + num_rows, picture.height))
        result.paste(function(picture.crop(box)), box)
    return result


def _from_16_bits(picture: Image.Image, mode: str, maximum: int, transparent: int | None) -> Image.Image:
    """Scales the values of a gray image, as gray on white (`L`) or with alpha (`LA`).

    Args:
        picture: Gray image.
        mode: Mode of the result.
        maximum: Largest value.
        transparent: Value of transparent pixels, which may exceed the largest one. None: there are none.
    """
    values = np.asarray(picture).astype(np.int64)
    is_visible = values != (-1 if transparent is None else transparent)
    visible = values[is_visible] if transparent is not None else values
    low, high = visible.min(initial=maximum), visible.max(initial=0)
    if low < 0 or high > maximum:
        raise DataError(
            f"has values from {low} to {high}, expected 0 to {maximum}; save it with 8 or 16 bits, or correct --bits"
        )
    gray = _scale(np.minimum(values, maximum), maximum)
    if mode == "LA":
        return Image.fromarray(np.stack([gray, np.where(is_visible, 255, 0).astype(np.uint8)], axis=-1), "LA")
    return Image.fromarray(np.where(is_visible, gray, 255).astype(np.uint8))


def _scale(values: np.ndarray, maximum: int) -> np.ndarray:
    """Returns integers in [0, maximum] as the nearest ones in [0, 255], uint8 of the same shape."""
    return ((values * 255 + maximum // 2) // maximum).astype(np.uint8)


def _from_fewer_bits(picture: Image.Image, bits: int) -> Image.Image:
    """Scales the values of a gray, RGB or RGBA image, except alpha. Invisible pixels may have any values."""
    maximum, pixels = 2**bits - 1, np.asarray(picture)
    largest = int((pixels[..., :3] * (pixels[..., 3:] > 0) if picture.mode == "RGBA" else pixels).max())
    if bits > 8:
        raise DataError(f"has 8 bits per channel, or is in color, where only 8 bits are read; omit --bits={bits}")
    if largest > maximum:
        raise DataError(f"has values up to {largest}, but --bits={bits} states {maximum}; correct or omit --bits")
    table = _scale(np.minimum(np.arange(256), maximum), maximum).tolist()
    return picture.point(table * 3 + [*range(256)] if picture.mode == "RGBA" else table * len(picture.mode))


def _resize(picture: Image.Image, target: Target) -> Image.Image:
    if _has_size(picture.width, picture.height, target):
        return picture
    if target.resize == "none" or target.height is None or target.width is None:
        raise _wrong_size(picture.width, picture.height, target)
    size = (target.width, target.height)
    match target.resize:
        case "crop":
            return ImageOps.fit(_shrink(picture, size), size, Image.Resampling.LANCZOS)
        case "fit":
            return ImageOps.pad(_shrink(picture, size), size, Image.Resampling.LANCZOS, color=0)
    return _shrink(picture, size).resize(size, Image.Resampling.LANCZOS)


def _has_size(width: int, height: int, target: Target) -> bool:
    return target.width in (None, width) and target.height in (None, height)


def _wrong_size(width: int, height: int, target: Target) -> DataError:
    return DataError(
        f"is {height}×{width}, expected {target.height or 'any'}×{target.width or 'any'}; resize it, or pass "
        "--image_size=H,W and --resize=crop, fit or stretch"
    )


def _shrink(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Shrinks a large image by an integer factor to at least twice `size`, which makes resampling much faster."""
    factor = min(picture.width // size[0], picture.height // size[1]) // 2
    return picture.reduce(factor) if factor > 1 else picture
