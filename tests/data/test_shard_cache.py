"""Shards in a bucket are downloaded once, verified, and downloaded again if the cache lost or damaged them."""

import errno
import os
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
from google.cloud import storage
from refusals import check_refusal

from trainer.data import tfrecord_reader
from trainer.data.loading import load
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_reader import read_records, read_shards
from trainer.data.tfrecord_writer import write_prepared
from trainer.errors import ConfigError, DataError, StorageError
from trainer.storage import locate
from trainer.storage.gcs import BucketLocation

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8)
TEXTS = {"name": "set", "source": "", "license": "", "attribution": ""}


@pytest.fixture
def remote(bucket, tmp_path):
    """A dataset of four shards in a bucket."""
    write_prepared(tmp_path / "set", IMAGES, np.arange(12) % 2, ["a", "b"], num_shards=4, **TEXTS)
    folder = locate(bucket) / "sets/set"
    folder.upload(tmp_path / "set", [path.name for path in (tmp_path / "set").iterdir()])
    return folder


@pytest.fixture
def downloads(monkeypatch):
    """Names of the files that are downloaded from buckets."""
    fetched = []
    plain = BucketLocation.download
    monkeypatch.setattr(
        BucketLocation, "download", lambda self, files, **how: (fetched.extend(files), plain(self, files, **how))
    )
    return fetched


def test_a_dataset_in_a_bucket_is_downloaded_once(remote, tmp_path, monkeypatch, downloads):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):
        assert (load(str(remote)).images == IMAGES).all()
    assert len(downloads) == 4 and len(list((tmp_path / "cache/gan-trainer/shards").iterdir())) == 4
    nothing = str(remote.parent / "nothing")
    check_refusal(lambda: load(nothing), ConfigError, f"dataset={nothing}", "dataset.json")


def test_a_damaged_cached_shard_is_downloaded_again(remote, tmp_path, downloads):
    files = ShardCache(remote, tmp_path / "cache")
    files.fetch(files.spec.shards)
    content, damages = files.read(files.spec.shards[0]), (lambda old: old[:-1] + b"x", lambda old: old[:-1])
    for number, damage in enumerate(damages, 2):
        for reader in (files, ShardCache(remote, tmp_path / "cache")):
            files.path(files.spec.shards[0]).write_bytes(damage(content))
            reader.fetch(reader.spec.shards)
            assert reader.read(reader.spec.shards[0]) == content
        assert downloads.count(files.spec.shards[0].file) == 2 * number - 1
    assert len(downloads) == 8


def test_a_full_cache_deletes_the_least_recently_used_shard(remote, tmp_path, downloads):
    shards = ShardCache(remote, tmp_path / "cache").spec.shards
    files = ShardCache(remote, tmp_path / "cache", cache_mib=2.5 * shards[0].num_bytes / 2**20)
    for index in (0, 1, 0, 2):
        files.fetch([shards[index]])
        assert files.path(shards[index]).exists()
    cached = {path.stem for path in (tmp_path / "cache").iterdir()}
    assert cached == {shards[0].sha256, shards[2].sha256} and len(downloads) == 3


@pytest.mark.parametrize("num_shards", [0, 1, 2, 3, 4])
def test_the_cache_is_never_larger_than_allowed(num_shards, remote, tmp_path, downloads):
    shard_bytes = ShardCache(remote).spec.shards[0].num_bytes
    files = ShardCache(remote, tmp_path / "cache", cache_mib=num_shards * shard_bytes * 1.01 / 2**20)
    shards, sizes = files.spec.shards, []
    for read in (read_shards, lambda *arguments: read_records(*arguments, np.arange(12))):
        batches = []
        for batch in read(files, shards):
            batches.append(batch[0] if isinstance(batch, tuple) else batch)
            sizes.append(len(list((tmp_path / "cache").iterdir())))
        assert (np.concatenate(batches) == IMAGES).all()
    assert max(sizes) == max(1, num_shards) and downloads[:4] == [shard.file for shard in shards]


def test_a_missing_or_changed_shard_in_a_bucket_is_named(remote, tmp_path):
    files = ShardCache(remote, tmp_path / "cache")
    (remote / files.spec.shards[1].file).write_bytes(b"something else")
    changed, lost = (str(remote / shard.file) for shard in files.spec.shards[1:3])
    check_refusal(lambda: files.fetch(files.spec.shards), DataError, changed, "14", "dataset.json")
    remote.delete([files.spec.shards[2].file])
    others = ShardCache(remote, tmp_path / "other")
    check_refusal(lambda: others.fetch(files.spec.shards), StorageError, lost)


def test_two_runs_download_one_shard_into_one_cache(remote, tmp_path, monkeypatch):
    both = threading.Barrier(2, timeout=20)
    partials = []

    def together(self, filename, plain=storage.Blob.download_to_filename, **settings):
        partials.append(filename)
        both.wait()
        plain(self, filename, **settings)
        both.wait()  # neither download has renamed its file yet

    monkeypatch.setattr(storage.Blob, "download_to_filename", together)
    runs = [ShardCache(remote, tmp_path / "cache") for _ in range(2)]
    threads = [threading.Thread(target=files.fetch, args=(files.spec.shards[:1],)) for files in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(partials)) == 2
    assert [path.stem for path in (tmp_path / "cache").iterdir()] == [runs[0].spec.shards[0].sha256]


def test_files_of_interrupted_downloads_are_deleted_after_a_day(remote, tmp_path):
    (tmp_path / "cache").mkdir()
    for name, age in (
        (".a.tfrecord.partial", 90_000),
        (".b.tfrecord.1.partial", 90_000),
        (".c.tfrecord.2.partial", 60),
    ):
        (tmp_path / "cache" / name).touch()
        os.utime(tmp_path / "cache" / name, times=(time.time() - age,) * 2)
    files = ShardCache(remote, tmp_path / "cache")
    files.fetch(files.spec.shards[:1])
    assert [path.name for path in (tmp_path / "cache").glob(".*")] == [".c.tfrecord.2.partial"]


def test_a_shard_that_another_run_deleted_is_downloaded_again(remote, tmp_path, downloads):
    ours, theirs = (ShardCache(remote, tmp_path / "cache", cache_mib=mib) for mib in (1, 0))
    shards = ours.spec.shards
    reading = read_shards(ours, shards[:2])
    images = [next(reading)[0]]
    theirs.fetch(shards[2:3])
    assert {path.stem for path in (tmp_path / "cache").iterdir()} == {shards[2].sha256}
    images.append(next(reading)[0])
    assert (np.concatenate(images) == IMAGES[:6]).all()
    assert downloads == [shards[index].file for index in (0, 1, 2, 1)]


def test_a_shard_may_be_deleted_or_replaced_while_its_records_are_read(remote, tmp_path, downloads, monkeypatch):
    monkeypatch.setattr(tfrecord_reader, "_MAX_BATCH_SIZE", 1)
    for change in (Path.unlink, lambda path: path.write_bytes(b"something else")):
        files = ShardCache(remote, tmp_path / "cache")
        batches = read_shards(files, files.spec.shards[:1])
        images = [next(batches)[0]]
        change(files.path(files.spec.shards[0]))
        images += [batch for batch, _ in batches]
        assert (np.concatenate(images) == IMAGES[:3]).all()
    assert downloads == [files.spec.shards[0].file] * 2


def test_files_that_another_run_deletes_cause_no_error(remote, tmp_path, monkeypatch, downloads):
    def gone_before(act):
        def acted(path, *arguments, **settings):
            if path not in deleted and str(path).endswith(".tfrecord") and os.path.exists(path):
                deleted.append(path)
                os.unlink(path)
            return act(path, *arguments, **settings)

        return acted

    def listed(self, pattern, plain=Path.glob):
        return [*plain(self, pattern), self / "gone.tfrecord"]

    for module, name in ((os, "utime"), (Path, "stat"), (Path, "is_file"), (Path, "open")):
        deleted = []
        files = ShardCache(remote, tmp_path / name)
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(module, name, gone_before(getattr(module, name)))
            meanwhile.setattr(Path, "glob", listed)
            files.fetch(files.spec.shards[:2])
            assert (next(read_shards(files, files.spec.shards[:1]))[0] == IMAGES[:3]).all()
        assert deleted and downloads
        downloads.clear()


def test_a_shard_that_is_always_deleted_is_an_error(remote, tmp_path, monkeypatch):
    files = ShardCache(remote, tmp_path / "cache")

    shard = files.spec.shards[0]
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    facts = (str(remote / shard.file), str(tmp_path / "cache"), "--cache_mib")
    check_refusal(lambda: files.read(shard), StorageError, *facts)


def test_a_local_shard_deleted_during_a_run_is_named(tmp_path):
    write_prepared(tmp_path, IMAGES, np.arange(12) % 2, ["a", "b"], num_shards=4, **TEXTS)
    files = ShardCache(locate(tmp_path))
    for shard in files.spec.shards:
        files.path(shard).unlink()
    reading = read_shards(files, files.spec.shards)
    check_refusal(lambda: next(reading), DataError, "set-00000-of-00004.tfrecord", "dataset.json")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
@pytest.mark.parametrize("name", ["stat", "open"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch, name, number):
    write_prepared(tmp_path, IMAGES, np.arange(12) % 2, ["a", "b"], num_shards=4, **TEXTS)
    files = ShardCache(locate(tmp_path))

    def fail(path, *arguments, **settings):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, name, fail)
    facts = ("set-00000-of-00004.tfrecord", os.strerror(number))
    check_refusal(lambda: next(read_shards(files, files.spec.shards)), StorageError, *facts)


def test_an_error_that_names_no_file_gets_its_name(tmp_path, monkeypatch):
    write_prepared(tmp_path, IMAGES, np.arange(12) % 2, ["a", "b"], num_shards=4, **TEXTS)
    files = ShardCache(locate(tmp_path))

    def fail(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = files.path(files.spec.shards[0])
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(os, "fstat", fail)
        check_refusal(lambda: files.read(files.spec.shards[0]), StorageError, str(path))


def test_a_cached_shard_of_another_user_is_read(remote, tmp_path, monkeypatch, downloads):
    ShardCache(remote, tmp_path / "cache").fetch(ShardCache(remote).spec.shards)

    def refuse(path, **times):
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "utime", refuse)
    files = ShardCache(remote, tmp_path / "cache")
    assert (next(read_shards(files, files.spec.shards))[0] == IMAGES[:3]).all() and len(downloads) == 4


def test_a_cancelled_reader_downloads_no_further_shard(remote, tmp_path, monkeypatch):
    closing, plain = threading.Event(), storage.Blob.download_to_filename
    monkeypatch.setattr("trainer.storage.parallel.NUM_THREADS", 1)
    monkeypatch.setattr(storage.Blob, "download_to_filename", lambda *a, **how: (closing.set(), plain(*a, **how)))
    files = ShardCache(remote, tmp_path / "cache")
    with pytest.raises(CancelledError):
        files.with_cancellation(closing).fetch(files.spec.shards)
    assert [path.stem for path in (tmp_path / "cache").iterdir()] == [files.spec.shards[0].sha256]
    files.fetch(files.spec.shards)
    assert all(files.read(shard) for shard in files.spec.shards)
