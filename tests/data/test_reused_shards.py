"""Reuse of finished shards: only from the same pixels, wherever the source is and however its name is spelled."""

import io
import os
import shutil

import numpy as np
import pytest
from file_sets import write_folder, write_tar, write_zip
from PIL import Image

from trainer.data.prepare import convert
from trainer.data.prepare.conversion_plan import ConversionOptions, plan_conversion
from trainer.data.prepare.sharding import Part
from trainer.data.prepare.sources import SourceOptions, open_source
from trainer.storage import locate

METADATA = {"name": "set", "source": "here", "license": "", "attribution": "", "options": {}}
NUM_IMAGES, NUM_SHARDS = 24, 4


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (NUM_IMAGES, 4, 4, 3)).astype(np.uint8)


def bitmaps(seed):
    """Returns image files of equal sizes by their names."""
    files = {}
    for number, image in enumerate(pixels(seed)):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "BMP")
        files[f"{number:02}.bmp"] = buffer.getvalue()
    return files


def write_array(path, array):
    path.parent.mkdir(exist_ok=True)
    np.save(path, array)
    return path


def ranges(tmp_path):
    array = np.linspace(0, 0.95, NUM_IMAGES * 16, dtype=np.float32).reshape(NUM_IMAGES, 4, 4)
    path = write_array(tmp_path / "f.npy", array)
    yield path, {"image_range": "-1..1"}
    yield path, {"image_range": "0..1"}


def fields(tmp_path):
    np.savez(tmp_path / "u.npz", x=pixels(1), z=pixels(2))
    yield tmp_path / "u.npz", {"image_field": "x"}
    yield tmp_path / "u.npz", {"image_field": "z"}


def splits(tmp_path):
    np.savez(tmp_path / "u.npz", x_train=pixels(1), x_test=pixels(2))
    yield tmp_path / "u.npz", {}
    yield tmp_path / "u.npz", {"split": ("test",)}


def arrays_in_two_folders(tmp_path):
    yield write_array(tmp_path / "a" / "x.npy", pixels(1)), {}
    yield write_array(tmp_path / "b" / "x.npy", pixels(2)), {}


def an_array_with_another_last_image(tmp_path):
    array = pixels(1)
    yield write_array(tmp_path / "x.npy", array), {}
    array[-1, -1, -1, -1] ^= 1
    yield write_array(tmp_path / "x.npy", array), {}


def two_folders(tmp_path):
    yield write_folder(tmp_path / "one" / "set", bitmaps(1)), {}
    yield write_folder(tmp_path / "two" / "set", bitmaps(2)), {}


def a_replaced_tar(tmp_path):
    yield write_tar(tmp_path / "x.tar", bitmaps(1)), {}
    yield write_tar(tmp_path / "x.tar", bitmaps(2)), {}


def a_zip_with_another_last_image(tmp_path):
    files = bitmaps(1)
    yield write_zip(tmp_path / "x.zip", files), {}
    files["23.bmp"] = bitmaps(2)["23.bmp"]
    yield write_zip(tmp_path / "x.zip", files), {}


def files_of_examples(tmp_path):
    files = {}
    for (name, first), second in zip(bitmaps(1).items(), bitmaps(2).values(), strict=True):
        files |= {name: first, name.replace(".", ".b."): second, name.replace("bmp", "cls"): b"0"}
    path = write_tar(tmp_path / "x.tar", files)
    yield path, {"image_field": "bmp"}
    yield path, {"image_field": "b.bmp"}


def prepare(path, options, out, part=None):
    conversion = ConversionOptions(num_processes=1, num_shards=NUM_SHARDS)
    with open_source(str(path), SourceOptions(**options)) as source:
        plan = plan_conversion(source, conversion)
        return convert.convert_part(
            source, plan, conversion, locate(str(out)), METADATA, lambda _: None, part or Part()
        )[1]


def contents(out):
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.tfrecord"))}


@pytest.mark.parametrize(
    "readings",
    [
        *(ranges, fields, splits, arrays_in_two_folders, an_array_with_another_last_image, two_folders),
        *(a_replaced_tar, a_zip_with_another_last_image, files_of_examples),
    ],
)
def test_shards_of_other_pixels_are_not_reused(readings, tmp_path):
    made, out = readings(tmp_path), tmp_path / "out"
    prepare(*next(made), out, Part(1, 2))
    second = next(made)
    assert prepare(*second, out).num_kept == 0
    prepare(*second, tmp_path / "expected")
    assert contents(out) == contents(tmp_path / "expected")


def spellings_of_a_folder(tmp_path):
    path = write_folder(tmp_path / "a", bitmaps(1))
    yield path, {}
    yield f"{os.path.relpath(path)}/", {}
    yield shutil.copytree(path, tmp_path / "mount" / "a"), {}


def spellings_of_an_array(tmp_path):
    path = write_array(tmp_path / "x.npy", pixels(1) / 255)
    yield path, {}
    yield os.path.relpath(path), {"image_range": "0..1"}
    (tmp_path / "mount").mkdir()
    yield shutil.copy(path, tmp_path / "mount" / "x.npy"), {}


@pytest.mark.parametrize("spellings", [spellings_of_a_folder, spellings_of_an_array])
def test_shards_of_the_same_pixels_are_reused_wherever_the_source_is(spellings, tmp_path):
    first, *others = spellings(tmp_path)
    for number, other in enumerate(others):
        prepare(*first, tmp_path / str(number), Part(1, 2))
        assert prepare(*other, tmp_path / str(number)).num_kept == NUM_SHARDS // 2
