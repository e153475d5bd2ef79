"""Every operation does what it says when one request in three fails, and says in one sentence when all do."""

import hashlib
import random
import re

import pytest
from faults import Fault, one_in

from trainer.errors import StorageError
from trainer.storage import buckets, locate


def content(name, num_bytes=5000):
    return random.Random(name).randbytes(num_bytes)


def test_operations_arrive_whole_although_one_request_in_three_fails(bucket, proxy, tmp_path):
    folder = locate(bucket) / "folder"
    proxy.fate = one_in(3)
    names = [f"{number % 3}/{number}.bin" for number in range(30)]
    for name in names:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content(name))
    folder.upload(tmp_path / "out", names, only_new=True)
    folder.download({name: tmp_path / "back" / name for name in names})
    assert {name: (tmp_path / "back" / name).read_bytes() for name in names} == {name: content(name) for name in names}
    for number in range(10):
        (folder / "x").write_bytes(content(number))
        assert (folder / "x").exists() and not (folder / "y").exists()
        assert (folder / "x").read_bytes() == content(number)
    assert [entry.name for entry in folder.entries()] == sorted([*names, "x"])
    folder.delete(names)
    assert [entry.name for entry in folder.entries()] == ["x"]
    assert len(proxy.failed) > 30


def test_a_large_object_arrives_whole_although_one_request_in_three_fails(bucket, proxy, tmp_path):
    (tmp_path / "large").write_bytes(content("large", 20 * 2**20))
    for seed in range(5):
        proxy.fate = one_in(3, seed)
        locate(bucket).upload(tmp_path, ["large"])
        locate(bucket).download({"large": tmp_path / "back"})
        assert (
            hashlib.sha256((tmp_path / "back").read_bytes()).digest()
            == hashlib.sha256(content("large", 20 * 2**20)).digest()
        )
    assert proxy.failed


@pytest.mark.parametrize(
    ("fate", "reason"),
    [(Fault.DROPPED, "ConnectionError"), (Fault.LOST, "ConnectionError"), (429, "429"), (500, "500"), (503, "503")],
)
def test_a_server_that_never_answers_well_is_one_sentence(bucket, proxy, fate, reason, monkeypatch, tmp_path):
    place = locate(bucket) / "set/x"
    place.write_bytes(b"content")
    monkeypatch.setattr(buckets, "_RETRY", buckets._RETRY.with_timeout(0.05))
    proxy.fate = lambda request: fate
    for act, what in (
        (place.read_bytes, f"{place} cannot be read"),
        (place.exists, f"{place} cannot be read"),
        (lambda: list(place.parent.entries()), f"{place.parent} cannot be listed"),
        (lambda: place.write_bytes(b"other"), f"{place} cannot be written"),
        (lambda: place.parent.delete(["x"]), f"{place} cannot be deleted"),
        (lambda: place.parent.download({"x": tmp_path / "x"}), f"{place} cannot be read"),
    ):
        with pytest.raises(StorageError) as raised:
            act()
        assert re.fullmatch(
            rf"{what}: Cloud Storage did not answer as it should for 0 s \(\w*{reason}\w*\); check the network and try "
            r"again\.",
            str(raised.value).replace(" " + reason, reason),
        )
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_permission_is_asked_once_and_names_object_and_role_and_no_token(bucket, proxy, tmp_path):
    place = locate(bucket) / "set/x"
    proxy.fate = lambda request: 403
    for act, done, role in (
        (place.read_bytes, "read", "objectViewer"),
        (place.exists, "read", "objectViewer"),
        (lambda: list(place.parent.entries()), "listed", "objectViewer"),
        (lambda: place.parent.download({"x": tmp_path / "x"}), "read", "objectViewer"),
        (lambda: place.write_bytes(b""), "written", "objectUser"),
        (lambda: place.parent.delete(["x"]), "deleted", "objectUser"),
    ):
        with pytest.raises(StorageError) as raised:
            act()
        named = place.parent if done == "listed" else place
        assert str(raised.value) == (
            f"{named} cannot be {done}: this account has no permission (403); grant it roles/storage.{role} on the "
            f"bucket {bucket[5:]}."
        )
    assert len(proxy.requests) <= 7  # once each; the library may look at the bucket before


def test_a_server_that_wants_credentials_says_how_to_get_them(bucket, proxy):
    proxy.fate = lambda request: 401
    with pytest.raises(StorageError) as raised:
        (locate(bucket) / "x").read_bytes()
    assert str(raised.value) == (
        f"{bucket}/x cannot be read: no Google credentials were found or they have expired; run gcloud auth "
        "application-default login."
    )
