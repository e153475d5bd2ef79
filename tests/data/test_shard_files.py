"""Shards in a bucket are fetched once into a cache, checked, and fetched again where the cache lost or damaged them."""

import numpy as np
import pytest

from trainer.data.loading import load
from trainer.data.prepared import write_prepared
from trainer.data.shard_files import ShardFiles
from trainer.errors import ConfigError, DataError, StorageError
from trainer.storage import locate
from trainer.storage.buckets import BucketLocation

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8)
TEXTS = {"name": "set", "source": "", "license": "", "attribution": ""}


@pytest.fixture
def remote(bucket, tmp_path):
    """A set of four shards in a bucket."""
    write_prepared(tmp_path / "set", IMAGES, np.arange(12) % 2, ["a", "b"], num_shards=4, **TEXTS)
    folder = locate(bucket) / "sets/set"
    folder.upload(tmp_path / "set", [path.name for path in (tmp_path / "set").iterdir()])
    return folder


@pytest.fixture
def downloads(monkeypatch):
    """The names that are fetched from buckets."""
    fetched = []
    plain = BucketLocation.download
    monkeypatch.setattr(BucketLocation, "download", lambda self, files: (fetched.extend(files), plain(self, files)))
    return fetched


def test_a_data_set_in_a_bucket_is_loaded_by_its_name(remote, tmp_path, monkeypatch, downloads):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):
        assert (load(str(remote)).images == IMAGES).all()
    assert len(downloads) == 4 and len(list((tmp_path / "cache/gan-trainer/shards").iterdir())) == 4
    with pytest.raises(ConfigError, match=r"dataset=gs://.*/nothing has no dataset\.json"):
        load(str(remote.parent / "nothing"))


def test_what_the_cache_damaged_is_fetched_again(remote, tmp_path, downloads):
    files = ShardFiles(remote, tmp_path / "cache")
    first = files.paths(files.manifest.shards)[0]
    content = first.read_bytes()
    first.write_bytes(content[:-1] + b"x")
    assert ShardFiles(remote, tmp_path / "cache").paths(files.manifest.shards)[0].read_bytes() == content
    assert downloads.count(files.manifest.shards[0].file) == 2 and len(downloads) == 5


def test_what_was_used_least_recently_goes_when_the_cache_is_full(remote, tmp_path, downloads):
    shards = ShardFiles(remote, tmp_path / "cache").manifest.shards
    files = ShardFiles(remote, tmp_path / "cache", cache_mib=2.5 * shards[0].num_bytes / 2**20)
    for index in (0, 1, 0, 2):
        (path,) = files.paths([shards[index]])
        assert path.exists()
    held = {path.stem for path in (tmp_path / "cache").iterdir()}
    assert held == {shards[0].sha256, shards[2].sha256} and len(downloads) == 3


def test_a_shard_that_the_bucket_lost_or_changed_is_named(remote, tmp_path):
    files = ShardFiles(remote, tmp_path / "cache")
    (remote / files.manifest.shards[1].file).write_bytes(b"something else")
    with pytest.raises(
        DataError, match=r"shard gs://.*/set-00001-of-00004\.tfrecord has 14 bytes, dataset\.json states"
    ):
        files.paths(files.manifest.shards)
    remote.delete([files.manifest.shards[2].file])
    with pytest.raises(StorageError, match=r"set-00002-of-00004\.tfrecord does not exist"):
        ShardFiles(remote, tmp_path / "other").paths(files.manifest.shards)
