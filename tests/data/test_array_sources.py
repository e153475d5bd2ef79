"""Files of arrays: .npy, .npz, HDF5 and IDX. Fields are selected by shape, ranges by values, and sizes are checked."""

import gzip
import io
import pickle
import struct
import time
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
from pictures import idx
from refusals import check_refusal

from trainer.data.field_names import LABEL_NAMES
from trainer.data.prepare.sources import SourceOptions, hdf5, open_source
from trainer.errors import ConfigError, DataError

GRAY = np.random.default_rng(0).integers(0, 256, (6, 5, 4), np.uint8)
GRAY[0, 0, :2] = 0, 255
COLOR = np.random.default_rng(1).integers(0, 256, (6, 5, 4, 3), np.uint8)
COLOR[0, 0, 0, :2] = 0, 255
CLASSES = np.array([1, 0, 1, 2, 1, 10])


def write_npz(path, arrays):
    np.savez(path, **arrays)


def write_npz_compressed(path, arrays):
    np.savez_compressed(path, **arrays)


def write_hdf5(path, arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array.astype(h5py.string_dtype()) if array.dtype.kind == "U" else array


WRITERS = {"npz": write_npz, "compressed.npz": write_npz_compressed, "h5": write_hdf5, "hdf5": write_hdf5}


@pytest.fixture(params=WRITERS)
def save(request, tmp_path):
    """A function that writes arrays to a file and returns its path."""

    def write(arrays):
        path = tmp_path / f"set.{request.param}"
        WRITERS[request.param](path, arrays)
        return path

    return write


def test_color_images_with_alpha_have_their_channels_last(save):
    rgba = np.concatenate([COLOR, GRAY[..., np.newaxis]], axis=-1)
    images, _, _ = read(save({"x": rgba}))
    np.testing.assert_array_equal(images, rgba)
    square = np.random.default_rng(2).integers(0, 256, (6, 3, 5, 4), np.uint8)
    square[0, 0, 0, :2] = 0, 255
    images, _, _ = read(save({"x": square}))
    np.testing.assert_array_equal(images, square.transpose(0, 2, 3, 1))


def read(path, **options):
    """Returns the images [N, H, W, C], the class name of each image, and the notes of a source."""
    with open_source(str(path), options=SourceOptions(**options)) as source:
        notes = " ".join([*source.notes, *source.class_notes])
        labels = [source.class_names[item.label] for item in source.items]
        return np.stack([source.read(index) for index in range(len(labels))]), labels, notes


def names_of(classes):
    return [str(number) for number in classes]


ONE_CLASS = ["0"] * 6
ONE_HOT = np.eye(11)[CLASSES]
FIELDS = {
    "x and y": ({"x": GRAY, "y": CLASSES}, {}, GRAY, names_of(CLASSES)),
    "X": ({"X": GRAY}, {}, GRAY, ONE_CLASS),
    "imgs": ({"imgs": COLOR}, {}, COLOR, ONE_CLASS),
    "train_images and train_labels": ({"train_images": GRAY, "train_labels": CLASSES}, {}, GRAY, names_of(CLASSES)),
    "any name": ({"faces": COLOR, "who": CLASSES}, {}, COLOR, names_of(CLASSES)),
    "any name beside text": ({"faces": COLOR, "about": np.array("all of them")}, {}, COLOR, ONE_CLASS),
    "positions": ({"arr_0": GRAY, "arr_1": CLASSES}, {}, GRAY, names_of(CLASSES)),
    "train and test of Keras": (
        {"x_test": GRAY[:2], "x_train": COLOR, "y_test": CLASSES[:2], "y_train": CLASSES},
        {},
        COLOR,
        names_of(CLASSES),
    ),
    "test of Keras": (
        {"x_test": GRAY[:2], "x_train": COLOR, "y_test": CLASSES[:2], "y_train": CLASSES},
        {"split": ("test",)},
        GRAY[:2],
        ["1", "0"],
    ),
    "sets of Coursera": (
        {
            "train_set_x": COLOR,
            "train_set_y": CLASSES % 2,
            "test_set_x": COLOR[:1],
            "test_set_y": CLASSES[:1],
            "list_classes": np.array(["cat", "dog"]),
        },
        {},
        COLOR,
        ["dog", "cat", "dog", "cat", "dog", "cat"],
    ),
    "images before masks": ({"masks": GRAY, "images": COLOR}, {}, COLOR, ONE_CLASS),
    "an image field": ({"a": GRAY, "b": COLOR}, {"image_field": "a"}, GRAY, ONE_CLASS),
    "a label field": (
        {"x": GRAY, "male": CLASSES % 2, "young": CLASSES},
        {"label_field": "young"},
        GRAY,
        names_of(CLASSES),
    ),
    "no labels": ({"x": GRAY, "y": CLASSES}, {"label_field": "none"}, GRAY, ONE_CLASS),
    "labels in a column": ({"x": GRAY, "y": CLASSES[:, None]}, {}, GRAY, names_of(CLASSES)),
    "one-hot labels": ({"x": GRAY, "y": ONE_HOT}, {}, GRAY, names_of(CLASSES)),
    "whole floats": ({"x": GRAY, "y": CLASSES.astype(np.float32)}, {}, GRAY, names_of(CLASSES)),
    "labels as text": ({"x": GRAY, "y": np.array(list("banana"))}, {}, GRAY, list("banana")),
    "labels as bytes": ({"x": GRAY, "y": np.array(list("banana"), "S")}, {}, GRAY, list("banana")),
    "labels as UTF-8": ({"x": GRAY, "y": np.array(["é".encode()] * 6)}, {}, GRAY, ["é"] * 6),
    "labels as bytes in a column": ({"x": GRAY, "y": np.array(list("banana"), "S")[:, None]}, {}, GRAY, list("banana")),
    "class names as UTF-8": (
        {"x": GRAY, "y": CLASSES % 2, "classes": np.array(["é".encode(), b"b"])},
        {},
        GRAY,
        [["é", "b"][number % 2] for number in CLASSES],
    ),
    **{
        f"labels named {name}": ({"x": GRAY, name: CLASSES, "more": CLASSES}, {}, GRAY, names_of(CLASSES))
        for name in (*LABEL_NAMES, "arr_1", "Y")
    },
    "as many class names as images": (
        {"faces": GRAY, "who": CLASSES % 6, "classes": np.array(list("abcdef"))},
        {},
        GRAY,
        ["abcdef"[number % 6] for number in CLASSES],
    ),
    "labels named as class names": ({"x": GRAY, "classes": np.array(list("banana"))}, {}, GRAY, list("banana")),
    "labels as booleans": ({"x": GRAY, "y": CLASSES > 1}, {}, GRAY, names_of((CLASSES > 1).astype(int))),
}


@pytest.mark.parametrize("key", FIELDS)
def test_fields_are_selected_by_shape_and_name(save, key):
    arrays, options, images, labels = FIELDS[key]
    received = read(save(arrays), **options)
    assert (received[0] == images.reshape(received[0].shape)).all() and received[1] == labels


def test_classes_are_in_natural_order(save):
    with open_source(str(save({"x": GRAY, "y": CLASSES}))) as source:
        assert source.class_names == ("0", "1", "2", "10")


REFUSED_FIELDS = {
    "several images": ({"a": GRAY, "b": COLOR}, {}, ConfigError, ("'a'", "'b'", "--image_field")),
    "several labels": (
        {"x": GRAY, "male": CLASSES, "young": CLASSES},
        {},
        ConfigError,
        ("'male'", "'young'", "--label_field"),
    ),
    "an unknown image field": ({"x": GRAY}, {"image_field": "z"}, ConfigError, ("image_field='z'", "'x'")),
    "an unknown label field": (
        {"x": GRAY, "y": CLASSES},
        {"label_field": "z"},
        ConfigError,
        ("label_field='z'", "'y'"),
    ),
    "an unknown split": ({"x_train": GRAY}, {"split": ("val",)}, ConfigError, ("split='val'", "train")),
    "splits without train": ({"x_val": GRAY, "x_test": GRAY}, {}, ConfigError, ("--split=", "val", "test")),
    "two splits at once": (
        {"x_train": GRAY, "x_test": GRAY},
        {"split": ("train", "test")},
        ConfigError,
        ("x_train", "x_test", "--image_field", "split='train,test'"),
    ),
    "a split beside the array of another": (
        {"x_train": GRAY, "x_test": GRAY},
        {"split": ("test",), "image_field": "x_train"},
        ConfigError,
        ("split='test'", "image_field='x_train'"),
    ),
    "no images": ({"y": CLASSES, "z": ONE_HOT}, ("'y'", "[6, 11]", "[N, H, W, C]")),
    "one image": ({"x": COLOR[0]}, ("[5, 4, 3]",)),
    "one image with channels first": ({"x": COLOR[0].transpose(2, 0, 1)}, ("[3, 5, 4]",)),
    "five channels": ({"x": np.zeros((6, 5, 4, 5), np.uint8)}, ("[6, 5, 4, 5]",)),
    "no pixels": ({"x": np.zeros((6, 0, 4), np.uint8)}, ("[6, 0, 4]",)),
    "complex numbers": ({"x": GRAY.astype(np.complex64)}, {"image_field": "x"}, DataError, ("complex64",)),
    "fewer labels": ({"x": GRAY, "y": CLASSES[:3]}, ("[3]", "6")),
    "more labels": ({"x": GRAY[:4], "y": CLASSES}, ("[6]", "4")),
    "soft labels": ({"x": GRAY, "y": ONE_HOT * 0.9 + 0.01}, ("[6, 11]",)),
    "multi-hot labels": ({"x": GRAY, "y": np.ones((6, 3))}, ("[6, 3]",)),
    "rows of zeros": ({"x": GRAY, "y": np.zeros((6, 3))}, ("[6, 3]",)),
    "fractional labels": ({"x": GRAY, "y": CLASSES / 2}, ("float64",)),
    "NaN labels": ({"x": GRAY, "y": np.full(6, np.nan)}, ("float64",)),
    "negative labels": ({"x": GRAY, "y": CLASSES - 1}, ("-1",)),
    "a label without a name": ({"x": GRAY, "y": CLASSES, "classes": np.array(["cat", "dog"])}, ("10", "2")),
    **{
        f"a class name twice as {names.dtype}": (
            {"x": GRAY, "y": CLASSES % 3, "class_names": names},
            ("'crane'", "0", "2", "--label_field"),
        )
        for names in (np.array(["crane", "cat", "crane"]), np.array([b"crane", b"cat", b"crane"]))
    },
}


@pytest.mark.parametrize("key", REFUSED_FIELDS)
def test_arrays_with_several_readings_are_refused(save, key):
    arrays, *choice, facts = REFUSED_FIELDS[key]
    options, error = choice or ({}, DataError)
    check_refusal(lambda: read(save(arrays), **options), error, *facts)


def test_the_headers_of_many_arrays_take_little_memory(tmp_path):
    arrays = {f"array_{number}": np.zeros(2**20, np.uint8) for number in range(40)}
    write_npz_compressed(tmp_path / "set.npz", arrays | {"x": GRAY})
    tracemalloc.start()
    try:
        assert len(read(tmp_path / "set.npz")[0]) == len(GRAY)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


def test_each_of_many_images_may_have_its_own_class(tmp_path):
    names = [f"class {number}" for number in range(40_000)]
    write_npz(tmp_path / "set.npz", {"x": np.arange(len(names) * 4, dtype=np.uint8).reshape(-1, 2, 2), "y": names})
    start = time.monotonic()
    with open_source(str(tmp_path / "set.npz")) as source:
        assert source.class_names == tuple(names)
    assert time.monotonic() - start < 8


def test_a_choice_by_shape_and_other_splits_are_reported(save):
    notes = read(save({"faces": COLOR, "who": CLASSES}))[2]
    assert "'faces'" in notes and "'who'" in notes
    assert "--split" in read(save({"x_train": COLOR, "x_test": GRAY[:2]}))[2]
    assert read(save({"x": COLOR, "y": CLASSES}))[2] == ""
    assert "12 classes" in read(save({"x": np.tile(GRAY, (2, 1, 1)), "id": np.arange(12)}))[2]


UNIT = GRAY / 255.0
RANGES = {
    "uint8": (GRAY, None),
    "int64 to 255": (GRAY.astype(np.int64), None),
    "big-endian uint16 to 255": (GRAY.astype(">u2"), None),
    "uint16 to 65535": (GRAY.astype(np.uint16) * 257, None),
    "uint16 to about 65535": (np.clip(GRAY.astype(np.uint16) * 257, 0, 65534), None),
    "integers of 16 bits in int32": (GRAY.astype(np.int32) * 257, None),
    "16 bits, big-endian": ((GRAY.astype(int) * 257).astype(">u2"), None),
    "float32 to 1": (UNIT.astype(np.float32), None),
    "float64 from -1": (UNIT * 2 - 1, None),
    "float32 to 255": (GRAY.astype(np.float32), None),
    "float16 to 1": (UNIT.astype(np.float16), None),
    "rounding beyond the end": (UNIT * 1.0005, None),
    "dark, as stated": (GRAY // 4 / 1.0, "0..255"),
    "almost black, as stated": (UNIT, "0..255"),
    "integers from -1 to 1, as stated": (np.where(GRAY > 127, 1, -1).astype(np.int8), "-1..1"),
    "booleans": (GRAY > 127, None),
    "integers of 0 and 1": ((GRAY > 127).astype(np.int32), None),
    "uint8 of 0 and 1, as stated": ((GRAY > 127).astype(np.uint8), "0..1"),
}
EXPECTED = {
    "dark, as stated": GRAY // 4,
    "almost black, as stated": np.rint(UNIT),
    **dict.fromkeys(
        ["booleans", "integers of 0 and 1", "integers from -1 to 1, as stated", "uint8 of 0 and 1, as stated"],
        (GRAY > 127) * 255,
    ),
}


@pytest.mark.parametrize("key", RANGES)
def test_pixels_become_bytes_by_the_range_that_they_fill(save, key):
    array, stated = RANGES[key]
    images = read(save({"x": array}), image_range=stated)[0]
    assert images.dtype == np.uint8
    assert np.abs(images[..., 0].astype(int) - EXPECTED.get(key, GRAY)).max() <= (1 if "float16" in key else 0)


UNKNOWN_RANGES = {
    "resized beyond the ends": (GRAY * 1.1 - 12, None, ("-12",)),
    "centered bytes": (GRAY - 127.5, None, ("-127.5", "127.5")),
    "centered floats": (UNIT - 0.5, None, ("-0.5", "0.5")),
    "int8": ((GRAY.astype(int) - 128).astype(np.int8), None, ("int8", "-128")),
    "normalized": ((UNIT - 0.45) / 0.22, None, ("float64", "0..255")),
    "12 bits": (GRAY.astype(np.uint16) * 16, None, ("uint16", "4080", "0..255")),
    "dark 16 bits": (GRAY.astype(np.uint16) * 200, None, ("uint16", "51000", "0..255")),
    "units among bytes": (np.concatenate([GRAY, UNIT]), None, ("0..255", "--image_range")),
    "dark floats": (UNIT / 2, None, ("0.5", "--image_range=-1..1 or 0..1")),
    "dark integers": (GRAY.astype(int) // 4, None, ("63",)),
    "masks": ((GRAY > 127).astype(np.uint8), None, ("uint8", "--image_range")),
    "outside the stated range": (UNIT * 2 - 1, "0..1", ("-1", "image_range=0..1")),
}


@pytest.mark.parametrize("key", UNKNOWN_RANGES)
def test_pixels_that_fill_no_range_are_refused(save, key):
    array, stated, facts = UNKNOWN_RANGES[key]
    check_refusal(lambda: read(save({"x": array}), image_range=stated), DataError, *facts)


def test_an_unknown_range_is_refused(save):
    check_refusal(lambda: read(save({"x": GRAY}), image_range="0..2"), ConfigError, "image_range", "0..2")


def test_channels_may_be_first_which_is_reported(save):
    images, _, notes = read(save({"x": np.ascontiguousarray(COLOR.transpose(0, 3, 1, 2))}))
    assert (images == COLOR).all() and "[N, C, H, W]" in notes
    images, _, notes = read(save({"x": COLOR}))
    assert (images == COLOR).all() and not notes


def test_a_npy_file_is_read_in_place(tmp_path, bucket):
    np.save(tmp_path / "set.npy", COLOR)
    assert (read(tmp_path / "set.npy")[0] == COLOR).all()


def test_groups_and_chunks_of_hdf5_are_read(tmp_path):
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file.create_dataset(
            "train/images", data=COLOR, chunks=(4, 5, 4, 1), compression="gzip", maxshape=(None, 5, 4, 3)
        )
        file["train/labels"], file["test/images"], file["test/labels"] = CLASSES, COLOR[:1], CLASSES[:1]
        file["train/up"], file["again"] = file["/"], h5py.SoftLink("/train/images")
    images, labels, notes = read(tmp_path / "set.h5")
    assert (images == COLOR).all() and labels == names_of(CLASSES) and "test" in notes


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_npz_files_are_read_with_every_method(method, tmp_path):
    (tmp_path / "x.npz").write_bytes(zipped(npy(GRAY), method))
    assert (read(tmp_path / "x.npz")[0] == GRAY[..., None]).all()


def header(shape, descr="|u1", version=1, length=None):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", size) + text


def zipped(content, method=zipfile.ZIP_DEFLATED, name="x.npy", count=1):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for index in range(count):
            archive.writestr(name if count == 1 else f"{index}.npy", content)
    return buffer.getvalue()


def with_extra_field(content):
    """Returns a zip file whose first member has an extra field of ZIP64 that is too short."""
    start = content.index(b"PK\1\2")
    entry, end = bytearray(content[start:]), content.rindex(b"PK\5\6") - start
    name_size = struct.unpack_from("<H", entry, 28)[0]
    struct.pack_into("<H", entry, 30, 4)
    struct.pack_into("<I", entry, 24, 2**32 - 1)
    struct.pack_into("<I", entry, end + 12, end + 4)
    return content[:start] + entry[: 46 + name_size] + b"\1\0\0\0" + entry[46 + name_size :]


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def h5_of(make):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        make(file)
    return buffer.getvalue()


def external(file):
    file.create_dataset("x", GRAY.shape, "u1", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual(file):
    layout = h5py.VirtualLayout(GRAY.shape, "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", GRAY.shape)
    file.create_virtual_dataset("x", layout)


HUGE = 2**60
DAMAGED = {
    "npy cut": ("x.npy", npy(GRAY)[:-5], ("x.npy", "5", "120")),
    "npy with two arrays": ("x.npy", npy(GRAY) + npy(GRAY), ("x.npy",)),
    "npy of objects": ("x.npy", npy(np.array([object]), allow_pickle=True), ("x.npy", "objects")),
    "npy that is a pickle": ("x.npy", pickle.dumps([1]), ("x.npy",)),
    "npy of a huge shape": ("x.npy", header((9, HUGE, HUGE)), ("x.npy",)),
    "npy of large images": ("x.npy", header((2, 20_000, 20_000)), ("x.npy", "64,000,000")),
    "npy of many images": ("x.npy", header((HUGE, 2, 2)), ("x.npy",)),
    "npy of a negative shape": ("x.npy", header((-1, 2, 2)), ("x.npy",)),
    "npy of a boolean shape": ("x.npy", header((True, 2, 2)), ("x.npy",)),
    "npy of an endless shape": ("x.npy", header(f"({'9' * 5000},)"), ("x.npy",)),
    "npy of deep brackets": ("x.npy", header("(" * 4000), ("x.npy",)),
    "npy of a false type": ("x.npy", header((2, 2, 2), "|Q9"), ("x.npy",)),
    "npy with a long header": ("x.npy", header((2, 2, 2), version=2, length=2**32 - 1), ("x.npy",)),
    "npy of another version": ("x.npy", header((2, 2, 2), version=9), ("x.npy",)),
    "npy in Fortran order": ("x.npy", npy(np.asfortranarray(COLOR)), ("x.npy", "Fortran")),
    "npy that is empty": ("x.npy", b"", ("x.npy",)),
    "npz of a long header": ("x.npz", zipped(header((2, 2, 2), version=2, length=2**31) + bytes(2**20)), ("x.npz",)),
    "npz whose checksum differs": (
        "x.npz",
        zipped(npy(GRAY), zipfile.ZIP_STORED).replace(bytes(GRAY), bytes(GRAY + 1)),
        ("'x' in x.npz",),
    ),
    "npz without a name": ("x.npz", zipped(b"hello").replace(b"x.npy", bytes(5)), ("x.npz",)),
    "npz before its beginning": ("x.npz", zipped(npy(GRAY))[9:], ("x.npz",)),
    "npz with a password": (
        "x.npz",
        zipped(npy(GRAY)).replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1"),
        ("'x' in x.npz",),
    ),
    "npz whose extra field is cut": ("x.npz", with_extra_field(zipped(npy(GRAY))), ("x.npz",)),
    "npz of a bomb in LZMA": ("x.npz", zipped(header((2, 2, 2)) + bytes(2**27), zipfile.ZIP_LZMA), ("x.npz",)),
    "npz of a bomb in bzip2": ("x.npz", zipped(header((2, 2, 2)) + bytes(2**27), zipfile.ZIP_BZIP2), ("x.npz",)),
    "npz of another size": ("x.npz", zipped(npy(GRAY)[:-5]), ("x.npz", "5")),
    "npz of many images": ("x.npz", zipped(header((HUGE, 2, 2))), ("x.npz",)),
    "npz of many members": ("x.npz", zipped(b"", zipfile.ZIP_STORED, count=60_000), ("x.npz",)),
    "npz cut": ("x.npz", zipped(npy(GRAY))[:-30], ("x.npz",)),
    "npz of text": ("x.npz", zipped(b"hello"), ("x.npz",)),
    "IDX cut": ("x-idx3-ubyte", idx(GRAY)[:-5], ("x-idx3-ubyte", "5", "120")),
    "IDX cut in its header": ("x-idx3-ubyte", idx(GRAY)[:9], ("x-idx3-ubyte",)),
    "IDX of 32 GiB": ("x-idx3-ubyte", idx(GRAY, (2**21, 128, 128)), ("x-idx3-ubyte", f"{2**35:,}")),
    "IDX of many images": ("x-idx3-ubyte", idx(GRAY, (2**32 - 1, 1, 1)), ("x-idx3-ubyte",)),
    "IDX with more images": ("x-idx3-ubyte", idx(GRAY) + b"more", ("x-idx3-ubyte", "4")),
    "IDX.gz with more images": ("x-idx3-ubyte.gz", gzip.compress(idx(GRAY) + b"more"), ("x-idx3-ubyte.gz",)),
    "HDF5 cut": ("x.h5", h5_of(lambda file: file.update(x=GRAY))[:-200], ("x.h5",)),
    "HDF5 of text": ("x.h5", b"hello", ("x.h5",)),
    "HDF5 without arrays": ("x.h5", h5_of(lambda file: file.create_group("a")), ("x.h5",)),
    "HDF5 with values in another file": ("x.h5", h5_of(external), ("x.h5", "other files")),
    "HDF5 with a view of another file": ("x.h5", h5_of(virtual), ("x.h5", "other files")),
    "HDF5 with a link to another file": (
        "x.h5",
        h5_of(lambda file: file.update(x=h5py.ExternalLink("/etc/passwd", "x"))),
        ("x.h5",),
    ),
    "HDF5 of unwritten chunks": (
        "x.h5",
        h5_of(lambda file: file.create_dataset("x", (10**7, 9, 9), "u1", chunks=(9, 9, 9))),
        ("x.h5", f"{81 * 10**7:,}"),
    ),
    "HDF5 of unwritten values": ("x.h5", h5_of(lambda file: file.create_dataset("x", (10**6, 9, 9), "u1")), ("x.h5",)),
    "HDF5 of huge chunks": (
        "x.h5",
        h5_of(lambda file: file.create_dataset("x", (9, 2**15, 2**14), "u1", chunks=(9, 2**15, 2**13), compression=9)),
        ("x.h5",),
    ),
    "HDF5 of many arrays": (
        "x.h5",
        h5_of(lambda file: [file.create_dataset(str(n), (1,), "u1") for n in range(1100)]),
        ("x.h5", "1,000"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("key", DAMAGED)
def test_damaged_arrays_are_refused_before_memory_is_taken(tmp_path, key):
    name, content, facts = DAMAGED[key]
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    start = time.monotonic()
    try:
        check_refusal(lambda: read(tmp_path / name), DataError, *facts)
        assert tracemalloc.get_traced_memory()[1] < 2**26 and time.monotonic() - start < 5
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("labels", [CLASSES[:3], np.tile(CLASSES, 2)])
def test_label_files_of_another_length_are_refused(tmp_path, ending, labels):
    pack = gzip.compress if ending else bytes
    (tmp_path / f"x-images-idx3-ubyte{ending}").write_bytes(pack(idx(GRAY)))
    (tmp_path / f"x-labels-idx1-ubyte{ending}").write_bytes(pack(idx(labels)))
    check_refusal(
        lambda: read(tmp_path / f"x-images-idx3-ubyte{ending}"), DataError, "x-labels-idx1-ubyte", str(len(labels)), "6"
    )


@pytest.mark.parametrize("program", ["while True: pass", "raise SystemExit(1)", "x = bytes(2**40)"])
def test_texts_that_the_library_cannot_read_are_refused(program, tmp_path, monkeypatch):
    write_hdf5(tmp_path / "x.h5", {"x": GRAY, "y": np.array(list("banana"))})
    assert read(tmp_path / "x.h5")[1] == list("banana")
    monkeypatch.setattr(hdf5, "_READ_TEXTS", program)
    monkeypatch.setattr(hdf5, "_MAX_TEXT_SECS", 1)
    check_refusal(lambda: read(tmp_path / "x.h5"), DataError, "'y' in x.h5")
