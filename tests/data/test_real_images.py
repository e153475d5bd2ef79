"""The real images that metrics compare with do not depend on how the dataset is loaded."""

import numpy as np
import pytest

from trainer.config import TrainConfig
from trainer.data import tfrecord_reader
from trainer.data.loading import load_training_data
from trainer.data.tfrecord_writer import write_prepared

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 4, 3), np.uint8)
TEXTS = {"source": "", "license": "", "attribution": ""}


def write(folder, images=IMAGES, num_shards=6):
    write_prepared(folder, images, np.arange(len(images)) % 3, list("abc"), num_shards=num_shards, name="set", **TEXTS)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("set"))


def data_of(dataset, **settings):
    return load_training_data(TrainConfig(dataset=dataset, **settings))


def blocks_of(data, num_images, block_size=4):
    return list(data.image_blocks(num_images, block_size))


@pytest.mark.parametrize("num_images", [1, 4, 17, 26, 40, 1000, None])
@pytest.mark.parametrize("settings", [{}, {"classes": (2, 0)}, {"padding": 2}, {"classes": (1,), "padding": 1}])
def test_streams_and_arrays_have_the_same_first_images(folder, settings, num_images):
    is_selected = np.isin(np.arange(40) % 3, settings.get("classes", (0, 1, 2)))
    padding = settings.get("padding", 0)
    expected = np.pad(IMAGES[is_selected], ((0, 0), (padding, padding), (padding, padding), (0, 0)))[:num_images]
    whole = data_of(folder, **settings)
    for data in (whole, data_of(folder, num_chunks=2, **settings), data_of(folder, num_chunks=5, seed=7, **settings)):
        blocks = blocks_of(data, num_images)
        assert all(len(block) == 4 for block in blocks[:-1])
        np.testing.assert_array_equal(np.concatenate(blocks), expected)
        np.testing.assert_array_equal(data.real_images(num_images)[0], expected)
        assert data.source_fingerprint == whole.source_fingerprint


def test_images_of_a_transformed_set_are_transformed(folder):
    np.testing.assert_array_equal(np.concatenate(blocks_of(data_of(f"inverted:{folder}"), 5)), 255 - IMAGES[:5])


def test_both_domains_have_their_first_images():
    data = data_of("digits", dataset_b="inverted:digits", model="cyclegan")
    first, second = data.real_images(3)
    assert first.shape == second.shape == (3, 28, 28, 1)
    np.testing.assert_array_equal(first, 255 - second)


def test_the_fingerprint_differs_if_the_images_do(folder, tmp_path):
    others = [
        data_of(folder),
        data_of(folder, classes=(0, 1)),
        data_of(folder, classes=(0, 2)),
        data_of(folder, padding=1),
        data_of(f"inverted:{folder}"),
        data_of(f"inverted:inverted:{folder}"),
        data_of(write(tmp_path / "changed", 255 - IMAGES)),
        data_of("digits"),
        data_of("tinted:digits"),
        data_of("stacked:digits"),
    ]
    assert len({data.source_fingerprint for data in others}) == len(others)


def test_the_fingerprint_does_not_depend_on_settings_of_training(folder, tmp_path):
    settings = [{}, {"seed": 3}, {"balance_classes": True}, {"horizontal_flips": True}, {"image_range": "0..1"}]
    fingerprints = {data_of(folder, **changes).source_fingerprint for changes in settings}
    fingerprints |= {data_of(write(tmp_path / "copy"), **changes).source_fingerprint for changes in settings}
    assert len(fingerprints) == 1
    orders = {data_of(folder, classes=order).source_fingerprint for order in [(0, 1), (1, 0)]}
    assert len(orders) == 1


def test_only_the_shards_of_the_first_images_are_read(folder, monkeypatch):
    data, read = data_of(folder, num_chunks=3), []
    original = tfrecord_reader._iterate_shard

    def recorded(files, shard, select):
        read.append(shard.file)
        return original(files, shard, select)

    monkeypatch.setattr(tfrecord_reader, "_iterate_shard", recorded)
    blocks_of(data, 9)
    assert read == [shard.file for shard in data.x.files.spec.shards[:2]]
