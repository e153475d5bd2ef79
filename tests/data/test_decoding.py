"""Decoding of image files by the documented rules."""

import io

import numpy as np
import pytest
from PIL import Image

from trainer.data.prepare import decoding
from trainer.data.prepare.decoding import Target, read_shape

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
