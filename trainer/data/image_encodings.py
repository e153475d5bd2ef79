"""Encodings of the images in the records of prepared datasets: what they allow, and the headers of their images.

`prepare` writes images with Pillow, and `trainer.data.tfrecord_reader` decodes them with TensorFlow. The headers are
checked before, so that no memory is taken for an image of another shape.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from trainer.errors import ConfigError, DataError, count_of
from trainer.image_io import MAX_SIDE

PNG = "png"
"""Encoding of datasets that name none."""
DEFAULT_QUALITY = 95

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER_BYTES = 26
_PNG_CHANNELS = {0: 1, 2: 3, 6: 4}
"""Number of channels by color type."""
_COMPRESSED_TEXTS = (b"zTXt", b"iTXt")  # the decoder would expand a thousand of them in memory
_START_OF_JPEG = b"\xff\xd8"
_START_OF_BASELINE = 0xC0
_START_OF_SCAN = b"\xff\xda"
_WEBP_ALPHA = b"\x10"
"""Flags of a WebP with alpha, and without animation and metadata."""
_START_OF_VP8 = b"\x9d\x01\x2a"
_VP8_SIDE_MASK = 0x3FFF


class Header(NamedTuple):
    """Shape of an image as its header states it."""

    height: int
    width: int
    channels: tuple[int, ...]
    """Numbers of channels that the image can be decoded to. The first one is that of the file."""
    bits: int = 8
    """Number of bits per channel."""


@dataclass(frozen=True, kw_only=True)
class ImageEncoding:
    """An encoding of images.

    Attributes:
        form: Form of the images with an article, for messages.
        channels: Numbers of channels that images can have.
        max_side: Largest height and width in pixels.
        max_pixel_bytes_per_byte: Upper bound of the bytes of pixels that one byte of an image can contain.
        is_lossy: True if `prepare` takes a quality.
        read_header: Function that returns the header of an image; None if the image does not have this form. It raises
            a DataError like `check_image`.
    """

    form: str
    channels: tuple[int, ...]
    max_side: int
    max_pixel_bytes_per_byte: int
    is_lossy: bool
    read_header: Callable[[bytes], Header | None]


def check_image(image: bytes, encoding: str, shape: tuple[int, int, int]) -> None:
    """Checks the header of an image, without decoding it.

    Args:
        image: Encoded image.
        encoding: Key of `ENCODINGS`.
        shape: Expected shape, (H, W, C), with 8 bits per channel.

    Raises:
        DataError: If the image has another form or shape. The message completes a sentence that begins with its name.
    """
    header = ENCODINGS[encoding].read_header(image)
    if header is None:
        raise DataError(f"is not {ENCODINGS[encoding].form}")
    if (header.height, header.width) != shape[:2] or shape[2] not in header.channels or header.bits != 8:
        stated = [header.height, header.width, header.channels[0]]
        raise DataError(f"has the shape {stated} with {header.bits} bits, expected {list(shape)} with 8 bits")


def check_encodable(encoding: str, channels: int | None, height: int | None, width: int | None) -> None:
    """Checks that images of a shape have an encoding.

    Args:
        encoding: Key of `ENCODINGS`.
        channels: Number of channels. None: not known yet.
        height: Height in pixels. None: not known yet.
        width: Width in pixels. None: not known yet.

    Raises:
        ConfigError: If the encoding has no such images; the message names the encodings that have them.
    """
    side = max(height or 1, width or 1)

    def fits(form: ImageEncoding) -> bool:
        return (channels is None or channels in form.channels) and side <= form.max_side

    if not fits(ENCODINGS[encoding]):
        others = " or ".join(f"--encoding={name}" for name, form in ENCODINGS.items() if fits(form))
        received = f"a side of {side:,} pixels"
        if channels is not None and channels not in ENCODINGS[encoding].channels:
            received = count_of(channels, "channel")
        raise ConfigError(f"encoding={encoding} does not work with images that have {received}; use {others}.")


def _read_png(image: bytes) -> Header | None:
    header = image[:_PNG_HEADER_BYTES]
    if len(header) < _PNG_HEADER_BYTES or not header.startswith(_PNG_SIGNATURE):
        return None
    position = len(_PNG_SIGNATURE)
    while position < len(image):
        length, kind = int.from_bytes(image[position : position + 4], "big"), image[position + 4 : position + 8]
        if kind in _COMPRESSED_TEXTS:
            raise DataError("is a PNG with a compressed text, expected pixels only")
        position += length + 12
    width, height, bits, color_type = struct.unpack(">IIBB", header[16:])
    return Header(height, width, (_PNG_CHANNELS.get(color_type, 0),), bits)


def _read_jpeg(image: bytes) -> Header | None:
    """Returns the header of a baseline JPEG. Other kinds can have many scans, each of which is a pass over all pixels.

    Entropy-coded data has no marker of a scan.
    """
    if not image.startswith(_START_OF_JPEG) or image.count(_START_OF_SCAN) != 1:
        return None
    position = len(_START_OF_JPEG)
    while len(segment := image[position : position + 10]) == 10:
        start, kind, length = struct.unpack(">BBH", segment[:4])
        if kind == _START_OF_BASELINE:
            bits, height, width, channels = struct.unpack(">BHHB", segment[4:])
            return Header(height, width, (channels,), bits)
        if start != 0xFF:
            return None
        position += 2 + length
    return None


def _read_webp(image: bytes) -> Header | None:
    """Returns the header of a lossy WebP without animation and metadata.

    One without alpha can be decoded to gray, whose images are written as color, and to RGBA, whose alpha is left out if
    it is opaque.
    """
    if image[:4] != b"RIFF" or image[8:12] != b"WEBP":
        return None
    channels: tuple[int, ...] = (3, 1, 4)
    canvas: tuple[int, int] | None = None
    position = 12
    if image[12:16] == b"VP8X":
        if image[20:21] != _WEBP_ALPHA or image[30:34] != b"ALPH":
            return None
        channels = (4,)
        canvas = (int.from_bytes(image[24:27], "little") + 1, int.from_bytes(image[27:30], "little") + 1)
        alpha_bytes = int.from_bytes(image[34:38], "little")
        position = 38 + alpha_bytes + alpha_bytes % 2
    frame = image[position : position + 18]
    if len(frame) < 18 or frame[:4] != b"VP8 " or frame[11:14] != _START_OF_VP8:
        return None
    width, height = (side & _VP8_SIDE_MASK for side in struct.unpack("<HH", frame[14:]))
    return Header(height, width, channels) if canvas in (None, (width, height)) else None


ENCODINGS = {
    PNG: ImageEncoding(
        form="a PNG",
        channels=(1, 3, 4),
        max_side=MAX_SIDE,
        max_pixel_bytes_per_byte=1032,  # the largest ratio of deflate
        is_lossy=False,
        read_header=_read_png,
    ),
    "jpeg": ImageEncoding(
        form="a baseline JPEG of one scan",
        channels=(1, 3),
        max_side=65_500,  # the limit of libjpeg
        # 9 blocks of at least 2 bits contain 32 x 32 pixels of 3 channels, if chroma is subsampled as far as possible.
        max_pixel_bytes_per_byte=1366,
        is_lossy=True,
        read_header=_read_jpeg,
    ),
    "webp": ImageEncoding(
        form="a lossy WebP without animation",
        channels=(1, 3, 4),
        max_side=16_383,  # the limit of the format
        # The modes of a macroblock, 16 x 16 pixels of 4 channels, have fixed probabilities and take at least 3.4 bits.
        max_pixel_bytes_per_byte=2410,
        is_lossy=True,
        read_header=_read_webp,
    ),
}
"""Encodings by the name that `dataset.json` and `--encoding` have."""
