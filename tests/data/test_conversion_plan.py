"""The choices of a conversion plan that depend on the images: size, channels, and the classes that have images."""

import numpy as np
import pytest
from PIL import Image
from refusals import check_refusal

from trainer.data.prepare.conversion_plan import ConversionOptions, plan_conversion
from trainer.data.prepare.sources import open_source
from trainer.errors import ConfigError, DataError


def write_images(folder, sizes, channels=3, suffix="png"):
    """Writes an image of each size, and returns the folder."""
    folder.mkdir(exist_ok=True)
    for number, size in enumerate(sizes):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, channels), np.uint8)
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(folder / f"{number:02}.{suffix}")
    return folder


def plan(path, **options):
    with open_source(str(path)) as source:
        return plan_conversion(source, ConversionOptions(num_processes=1, **options))


def first_of_the_plan(path):
    with open_source(str(path)) as source:
        return source.items[int(plan_conversion(source, ConversionOptions(image_size=(4, 4))).indices[0])].name


@pytest.fixture
def odd_one(tmp_path):
    """Returns a folder with 39 gray images of 64x64 and, first in the order of the plan, one of 32x32 in color."""
    folder = write_images(tmp_path / "set", [64] * 40, channels=1)
    name = first_of_the_plan(folder)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(folder / name)
    return folder


@pytest.mark.parametrize("options", [{"min_side": 64}, {"max_bad_images": 1}])
def test_an_open_size_is_that_of_most_images(options, odd_one):
    target = plan(odd_one, **options).target
    assert (target.height, target.width, target.channels) == (64, 64, 1)


def test_an_open_size_is_not_that_of_images_that_a_filter_leaves_out(tmp_path):
    folder = write_images(tmp_path / "set", [32] * 6 + [64] * 4)
    assert plan(folder).target.height == 32
    assert plan(folder, min_side=40).target.height == 64


def test_images_that_a_filter_leaves_out_do_not_determine_the_channels(odd_one):
    assert plan(odd_one, image_size=(16, 16)).target.channels == 3
    assert plan(odd_one, image_size=(16, 16), min_side=64).target.channels == 1
    assert plan(odd_one, image_size=(64, 64), resize="none").target.channels == 1


def test_filters_that_leave_out_all_first_images_are_refused(tmp_path):
    folder = write_images(tmp_path / "set", [32] * 3)
    check_refusal(lambda: plan(folder, min_side=40), DataError, "32×32", "min_side=40", "--image_size", "--channels")


@pytest.mark.parametrize("options", [{}, {"image_size": (4, 4), "channels": 3}])
def test_classes_without_images_are_refused(options, tmp_path):
    path = tmp_path / "named.npz"
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    np.savez(path, x=images, y=np.arange(6) % 3, classes=np.array(["a", "b", "c", "d"]))
    check_refusal(lambda: plan(path, classes=("d",), **options), ConfigError, "classes='d'")
    assert len(plan(path, classes=("c", "d"), **options).indices) == 2


def test_arrays_with_alpha_become_color_unless_four_channels_are_stated(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 4), np.uint8)
    np.save(tmp_path / "x.npy", images)
    assert plan(tmp_path / "x.npy").target.channels == 3
    assert plan(tmp_path / "x.npy", channels=4).target.channels == 4
