"""Refused inputs of the storage layer: paths, buckets, permissions and failing servers.

Every row states the type of the error and the facts that its message mentions. Its wording is free.
"""

import pytest
from refusals import Refusal, check_refusal

from trainer.errors import ConfigError, StorageError
from trainer.storage import RunDirectory, gcs, locate
from trainer.testing.fault_proxy import Fault

SECRET = "ya29."
"""Prefix of the token in the responses of the proxy."""


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
    with RunDirectory(str(folder)).open() as directory, directory.mirror_changes(f"{folder}/logs/of/tensorboard"):
        pass


TABLE = [
    Refusal("missing file", lambda folder, _: (folder / "missing.png").read_bytes(), StorageError, ("/missing.png",)),
    Refusal("missing file to copy", download, StorageError, ("/missing.png",)),
    Refusal("existing file", write_over, StorageError, ("/x",)),
    Refusal("logs among the logs", logs_among_logs, ConfigError, ("/logs/of/tensorboard", "/logs")),
    Refusal("no bucket", lambda *_: locate("gs:///x"), ConfigError, ("gs:///x",)),
]


@pytest.fixture
def folder(storage_folder):
    return storage_folder / "folder"


@pytest.mark.parametrize("refusal", TABLE, ids=lambda refusal: refusal.name)
def test_refused_paths_are_named(folder, tmp_path, refusal):
    check_refusal(lambda: refusal.act(folder, tmp_path / "here"), refusal.error, *refusal.mentions)


def operations(location, tmp_path):
    """Returns every operation on an object, the location in its error message, and the required role."""
    folder = location.parent
    return [
        (location.read_bytes, location, "objectViewer"),
        (location.exists, location, "objectViewer"),
        (lambda: list(folder.entries()), folder, "objectViewer"),
        (lambda: folder.download({"x": tmp_path / "x"}), location, "objectViewer"),
        (lambda: location.write_bytes(b"other"), location, "objectUser"),
        (lambda: folder.delete(["x"]), location, "objectUser"),
    ]


def test_a_missing_bucket_is_named(cloud_storage, tmp_path):
    for act, _, _ in operations(locate("gs://no-such-bucket/a/x"), tmp_path):
        check_refusal(act, StorageError, "gs://no-such-bucket")
    assert list(tmp_path.iterdir()) == []


def test_the_placeholder_of_a_bucket_is_named_before_credentials_are_needed(monkeypatch, tmp_path):
    monkeypatch.setattr("trainer.storage.gcs.client", lambda: pytest.fail("a request was sent"))
    for act, _, _ in operations(locate("gs://BUCKET/a/x"), tmp_path):
        check_refusal(act, ConfigError, "gs://BUCKET", "placeholder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        (Fault.DROPPED_REQUEST, "ConnectionError"),
        (Fault.LOST_RESPONSE, "ConnectionError"),
        (429, "429"),
        (500, "500"),
        (503, "503"),
    ],
)
def test_a_failing_server_is_reported_with_the_object(bucket, proxy, fate, reason, monkeypatch, tmp_path):
    location = locate(bucket) / "set/x"
    location.write_bytes(b"content")
    monkeypatch.setattr(gcs, "_RETRY", gcs._RETRY.with_timeout(0.05))
    proxy.policy = lambda request: fate
    for act, named, _ in operations(location, tmp_path):
        check_refusal(act, StorageError, str(named), reason)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_permission_is_named_with_its_role(bucket, proxy, tmp_path):
    location = locate(bucket) / "set/x"
    proxy.policy = lambda request: 403
    messages = []

    def noted(act):
        try:
            act()
        except StorageError as error:
            messages.append(str(error))
            raise

    for act, named, role in operations(location, tmp_path):
        check_refusal(lambda act=act: noted(act), StorageError, str(named), "403", f"roles/storage.{role}", bucket[5:])
    assert len(messages) == 6 and not any(SECRET in message for message in messages)
    assert len(proxy.requests) <= 7  # one per operation; the library may check the bucket first


def test_missing_credentials_are_reported_with_the_remedy(bucket, proxy):
    proxy.policy = lambda request: 401
    location = locate(bucket) / "x"
    check_refusal(location.read_bytes, StorageError, str(location), "gcloud auth application-default login")


def test_an_object_in_the_place_of_a_folder_is_named(bucket, tmp_path):
    for name in ("run/a", "run/a/b"):
        (locate(bucket) / name).write_bytes(b"1")
    files = {name: tmp_path / name for name in ("a", "a/b")}
    check_refusal(lambda: (locate(bucket) / "run").download(files), StorageError, f"{bucket}/run/a")
