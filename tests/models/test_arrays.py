"""One reading of images and labels: the range of images, and classes."""

import functools

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from refusals import check_refusal

from trainer.data.pipeline.pixel_ranges import IMAGE_RANGES
from trainer.errors import DataError
from trainer.models.arrays import as_classes, class_tensor, read_images

SIGNED, UNIT, EIGHT_BIT = IMAGE_RANGES.values()
BYTES = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
X = BYTES.astype("float64")
CLIPPED = np.clip(X, 0, 254.0)


def read(x, stated=None):
    (images,), image_range = read_images({"x": x}, stated, SIGNED)
    return images, image_range


@pytest.mark.parametrize(
    ("x", "image_range"),
    [
        pytest.param(X / 255, UNIT, id="x / 255"),
        pytest.param((X / 255).astype("float16"), UNIT, id="float16"),
        pytest.param((X / 255).astype(ml_dtypes.bfloat16), UNIT, id="bfloat16"),
        pytest.param(X / 127.5 - 1, SIGNED, id="x / 127.5 - 1"),
        pytest.param((X - 127.5) / 127.5, SIGNED, id="(x - 127.5) / 127.5"),
        pytest.param((X / 255 - 0.5) / 0.5, SIGNED, id="torchvision.Normalize(0.5, 0.5)"),
        pytest.param(X.astype("float32"), EIGHT_BIT, id="astype float32"),
        pytest.param(X[:, ::-1] + 1e-4, EIGHT_BIT, id="rounded after resizing"),
        pytest.param(tf.constant(X / 255), UNIT, id="tensor"),
        pytest.param((X / 255).tolist(), UNIT, id="list"),
        pytest.param(list(X / 255), UNIT, id="list of arrays"),
        pytest.param(CLIPPED / 255, UNIT, id="almost white"),
        pytest.param(np.concatenate([X, X * 0, X * 0 + 1, np.minimum(X, 1)]), EIGHT_BIT, id="black images"),
    ],
)
def test_floats_are_in_the_range_that_they_fill(x, image_range):
    images, read_range = read(x)
    assert read_range == image_range and images.dtype == np.float32
    np.testing.assert_array_equal(images, np.asarray(x).astype(np.float32))


@pytest.mark.parametrize(
    "x",
    [pytest.param(BYTES.astype(kind), id=kind) for kind in ("uint8", "int16", "uint16", "int32", "int64", "uint64")]
    + [pytest.param(tf.constant(BYTES), id="tensor")],
)
def test_integers_from_0_to_255_are_8_bit_pixels(x):
    for stated in (None, UNIT, SIGNED, EIGHT_BIT):
        images, _ = read(x, stated)
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, BYTES)


@pytest.mark.parametrize("kind", ["uint16", ">u2", "int32", "uint64"])
def test_integers_from_0_to_65535_are_16_bit_pixels(kind):
    pixels = np.arange(2**16).reshape(4, 64, 256, 1)
    for stated in (None, UNIT, SIGNED):
        images, _ = read(pixels.astype(kind), stated)
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, np.rint(pixels / 257))


@pytest.mark.parametrize("kind", [bool, "int8", "int64", "uint16"])
def test_two_values_are_black_and_white(kind):
    for stated in (None, UNIT, SIGNED, EIGHT_BIT):
        images, _ = read((BYTES > 99).astype(kind), stated)
        np.testing.assert_array_equal(images, np.where(BYTES > 99, 255, 0))


REFUSED = [
    ("bicubic 0..255", X * 1.1 - 12, "-12", "268.5"),
    ("bicubic 0..1", (X * 1.1 - 12) / 255, "-0.047", "1.05"),
    ("bicubic -1..1", (X / 127.5 - 1) * 1.1, "-1.1", "1.1"),
    ("centered bytes", X - 127.5, "-127.5", "127.5"),
    ("centered units", X / 255 - 0.5, "-0.5", "0.5"),
    ("mean of a bright set", X / 255 - 0.7, "-0.7", "0.3"),
    ("mean and std", (X / 255 - 0.13) / 0.31, "-0.41", "2.8"),
    ("per-channel mean", X / 255 * 1.1 - 0.55, "-0.55", "0.55"),
    ("0..16 of scikit-learn", X / 16, "0", "15.9"),
    ("dark units", X / 255 * 0.4, "0", "0.4"),
    ("dark bytes", X * 0.4, "0", "102"),
    ("light units", X / 255 * 0.4 + 0.6, "0.6", "1"),
    ("signed, gray", (X / 127.5 - 1) * 0.5, "-0.5", "0.5"),
    ("16-bit floats", X * 257, "65535"),
    ("units among bytes", np.concatenate([X, X / 255]), "0", "255", "x[4]"),
    ("one unit image among bytes", np.concatenate([X[:1], X[:1] / 255, X[1:]]), "x[1]"),
    ("zeros", X * 0, "0 to 0"),
    ("ones", X * 0 + 1, "1 to 1"),
    ("gray", X * 0 + 0.5, "0.5 to 0.5"),
    ("negatives", -X / 255, "-1 to", "0"),
    ("int8", (X - 128).astype("int8"), "int8", "-128", "127"),
    ("dark 16 bits", (X * 200).astype("uint16"), "uint16", "51000"),
    ("12 bits", (X * 16).astype("uint16"), "uint16", "4080"),
    ("dark integers", (X / 4).astype("int32"), "int32", "63"),
    ("integers below 0", X.astype("int32") - 3, "int32", "-3"),
    ("signed bits", np.sign(X - 99).astype("int32"), "int32", "-1"),
    ("zeros of int", np.zeros((2, 4, 4, 1), int), "int64"),
    ("mask as bytes", (X > 99).astype("uint8"), "uint8", "255"),
    ("nan", np.where(X > 0, X, np.nan) / 255, "finite"),
    ("infinite", np.where(X > 0, X, np.inf) / 255, "finite"),
    ("huge", X * 1e300, "finite"),
    ("empty", X[:0], "(0, 8, 8, 1)"),
    ("no pixels", X[:, :0], "(4, 0, 8, 1)"),
    ("complex", X * 1j, "complex"),
    ("ragged", [X[0], X[0, :3]], "shape"),
    ("text", "data/photos", "load"),
    ("objects", np.array([None, 1]), "object"),
    ("masked", np.ma.masked_array(X / 255, X < 9), "masked"),
    ("function", lambda: X, "function"),
    ("sparse", tf.sparse.from_dense(X[0, :, :, 0]), "SparseTensor"),
    ("none", None, "NoneType"),
    ("images and labels in a list", [X, np.arange(4)], "x", "y"),
]


@pytest.mark.parametrize(("x", "mentions"), [pytest.param(x, facts, id=name) for name, x, *facts in REFUSED])
def test_images_without_exactly_one_reading_are_refused(x, mentions):
    check_refusal(functools.partial(read, x), DataError, "x", *mentions)


@pytest.mark.parametrize(
    ("x", "stated", "kind"),
    [
        (X / 255 * 0.4, UNIT, np.float32),
        (X / 255 * 0.4, SIGNED, np.float32),
        (X * 0.4, EIGHT_BIT, np.float32),
        (X * 0, SIGNED, np.float32),
        (X * 0 + 0.5, UNIT, np.float32),
        (X / 255 - 0.5, SIGNED, np.float32),
        ((X / 4).astype("int32"), EIGHT_BIT, np.uint8),
        (np.sign(X - 99).astype("int32"), SIGNED, np.float32),
        (BYTES // 255, EIGHT_BIT, np.uint8),
        (np.concatenate([X, X / 255]), EIGHT_BIT, np.float32),
        (BYTES // 255 * 1.0, SIGNED, np.float32),
    ],
)
def test_a_stated_range_decides(x, stated, kind):
    images, read_range = read(x, stated)
    assert read_range == (stated if kind == np.float32 else SIGNED) and images.dtype == kind
    np.testing.assert_allclose(images, x, rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "stated"),
    [
        (X.astype("float32"), UNIT),
        (X / 127.5 - 1, UNIT),
        (X * 1.1 - 12, EIGHT_BIT),
        (X.astype("float32"), SIGNED),
        ((X * 257).astype("uint16"), EIGHT_BIT),
        ((X - 128).astype("int8"), SIGNED),
        (BYTES // 255, SIGNED),
        (BYTES // 255, UNIT),
    ],
)
def test_values_outside_of_a_stated_range_are_refused(x, stated):
    check_refusal(functools.partial(read, x, stated), DataError, "x", f"{x.max():g}")


def test_both_domains_have_one_range():
    light, dark = X / 255 * 0.4 + 0.6, X / 255 * 0.4
    assert read_images({"x": light, "y": dark}, None, SIGNED)[1] == UNIT
    act = functools.partial(read_images, {"x": X / 255, "y": X / 127.5 - 1.5}, None, SIGNED)
    check_refusal(act, DataError, "x and y", "-1.5")


ONE_HOT = np.eye(3)[[2, 0, 1, 2]]


@pytest.mark.parametrize(
    "y",
    [
        [2, 0, 1, 2],
        [[2], [0], [1], [2]],
        np.array([2, 0, 1, 2], "uint8"),
        np.array([2.0, 0.0, 1.0, 2.0], "float16"),
        tf.constant([2, 0, 1, 2]),
        ONE_HOT,
        ONE_HOT.astype(bool),
        ONE_HOT.astype("int64"),
        ONE_HOT.tolist(),
    ],
)
def test_labels_are_whole_numbers_or_one_hot(y):
    labels = as_classes(y, 4, 3)
    assert labels.dtype == np.int32 and labels.tolist() == [2, 0, 1, 2]
    assert class_tensor(y, 3).numpy().tolist() == [2, 0, 1, 2]
    assert tf.function(lambda: class_tensor(y, 3))().numpy().tolist() == [2, 0, 1, 2]


WRONG_LABELS = [
    ("nan", [0.0, np.nan, 1.0, 2.0], "y[1]", "nan"),
    ("infinite", [0.0, np.inf, 1.0, 2.0], "y[1]", "inf"),
    ("fraction", [0, 1.9, 1, 2], "y[1]", "1.9"),
    ("negative", [0, 1, -1, 2], "y[2]", "-1"),
    ("from 1 up", [1, 2, 3, 1], "y[2]", "3", "num_classes"),
    ("huge", [0, 1, 2, 2**40], "y[3]", "1099511627776"),
    ("soft", ONE_HOT * 0.9 + 0.1 / 3, "y[0]", "one-hot"),
    ("smoothed", np.where(ONE_HOT, 0.9, 0.0), "y[0]", "one-hot"),
    ("multi-hot", np.maximum(ONE_HOT, ONE_HOT[::-1]), "y[1]", "one-hot"),
    ("all zero", ONE_HOT * [[1], [1], [0], [1]], "y[2]", "one-hot"),
    ("signed", ONE_HOT * 2 - 1, "y[0]", "one-hot"),
    ("one-hot nan", np.where(ONE_HOT, 1.0, np.nan), "y[0]", "nan"),
    ("width", np.eye(4)[[2, 0, 1, 2]], "(4, 4)", "num_classes=3"),
    ("row", [[2, 0, 1, 2]], "1", "4"),
    ("square", ONE_HOT[..., np.newaxis], "(4, 3, 1)"),
    ("booleans", [True, False, True, True], "bool"),
    ("names", ["cat", "dog", "cat", "dog"], "<U3"),
    ("objects", [None, 1, 2, 3], "object"),
    ("masked", np.ma.masked_array([0, 1, 2, 0], [1, 0, 0, 0]), "masked"),
    ("iterator", iter([0, 1, 2, 0]), "list_iterator"),
    ("dict", {"label": [0, 1, 2, 0]}, "dict"),
    ("one label", 2, "()"),
    ("few", [0, 1], "2", "4"),
    ("none", [], "y", "(0,)"),
    ("ragged", [[0], [1, 2], [1], [2]], "y", "shape"),
]


@pytest.mark.parametrize(("y", "mentions"), [pytest.param(y, facts, id=name) for name, y, *facts in WRONG_LABELS])
def test_labels_without_exactly_one_class_are_refused(y, mentions):
    check_refusal(functools.partial(as_classes, y, 4, 3), DataError, *mentions)


@pytest.mark.parametrize(
    "y",
    [
        pytest.param(tf.constant(np.asarray(y, np.float32)), id=name)
        for name, y, *_ in WRONG_LABELS
        if name in ("nan", "fraction", "negative", "from 1 up", "soft", "multi-hot", "all zero", "signed")
    ],
)
def test_wrong_labels_in_a_graph_fail(y):
    with pytest.raises(tf.errors.InvalidArgumentError, match="classes"):
        tf.function(lambda: class_tensor(y, 3))()
