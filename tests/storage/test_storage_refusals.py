"""Refused inputs of the storage layer: paths, buckets, permissions and servers that do not answer.

Every row states the error's type and the facts that its message mentions. The prose around them is free.
"""

import pytest
from faults import Fault
from refusals import Refusal, check_refusal

from trainer.errors import ConfigError, StorageError
from trainer.storage import RunDirectory, gcs, locate

SECRET = "ya29."
"""The beginning of the token in the answers of the proxy."""


def download(folder, here):
    (folder / "there").write_bytes(b"1")
    try:
        folder.download({"missing.png": here / "missing.png"})
    finally:
        assert not (here / "missing.png").exists()


def write_over(folder, here):
    (folder / "x").write_bytes(b"ours")
    (folder / "x").write_bytes(b"theirs", only_new=True)


def logs_among_logs(folder, here):
    with RunDirectory(str(folder)).opened() as directory, directory.mirrored(f"{folder}/logs/of/tensorboard"):
        pass


TABLE = [
    Refusal("missing file", lambda folder, _: (folder / "missing.png").read_bytes(), StorageError, ("/missing.png",)),
    Refusal("missing file to copy", download, StorageError, ("/missing.png",)),
    Refusal("existing file", write_over, StorageError, ("/x",)),
    Refusal("logs among the logs", logs_among_logs, ConfigError, ("/logs/of/tensorboard", "/logs")),
    Refusal("no bucket", lambda *_: locate("gs:///x"), StorageError, ("gs:///x",)),
]


@pytest.fixture(params=["local", "bucket"])
def folder(request, tmp_path):
    if request.param == "local":
        return locate(tmp_path / "folder")
    return locate(request.getfixturevalue("bucket")) / "folder"


@pytest.mark.parametrize("refusal", TABLE, ids=lambda refusal: refusal.name)
def test_refused_paths_are_named(folder, tmp_path, refusal):
    check_refusal(lambda: refusal.act(folder, tmp_path / "here"), refusal.error, *refusal.mentions)


def operations(place, tmp_path):
    """Every operation on an object, the place that its error names, and the role that it needs."""
    folder = place.parent
    return [
        (place.read_bytes, place, "objectViewer"),
        (place.exists, place, "objectViewer"),
        (lambda: list(folder.entries()), folder, "objectViewer"),
        (lambda: folder.download({"x": tmp_path / "x"}), place, "objectViewer"),
        (lambda: place.write_bytes(b"other"), place, "objectUser"),
        (lambda: folder.delete(["x"]), place, "objectUser"),
    ]


def test_a_missing_bucket_is_named(cloud_storage, tmp_path):
    for act, _, _ in operations(locate("gs://no-such-bucket/a/x"), tmp_path):
        check_refusal(act, StorageError, "gs://no-such-bucket")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fate", "reason"),
    [(Fault.DROPPED, "ConnectionError"), (Fault.LOST, "ConnectionError"), (429, "429"), (500, "500"), (503, "503")],
)
def test_a_server_that_always_fails_is_named_with_the_object(bucket, proxy, fate, reason, monkeypatch, tmp_path):
    place = locate(bucket) / "set/x"
    place.write_bytes(b"content")
    monkeypatch.setattr(gcs, "_RETRY", gcs._RETRY.with_timeout(0.05))
    proxy.fate = lambda request: fate
    for act, named, _ in operations(place, tmp_path):
        check_refusal(act, StorageError, str(named), reason)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_permission_is_named_with_its_role(bucket, proxy, tmp_path):
    place = locate(bucket) / "set/x"
    proxy.fate = lambda request: 403
    messages = []

    def noted(act):
        try:
            act()
        except StorageError as error:
            messages.append(str(error))
            raise

    for act, named, role in operations(place, tmp_path):
        check_refusal(lambda act=act: noted(act), StorageError, str(named), "403", f"roles/storage.{role}", bucket[5:])
    assert len(messages) == 6 and not any(SECRET in message for message in messages)
    assert len(proxy.requests) <= 7  # once each; the library may look at the bucket before


def test_missing_credentials_are_answered_with_the_command(bucket, proxy):
    proxy.fate = lambda request: 401
    place = locate(bucket) / "x"
    check_refusal(place.read_bytes, StorageError, str(place), "gcloud auth application-default login")
