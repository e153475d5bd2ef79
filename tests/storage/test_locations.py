"""Local files and objects in a bucket behave alike."""

import errno
import hashlib
import os
import shutil

import google.auth
import pytest
from google.auth.credentials import AnonymousCredentials
from refusals import check_refusal

from trainer.errors import MissingError, StorageError
from trainer.storage import gcs, locate
from trainer.storage.gcs import BucketLocation, client


@pytest.fixture
def folder(storage_folder):
    return storage_folder / "folder"


def test_written_files_are_read_and_listed_in_order(folder):
    assert list(folder.entries()) == [] and not (folder / "a").exists()
    for name in ("b.png", "a/2", "a/10", "c ä.json"):
        (folder / name).write_bytes(name.encode())
    assert [entry.name for entry in folder.entries()] == ["a/10", "a/2", "b.png", "c ä.json"]
    assert [entry.num_bytes for entry in folder.entries()] == [4, 3, 5, 9]
    assert (folder / "a/2").read_bytes() == b"a/2" and (folder / "a/2").exists()
    assert (folder / "a").name == "a" and ((folder / "a") / "2").exists() and (folder / "a/2").parent.name == "a"
    folder.delete(["b.png", "missing"])
    assert not (folder / "b.png").exists()


def test_the_size_of_a_file_is_known_without_reading_it(folder):
    for content in (b"", b"1", bytes(100_000)):
        (folder / "a/x").write_bytes(content)
        assert (folder / "a/x").num_bytes() == len(content)
    check_refusal((folder / "a/missing").num_bytes, MissingError, "a/missing")
    check_refusal((folder / "a").num_bytes, StorageError, str(folder / "a"))


def test_a_listing_without_subfolders_has_only_the_top_files(folder):
    for name in ("b", "a/b", "c/d/e"):
        (folder / name).write_bytes(b"1")
    assert [entry.name for entry in folder.entries(recursive=False)] == ["b"]
    assert [entry.name for entry in (folder / "c").entries(recursive=False)] == []


def names(folder, **how):
    return [entry.name for entry in folder.entries(**how)]


def test_links_are_followed_but_not_in_circles(tmp_path):
    folder = locate(tmp_path / "folder")
    for location in (folder / "a/1", folder / "z/deep/2", locate(tmp_path / "elsewhere/inside/3")):
        location.write_bytes(b"1")
    for name, target in {
        "b": tmp_path / "elsewhere",
        "c": "a/1",
        "d": "a",
        "a/up": "..",
        "z/deep/top": "../..",
    }.items():
        (folder.path / name).symlink_to(target)
    (tmp_path / "elsewhere" / "inside" / "back").symlink_to(tmp_path / "elsewhere")
    assert names(folder) == ["a/1", "b/inside/3", "c", "d/1", "z/deep/2"]
    assert names(folder, recursive=False) == ["c"]


@pytest.mark.parametrize("target", ["nowhere", "circle"])
def test_a_broken_link_is_named_unless_it_is_hidden(tmp_path, target):
    folder = locate(tmp_path / "folder")
    (folder / "a/1").write_bytes(b"1")
    for name in (".#1", "a/.#1", "circle"):
        (folder.path / name).symlink_to(target)
    assert names(folder, recursive=False) == []
    check_refusal(lambda: names(folder), StorageError, str(folder.path / "circle"))
    (folder.path / "circle").unlink()
    assert names(folder) == ["a/1"]


@pytest.fixture
def refused(monkeypatch):
    """Names of folders that cannot be read."""
    unreadable, scandir = set(), os.scandir

    def scan(folder):
        if os.path.basename(folder) in unreadable:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr("os.scandir", scan)
    return unreadable


def test_an_unreadable_folder_is_named_unless_it_is_hidden(tmp_path, refused):
    folder = locate(tmp_path / "folder")
    for name in ("a/1", "locked/2", ".trash/3"):
        (folder / name).write_bytes(b"1")
    refused.add(".trash")
    assert names(folder) == ["a/1", "locked/2"]
    refused.add("locked")
    check_refusal(lambda: names(folder), StorageError, str(folder.path / "locked"), "Permission denied")
    assert names(folder, recursive=False) == []
    refused.add("folder")
    check_refusal(lambda: names(folder), StorageError, str(folder.path), "Permission denied")


def test_files_deleted_during_a_listing_are_left_out(tmp_path, monkeypatch):
    folder = locate(tmp_path / "folder")
    for name in ("a/1", "b/2", "c"):
        (folder / name).write_bytes(b"1")
    entries = folder.entries()
    assert next(entries).name == "a/1"
    (folder / "b/2").path.unlink()
    assert [entry.name for entry in entries] == ["c"]
    scandir = os.scandir

    def late(path):
        shutil.rmtree(folder.path / "a", ignore_errors=True)
        return scandir(path)

    monkeypatch.setattr("os.scandir", late)
    assert names(folder) == ["c"]
    assert names(folder / "c") == names(folder / "d") == []


def test_a_file_is_overwritten_unless_only_new_is_given(folder):
    (folder / "x").write_bytes(b"one")
    (folder / "x").write_bytes(b"two")
    assert (folder / "x").read_bytes() == b"two"
    check_refusal(lambda: (folder / "x").write_bytes(b"three", only_new=True), StorageError, str(folder / "x"))
    (folder / "y").write_bytes(b"new", only_new=True)
    assert (folder / "x").read_bytes() == b"two"


def test_the_remedy_of_a_disk_error_depends_on_its_cause(folder, tmp_path, monkeypatch):
    (folder / "x").write_bytes(b"1")
    remedies = {}
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):

        def fail(*_, code=code):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(StorageError) as caught:
            folder.download({"x": tmp_path / "x"})
        remedies[code] = str(caught.value).rpartition("; ")[2]
    assert remedies[errno.ENOSPC] == remedies[errno.EDQUOT] != remedies[errno.EACCES] == remedies[errno.EROFS]


def test_many_files_are_uploaded_and_downloaded(folder, tmp_path):
    names = [f"{number % 3}/{number}.bin" for number in range(40)]
    for name in names:
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hashlib.sha256(name.encode()).digest() * 1000)
    folder.upload(tmp_path / "out", names)
    folder.download({name: tmp_path / "back" / name for name in names})
    for name in names:
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "back").rglob("*.partial")) == []
    (tmp_path / "out" / names[0]).write_bytes(b"another")
    check_refusal(
        lambda: folder.upload(tmp_path / "out", names[:1], only_new=True), StorageError, str(folder / names[0])
    )


def test_a_bucket_is_no_file(bucket):
    location = locate(bucket)
    assert not location.exists()
    for act in (location.read_bytes, location.num_bytes, lambda: location.write_bytes(b"x")):
        check_refusal(act, StorageError, bucket)


def test_a_large_object_is_uploaded_in_parts(bucket, tmp_path):
    (tmp_path / "large").write_bytes(bytes(range(256)) * (40 * 2**12))
    locate(bucket).upload(tmp_path, ["large"])
    locate(bucket).download({"large": tmp_path / "back" / "large"})
    assert (tmp_path / "back" / "large").read_bytes() == (tmp_path / "large").read_bytes()


def test_an_upload_may_be_retried_after_a_lost_response(bucket):
    location = locate(bucket) / "x"
    location.write_bytes(b"ours")
    location.write_bytes(b"ours", only_new=True)  # like a second attempt
    check_refusal(lambda: location.write_bytes(b"theirs", only_new=True), StorageError, str(location))


def test_credentials_need_no_project(monkeypatch):
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(google.auth, "default", lambda *scopes, **settings: (AnonymousCredentials(), None))
    made = gcs._make_client.__wrapped__(0, None)
    assert made.project is None and made._connection.API_BASE_URL == "https://storage.googleapis.com"
    made.close()


def test_a_process_has_one_client_and_names_are_parsed(cloud_storage):
    assert client() is client()
    location = locate("gs://bucket/a/b/")
    assert (
        isinstance(location, BucketLocation)
        and str(location) == "gs://bucket/a/b"
        and str(location / "c") == "gs://bucket/a/b/c"
    )
    assert str(locate("gs://bucket")) == "gs://bucket" and locate("gs://bucket").name == "bucket"
