"""Prepared datasets are read as they were written, and their format does not change."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import tensorflow as tf

from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_reader import read_prepared
from trainer.data.tfrecord_writer import write_prepared
from trainer.storage import file_crc32c, locate

RANDOM = np.random.Generator(np.random.PCG64(0))
LABELS = np.array([1, 0, 1, 2, 1, 1, 0])
TEXTS = {"name": "toy", "source": "made up", "license": "CC0", "attribution": "nobody"}


def images_of(height=4, width=6, channels=3):
    return RANDOM.integers(0, 256, (len(LABELS), height, width, channels), dtype=np.uint8)


def write(directory, images=None, labels=LABELS, num_shards=2):
    images = images_of() if images is None else images
    return write_prepared(directory, images, labels, ["a", "b", "c"], num_shards=num_shards, **TEXTS)


def read(directory):
    files = ShardCache(locate(directory))
    return *read_prepared(files), files.spec


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("num_shards", [1, 3, 7])
def test_written_arrays_are_read_back(tmp_path, channels, num_shards):
    images = images_of(channels=channels)
    written = write(tmp_path / "new", images, num_shards=num_shards)
    read_images, read_labels, spec = read(tmp_path / "new")
    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(read_labels, LABELS)
    assert (read_images.dtype, read_labels.dtype) == (np.uint8, np.int32)
    assert spec == written
    assert (spec.class_counts, spec.image_shape) == ((2, 4, 1), (4, 6, channels))
    assert len(spec.shards) == num_shards


def test_writing_twice_gives_the_same_bytes_and_no_other_file(tmp_path):
    images = images_of()
    for name in ("one", "two"):
        write(tmp_path / name, images)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["dataset.json", "toy-00000-of-00002.tfrecord", "toy-00001-of-00002.tfrecord"]
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


def test_the_description_has_every_field_of_the_format(tmp_path):
    spec = write(tmp_path)
    description = json.loads((tmp_path / "dataset.json").read_text())
    fields = dataclasses.asdict(spec)
    left_out = {"input_channels": 0, "condition_names": (), "encoding": "png", "conversion": ""}  # only written if set
    assert {name: fields.pop(name) for name in left_out} == left_out
    assert description == json.loads(json.dumps({"format_version": 1, **fields}))
    assert list(description) == [
        *("format_version", "name", "image_shape", "num_examples", "class_names", "class_counts"),
        *("shards", "source", "license", "attribution", "options"),
    ]
    shard = tmp_path / "toy-00001-of-00002.tfrecord"
    assert description["shards"][1] == {
        "file": shard.name,
        "num_examples": 4,
        "num_bytes": shard.stat().st_size,
        "sha256": hashlib.sha256(shard.read_bytes()).hexdigest(),
        "crc32c": file_crc32c(shard),
    }


def test_a_failed_rewrite_leaves_no_old_description(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr(tf.io, "encode_png", lambda image: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path)
    assert not (tmp_path / "dataset.json").exists()
