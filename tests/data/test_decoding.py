"""Decoding of image files by the documented rules."""

import functools
import io
import os
import resource
import socket
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin
from refusals import check_refusal

from trainer.data.prepare import contents, decoding, pixels
from trainer.data.prepare.decoding import read_shape
from trainer.data.prepare.pixels import Target
from trainer.data.prepare.sources.base import IMAGE_SUFFIXES
from trainer.errors import DataError, FilteredImageError

RED, GREEN = (200, 30, 40), (10, 180, 60)
AS_IT_IS = Target(None, None, 3, "none")
GRAY = Target(None, None, 1, "none")


def halves(mode="RGB", left=RED, right=GREEN, size=(8, 6)):
    """Returns an image of two colors side by side."""
    picture = Image.new(mode, size, left)
    picture.paste(right, (size[0] // 2, 0, *size))
    return picture


def as_file(picture, kind="PNG", **settings):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


def decode(content, target):
    """Returns the pixels of a file: uint8 [H, W, C]."""
    picture = decoding.decode(content, target)
    return np.asarray(picture).reshape(picture.height, picture.width, target.channels)


def sides(array):
    """Returns the colors of the left and the right edge."""
    return tuple(map(int, array[0, 0])), tuple(map(int, array[0, -1]))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_lossless_formats_keep_their_pixels(kind):
    assert sides(decode(as_file(halves(), kind), AS_IT_IS)) == (RED, GREEN)


def test_lossy_formats_almost_keep_their_pixels():
    for content in (
        as_file(halves(size=(32, 32)), "JPEG", quality=95),
        as_file(halves(size=(32, 32)), "WEBP", quality=95),
    ):
        assert np.abs(np.subtract(sides(decode(content, AS_IT_IS)), (RED, GREEN))).max() < 20


def test_the_content_determines_the_format():
    assert read_shape(as_file(halves(), "PNG")) == (6, 8, 3)


def test_gray_is_repeated_and_color_becomes_luma():
    gray = halves("L", 20, 220)
    assert sides(decode(as_file(gray), AS_IT_IS)) == ((20,) * 3, (220,) * 3)
    assert decode(as_file(gray), GRAY).shape == (6, 8, 1)
    luma = decode(as_file(halves()), GRAY)
    assert luma[0, 0, 0] == round(0.299 * 200 + 0.587 * 30 + 0.114 * 40) and luma.shape == (6, 8, 1)
    assert (read_shape(as_file(gray))[2], read_shape(as_file(halves()))[2]) == (1, 3)


def test_transparent_pixels_are_placed_on_white():
    clear = halves("RGBA", (*RED, 255), (*GREEN, 0))
    assert sides(decode(as_file(clear), AS_IT_IS)) == (RED, (255, 255, 255))
    half = halves("LA", (0, 255), (0, 128))
    assert sides(decode(as_file(half), GRAY)) == ((0,), (127,))
    palette = halves().quantize(4)
    first = palette.getpixel((0, 0))
    assert sides(decode(as_file(palette, transparency=first), AS_IT_IS))[0] == (255, 255, 255)


def png_with_transparency(bits, color_type, pixels, transparent):
    """Returns a PNG of one row with a transparent value. `pixels` are its bytes."""
    width = 8 * len(pixels) // (bits * (3 if color_type == 2 else 1))
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, 1, bits, color_type, 0, 0, 0),
        b"tRNS": struct.pack(f">{len(transparent)}H", *transparent),
        b"IDAT": zlib.compress(b"\0" + pixels),
        b"IEND": b"",
    }
    parts = (struct.pack(">I", len(data)) + kind + data + crc(kind + data) for kind, data in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def crc(data):
    return struct.pack(">I", zlib.crc32(data))


@pytest.mark.parametrize(
    ("bits", "color_type", "pixels", "transparent", "expected"),
    [
        (1, 0, b"\x80", [0], [255, 0, 0, 0, 0, 0, 0, 0]),
        (2, 0, b"\x1b", [2], [255, 255, 0, 255]),
        (4, 0, b"\x05\x5f", [5], [255, 0, 0, 255]),
        (8, 0, b"\0\5\x55", [5], [255, 0, 255]),
        (16, 0, b"\0\5\5\0", [5], [0, 255]),
        (8, 2, b"\1\2\3\1\2\4", [1, 2, 3], [0, 255]),
    ],
)
def test_the_transparent_value_of_a_png_is_one_of_its_pixels_with_any_bits(
    bits, color_type, pixels, transparent, expected
):
    content = png_with_transparency(bits, color_type, pixels, transparent)
    assert decode(content, Target(None, None, 4, "none"))[0, :, 3].tolist() == expected


def test_a_transparent_color_that_is_not_compared_with_all_bits_is_refused():
    content = png_with_transparency(16, 2, bytes(range(12)), [1, 0x0203, 0x0405])
    check_refusal(lambda: decode(content, AS_IT_IS), DataError, "16 bits")
    check_refusal(lambda: read_shape(content), DataError, "16 bits")


def test_palettes_are_expanded_and_distinguish_gray_from_color():
    assert sides(decode(as_file(halves().quantize(4)), AS_IT_IS)) == (RED, GREEN)
    assert read_shape(as_file(halves().quantize(4))) == (6, 8, 3)
    assert read_shape(as_file(halves("L", 20, 220).convert("P"))) == (6, 8, 1)


def test_cmyk_and_black_and_white_are_converted():
    content = as_file(halves("CMYK", (0, 0, 0, 0), (0, 0, 0, 255), size=(16, 16)), "TIFF")
    assert sides(decode(content, AS_IT_IS)) == ((255,) * 3, (0,) * 3)
    assert sides(decode(as_file(halves("1", 1, 0)), GRAY)) == ((255,), (0,))


def test_sixteen_bits_become_eight():
    values = np.repeat(np.array([[0, 257, 32768, 65535]], np.uint16), 2, axis=0)
    array = decode(as_file(Image.fromarray(values)), GRAY)
    assert array[0, :, 0].tolist() == [0, 1, 128, 255]
    assert read_shape(as_file(Image.fromarray(values))) == (2, 4, 1)


def test_the_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° clockwise
    content = as_file(halves(), exif=exif)
    assert read_shape(content) == (8, 6, 3)
    array = decode(content, AS_IT_IS)
    assert array.shape == (8, 6, 3) and tuple(array[0, 0]) == RED and tuple(array[-1, 0]) == GREEN
    small = decode(as_file(halves(size=(640, 320)), "JPEG", exif=exif), Target(64, 32, 3, "stretch"))
    assert small.shape == (64, 32, 3)


def test_an_image_of_another_size_is_refused_before_its_pixels_are_decoded():
    def reserve(num_pixels):
        raise AssertionError("the pixels are decoded")

    target = Target(6, 7, 3, "none")
    check_refusal(lambda: decoding.decode(as_file(halves()), target, reserve), DataError, "6×8", "6×7")
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = as_file(halves(), exif=exif)
    assert decode(rotated, Target(8, 6, 3, "none")).shape == (8, 6, 3)
    check_refusal(lambda: decode(rotated, Target(6, 8, 3, "none")), DataError, "8×6")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_sizes_are_checked_after_the_orientation_is_applied(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    tall, wide = (as_file(halves(size=size), kind, exif=exif) for size in ((20, 40), (40, 20)))  # 20x40 and 40x20
    target = functools.partial(Target, 8, 8, 3, "crop", allows_constant=True)
    for settings, accepted, refused in (
        ({"side": "left", "min_side": 20}, tall, wide),
        ({"side": "right", "max_aspect_ratio": 1.5}, tall, wide),
        ({"min_side": 20}, wide, None),
    ):
        assert decode(accepted, target(**settings)).shape == (8, 8, 3)
        if refused is not None:
            check_refusal(lambda: decode(refused, target(**settings)), FilteredImageError, "40×20")  # noqa: B023


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_a_rotated_image_of_another_size_is_refused_before_its_pixels_are_decoded(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    content, reserved = as_file(halves(), kind, exif=exif), []
    check_refusal(lambda: decoding.decode(content, Target(6, 8, 3, "none"), reserved.append), DataError, "8×6")
    assert reserved == []


def test_the_first_frame_of_an_animation_is_used():
    frames = [halves(), halves(left=GREEN, right=RED)]
    for kind in ("GIF", "WEBP", "PNG"):
        content = as_file(
            frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert sides(decode(content, AS_IT_IS)) == (RED, GREEN)


@pytest.mark.parametrize(
    ("resize", "edges"),
    [("crop", (RED, GREEN)), ("stretch", (RED, GREEN)), ("fit", ((0, 0, 0), (0, 0, 0)))],
)
def test_images_are_resized_by_the_selected_method(resize, edges):
    wide = halves(size=(40, 10))
    array = decode(as_file(wide), Target(8, 8, 3, resize))
    assert array.shape == (8, 8, 3) and sides(array) == edges
    if resize == "fit":  # two rows in the center, on black
        assert [bool(row.any()) for row in array] == [False] * 3 + [True] * 2 + [False] * 3
    if resize == "crop":  # the edge between the colors stays in the center
        assert np.abs(np.subtract(array[4, [2, 5]], (RED, GREEN), dtype=int)).max() < 10


def test_resizing_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    stripes[0, 0] = 7
    array = decode(as_file(Image.fromarray(stripes)), Target(8, 8, 3, "stretch"))
    assert abs(float(array[2:-2, 2:-2].mean()) - 127.5) < 3 and array[2:-2, 2:-2].std() < 3


@pytest.mark.parametrize("name", decoding.FORMATS)
def test_every_documented_format_is_decoded(name):
    content = as_file(halves(size=(32, 32)), name)
    assert np.abs(np.subtract(sides(decode(content, AS_IT_IS)), (RED, GREEN))).max() < 40
    assert read_shape(content) == (32, 32, 3)


def test_the_documentation_lists_the_suffixes_that_are_read():
    page = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    assert all(f"`{suffix}`" in page for suffix in IMAGE_SUFFIXES)
    assert {".png", ".apng", ".jpe", ".jfif", ".avif"} < set(IMAGE_SUFFIXES)


OTHER_FORMATS = (
    *("EPS", "ICO", "PCX", "DDS", "SGI", "SPIDER", "TGA", "MSP", "XBM", "ICNS", "BLP", "JPEG2000", "QOI", "DIB"),
    *("PDF", "PALM"),
)


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_other_formats_are_refused_whatever_their_name(name, tmp_path, monkeypatch):
    mode = {"SPIDER": "F", "MSP": "1", "XBM": "1", "BLP": "P", "PALM": "P"}.get(name, "RGB")
    content = as_file(halves(size=(32, 32)).convert(mode), name)
    monkeypatch.setattr(subprocess, "Popen", None)  # Pillow runs Ghostscript for PostScript
    (tmp_path / "cat.png").write_bytes(content)
    for source in (content, tmp_path / "cat.png"):
        check_refusal(lambda source=source: decoding.decode(source, AS_IT_IS), DataError)
        check_refusal(lambda source=source: read_shape(source), DataError)


def exif(kind, count, value):
    """Returns an EXIF block of one entry: the orientation, with any TIFF type, count and value."""
    return b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHI", 0x0112, kind, count) + value.ljust(4, b"\0") + bytes(4)


ORIENTATIONS = {
    "bytes": (1, 1, b"\x06"),
    "text": (2, 2, b"6"),
    "zero": (3, 1, b"\0"),
    "nine": (3, 1, b"\x09"),
    "99": (3, 1, b"\x63"),
    "undefined": (7, 1, b"\x06"),
    "negative": (8, 1, b"\xff\xff"),
    "fraction": (5, 1, b"\0\0\0\0"),
    "float": (11, 1, struct.pack("<f", 6.0)),
    "NaN": (11, 1, struct.pack("<f", np.nan)),
    "missing": (3, 0, b""),
}


@pytest.mark.parametrize("key", ORIENTATIONS)
@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP"])
def test_an_odd_orientation_is_ignored(name, key):
    content = as_file(halves(size=(32, 16)), name, exif=exif(*ORIENTATIONS[key]))
    assert read_shape(content) == decode(content, AS_IT_IS).shape == (16, 32, 3)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP"])
def test_the_first_of_several_orientations_is_applied(name):
    content = as_file(halves(size=(32, 16)), name, exif=exif(3, 2, b"\6\0\1\0"))
    assert read_shape(content) == decode(content, AS_IT_IS).shape == (32, 16, 3)


@pytest.mark.parametrize(("kind", "value"), [(1, b"\6"), (2, "6"), (3, 0), (3, 99), (7, b"\6")])
def test_an_odd_orientation_of_a_tiff_is_ignored(kind, value):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[0x0112] = kind
    tags[0x0112] = value
    content = as_file(halves(size=(32, 16)), "TIFF", tiffinfo=tags)
    assert read_shape(content) == decode(content, AS_IT_IS).shape == (16, 32, 3)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_once(name, orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    content = as_file(halves(size=(64, 32)), name, exif=block)
    array = decode(content, AS_IT_IS)
    expected = (64, 32, 3) if orientation >= 5 else (32, 64, 3)
    assert read_shape(content) == array.shape == expected
    is_swapped = orientation in (2, 3, 7, 8)
    assert np.abs(np.subtract(array[0, 0], GREEN if is_swapped else RED, dtype=int)).max() < 40


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["LAB", "CMYK", "YCbCr", "1", "P", "PA", "LA", "RGBA", "I;16", "I", "L"])
def test_every_mode_of_a_tiff_is_converted(mode, channels):
    color = {"LAB": (200, 10, 30), "I": 60000, "I;16": 60000, "1": 1, "L": 200, "P": 1, "PA": (1, 255), "LA": (9, 255)}
    first = color.get(mode, (*RED, 90)[: len(Image.new(mode, (1, 1)).getbands())])
    picture = halves(mode, first, 0 if isinstance(first, int) else (0,) * len(first))
    if mode == "PA":
        picture = halves("P", 1, 0)
        picture.putpalette([*GREEN, *RED])
    elif mode == "P":
        picture.putpalette([*GREEN, *RED])
    target = Target(None, None, channels, "none")
    assert decode(as_file(picture, "TIFF"), target).shape == (6, 8, channels)


def test_any_exception_of_a_decoder_is_a_bad_image(monkeypatch):
    content = as_file(halves())
    for error in (
        TypeError("a"),
        KeyError("b"),
        AssertionError(),
        RecursionError("c"),
        MemoryError(),
        OverflowError("d\n"),
    ):

        def load(self, error=error):
            raise error

        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
        check_refusal(lambda: decoding.decode(content, AS_IT_IS), DataError)
        assert decoding.encode(AS_IT_IS, content).image is None


def png_of_chunks(size, *chunks):
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    parts = [(b"IHDR", header), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


ZEROS = zlib.compress(bytes(2**28), 9)
BOMBS = {
    "too many pixels": png_of_chunks((30_000, 30_000), (b"IDAT", ZEROS)),
    "too high": png_of_chunks((1, 60_000_000), (b"IDAT", ZEROS)),
    "too wide": png_of_chunks((60_000_000, 1), (b"IDAT", ZEROS)),
    "text": png_of_chunks((8, 8), (b"zTXt", b"a\0\0" + ZEROS), (b"IDAT", zlib.compress(bytes(200)))),
    "international text": png_of_chunks(
        (8, 8), (b"iTXt", b"a\0\1\0\0\0" + ZEROS), (b"IDAT", zlib.compress(bytes(200)))
    ),
    "profile": png_of_chunks((8, 8), (b"iCCP", b"a\0\0" + ZEROS), (b"IDAT", zlib.compress(bytes(200)))),
    "more data than pixels": png_of_chunks((8, 8), (b"IDAT", ZEROS)),
    "WebP canvas": b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\2\0\0\0" + b"\xff\x3f\0" * 2 + b"ANIM\0\0\0\0\0\0\0\0",
    "BMP": struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 99, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
    "GIF": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\2\x4c\1\0;",
    "PPM": b"P6 99999999 99999999 255\n",
}


@pytest.mark.parametrize("key", BOMBS)
def test_a_bomb_is_refused_before_it_takes_memory(key):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check_refusal(lambda: decoding.decode(BOMBS[key], Target(8, 8, 3, "crop")), DataError)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 2**10  # KiB


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_other_frames_of_an_animation_take_no_memory(name):
    frames = [halves(left=(index % 256, 1, 2), size=(64, 64)) for index in range(300)]
    content = as_file(frames[0], name, save_all=True, append_images=frames[1:])
    assert decode(content, AS_IT_IS).shape == (64, 64, 3)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_of_many_scans_is_refused(mode, tmp_path):
    content = as_file(halves(size=(64, 64)).convert(mode), "JPEG", progressive=True)
    assert decode(content, AS_IT_IS).shape == (64, 64, 3)
    start = content.rindex(b"\xff\xda")
    (tmp_path / "x.jpg").write_bytes(content[:start] + content[start:-2] * 200 + content[-2:])
    for source in (tmp_path / "x.jpg", (tmp_path / "x.jpg").read_bytes()):
        check_refusal(lambda source=source: decoding.decode(source, AS_IT_IS), DataError, "100")


@pytest.mark.parametrize("header", [b"P1 2 2\n", b"P2 2 2 1\n", b"P3 2 2 1\n"])
def test_a_plain_pnm_of_many_comments_is_refused(header, tmp_path):
    """Pillow takes minutes for a million of them."""
    pixels = b"1 0 0 1 " * 3
    assert decode(header + b"# by hand\n" * 999 + pixels, AS_IT_IS).shape == (2, 2, 3)
    (tmp_path / "x.pnm").write_bytes(header + b"#\n" * 200_000 + pixels)
    for source in (tmp_path / "x.pnm", (tmp_path / "x.pnm").read_bytes()):
        check_refusal(lambda source=source: decoding.decode(source, AS_IT_IS), DataError, "1,000")
    binary = b"P6 20 20 255\n" + b"#" * 1200
    assert decode(binary, Target(None, None, 3, "none", allows_constant=True)).shape == (20, 20, 3)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "BMP", "TIFF", "PPM"])
def test_the_shape_is_read_without_decoding(name, monkeypatch):
    content = as_file(halves(), name)
    monkeypatch.setattr(Image.core, "new", None)
    assert read_shape(content) == (6, 8, 3)


def test_orientation_after_the_pixels_of_a_png_is_applied(tmp_path):
    content = as_file(halves(size=(32, 16)))
    block = exif(3, 1, b"\6")[6:]
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
    (tmp_path / "x.png").write_bytes(content[:-12] + chunk + content[-12:])
    for source in (tmp_path / "x.png", (tmp_path / "x.png").read_bytes()):
        assert read_shape(source) == decode(source, AS_IT_IS).shape == (32, 16, 3)


@pytest.mark.parametrize("mode", ["RGBA", "I;16", "CMYK", "P"])
def test_images_of_many_pixels_are_converted_in_bands(mode, monkeypatch):
    rng = np.random.default_rng(0)
    if mode == "I;16":
        picture = Image.fromarray(rng.integers(0, 65536, (50, 40), np.uint16))
    else:
        picture = Image.fromarray(rng.integers(0, 256, (50, 40, 3), np.uint8)).convert(mode)
        if mode == "RGBA":
            picture.putalpha(Image.fromarray(rng.integers(0, 256, (50, 40), np.uint8)))
    content = as_file(picture, "TIFF")
    whole = decode(content, AS_IT_IS)
    monkeypatch.setattr(pixels, "_BAND_PIXELS", 128)
    assert (decode(content, AS_IT_IS) == whole).all()


def special_file(kind, folder):
    path = folder / "x.png"
    if kind == "named pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    elif kind == "NUL":
        return Path(f"{path}\0")
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(contents.MAX_FILE_BYTES + 1)
    elif kind == "process":
        path.symlink_to("/proc/self/environ")
    elif kind != "missing":
        path.symlink_to(f"/dev/{kind}")
    return path


@pytest.mark.parametrize(
    "kind", ["named pipe", "zero", "null", "tty", "folder", "socket", "NUL", "large", "process", "missing"]
)
def test_only_regular_files_are_opened(kind, tmp_path):
    path = special_file(kind, tmp_path)
    check_refusal(lambda: decoding.decode(path, AS_IT_IS), DataError)
    check_refusal(lambda: read_shape(path), DataError)
    assert decoding.encode(AS_IT_IS, path).image is None


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_files_with_further_frames_are_recognized(kind):
    frames = [halves(), halves(left=GREEN)]
    several = as_file(frames[0], kind, save_all=True, append_images=frames[1:])
    assert decoding.encode(AS_IT_IS, several).has_more_frames
    assert not decoding.encode(AS_IT_IS, as_file(frames[0], kind)).has_more_frames


def test_previews_of_a_camera_are_no_frames_and_a_damaged_second_frame_does_no_harm():
    frames = [halves(size=(32, 32)), halves(left=GREEN, size=(32, 32))]
    camera = as_file(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert not decoding.encode(AS_IT_IS, camera).has_more_frames
    several, single = (as_file(frames[0], "GIF", save_all=True, append_images=frames[1:number]) for number in (2, 1))
    for length in range(len(single), len(several)):
        assert decoding.encode(AS_IT_IS, several[:length]).image is not None


def test_a_temporary_copy_is_deleted_when_it_is_decoded(tmp_path):
    for content in (as_file(halves()), b"damaged"):
        copy = contents.TemporaryCopy(tmp_path / "copy")
        copy.path.write_bytes(content)
        decoding.encode(AS_IT_IS, copy)
        assert not copy.path.exists()


@pytest.mark.parametrize("bits", range(1, 8))
def test_bits_have_the_same_meaning_in_all_files(bits):
    values = np.arange(2**bits)[np.newaxis]
    eight, sixteen = (as_file(Image.fromarray(values.astype(kind))) for kind in (np.uint8, np.uint16))
    target = Target(None, None, 1, "none", bits)
    np.testing.assert_array_equal(decode(eight, target), decode(sixteen, target))
    assert decode(eight, target)[0, :, 0].tolist() == [round(value * 255 / values.max()) for value in values[0]]


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pixels_of_few_bits_are_white(channels):
    target = Target(None, None, channels, "none", 1)
    gray_and_alpha = np.array([[[0, 255], [1, 255], [0, 0], [1, 0], [255, 0]]], np.uint8)
    assert decode(as_file(Image.fromarray(gray_and_alpha, "LA")), target)[0, :, 0].tolist() == [0, 255, 255, 255, 255]
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    palette.putpalette([0, 0, 0, 1, 1, 1, 9, 9, 9])
    assert decode(as_file(palette, transparency=2), target)[0, :, 0].tolist() == [0, 255, 255]
    too_large = as_file(Image.fromarray(gray_and_alpha + np.array([1, 0], np.uint8), "LA"))
    check_refusal(lambda: decoding.decode(too_large, target), DataError, "--bits=1", "2")


@pytest.mark.parametrize(("bits", "transparent"), [(None, 257), (None, 0), (10, 514), (10, 60000)])
def test_transparent_pixels_of_16_bits_are_those_of_8_bits(bits, transparent):
    values = np.array([[0, 257, 514, 1023, transparent]], np.uint16)
    maximum = 2 ** (bits or 16) - 1
    gray = [(value * 255 + maximum // 2) // maximum for value in values[0].tolist()]
    content = as_file(Image.fromarray(values), transparency=transparent)
    is_visible = values[0] != transparent
    for channels in (1, 3):
        decoded = decode(content, Target(None, None, channels, "none", bits))
        assert decoded[0, :, 0].tolist() == np.where(is_visible, gray, 255).tolist()
    decoded = decode(content, Target(None, None, 4, "none"))
    assert decoded[0, :, 3].tolist() == np.where(is_visible, 255, 0).tolist()


@pytest.mark.parametrize("bits", [1, 4, 8, 10, 12, 16])
def test_bits_state_the_range_of_values(bits):
    maximum = 2**bits - 1
    values = np.array([[0, maximum // 2, maximum]] * 2)
    expected = [0, round(maximum // 2 * 255 / maximum), 255]
    target = Target(None, None, 1, "none", bits)
    for kind in (np.uint8, np.uint16):
        if kind == np.uint8 and bits > 8:
            continue
        content = as_file(Image.fromarray(values.astype(kind)))
        assert decode(content, target)[0, :, 0].tolist() == expected
        too_large = as_file(Image.fromarray(np.minimum(values + 1, np.iinfo(kind).max).astype(kind)))
        if bits not in (8, 16):
            check_refusal(lambda content=too_large: decoding.decode(content, target), DataError, f"{maximum + 1}")
    assert decode(as_file(halves("1", 1, 0)), target).max() == 255


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("width", [2000, 2002, 2004, 2010, 2016, 2048])
def test_a_large_jpeg_of_even_width_has_two_halves(width, orientation):
    picture, exif = halves(size=(width, 1000)), Image.Exif()
    exif[0x0112] = orientation
    if orientation == 6:
        picture = picture.transpose(Image.Transpose.ROTATE_90)
    content = as_file(picture, "JPEG", quality=95, exif=exif)
    for side, color in {"left": RED, "right": GREEN}.items():
        array = decode(content, Target(64, 64, 3, "stretch", allows_constant=True, side=side))
        assert np.abs(array[:, 2:-2].astype(int) - color).max() <= 4  # the edge between the halves is blurred


@pytest.mark.parametrize("width", [2001, 2003, 2005, 2011])
def test_a_large_jpeg_of_odd_width_has_no_two_halves(width):
    content, target = as_file(halves(size=(width, 1000)), "JPEG"), Target(64, 64, 3, "crop", side="left")
    check_refusal(lambda: decode(content, target), DataError, f"{width} pixels")


def test_a_jpeg_is_shrunk_while_it_is_decoded():
    for width, side, num_pixels in ((2048, None, 256 * 128), (2048, "left", 256 * 128), (2002, "left", 2002 * 1000)):
        reserved = []
        content = as_file(halves(size=(width, 1024 if width == 2048 else 1000)), "JPEG")
        decoding.decode(content, Target(64, 64, 3, "crop", allows_constant=True, side=side), reserved.append)
        assert reserved == [num_pixels]
