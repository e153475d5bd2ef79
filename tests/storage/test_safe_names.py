"""Untrusted names are refused unless they are plain relative names that stay inside their folder."""

import os

import pytest
from hostile import PLAIN, check_raised, hostile_names, is_clean, name_of
from refusals import check_refusal

from trainer.errors import CheckpointError, DataError, StorageError, quote
from trainer.storage import Mirror, check_relative_name, check_sha256, locate, path_below, paths_below

pytestmark = pytest.mark.usefixtures("outside")


@hostile_names
def test_a_hostile_name_is_refused_and_escaped(key, outside, work):
    name = name_of(key, outside)
    for error in (StorageError, CheckpointError, DataError):
        with pytest.raises(error) as caught:
            check_relative_name(name, f"gs://bucket/{name[:40]}", error)
        check_raised(caught)
        with pytest.raises(error) as caught:
            path_below(work, name, error=error)
        check_raised(caught)
    assert len(quote(name)) <= 200 and is_clean(quote(name))


@pytest.mark.parametrize("name", ["", None, 3, ["a"], "a/", "\ud800"])
def test_values_that_are_not_names_are_refused(name, work):
    with pytest.raises(StorageError) as caught:
        check_relative_name(name, work)
    check_raised(caught)


@pytest.mark.parametrize("name", ["https://host/x.png", "gs://bucket/x.png", "file:///etc/passwd"])
def test_an_address_is_called_so(name, work):
    check_refusal(lambda: check_relative_name(name, "x.csv", DataError), DataError, "x.csv", name, "URL")


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_name_is_accepted_unchanged(name, work):
    assert path_below(work, name) == work / name


def test_a_link_may_not_lead_out_of_its_folder(work, outside):
    (work / "run").mkdir()
    (work / "alias").symlink_to(work / "run")
    (work / "run/file").touch()
    for name, target in {"inside": "file", "file-out": outside / "secret", "out": outside, "gone": "../gone"}.items():
        (work / "run" / name).symlink_to(target)
    (work / "run/circle").symlink_to("circle")
    assert path_below(work / "alias", "inside") == work / "alias/inside"
    for name in ("file-out", "out", "out/secret", "out/new", "gone"):
        for folder in (work / "run", work / "alias"):
            with pytest.raises(StorageError):
                path_below(folder, name)


def test_a_folder_is_resolved_once_for_many_names(work, outside, monkeypatch):
    (work / "out").symlink_to(outside)
    resolved, plain = [], os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: (resolved.append(path), plain(path))[1])
    names = [f"shards/{number}" for number in range(10)]
    assert paths_below(work, names) == [work / name for name in names]
    assert resolved == [work]
    for name in ("out", "out/secret", "../x"):
        with pytest.raises(StorageError):
            paths_below(work, [*names, name])


@pytest.mark.parametrize(
    "digest", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "../" * 21 + "x", "0" * 64 + "\n", None]
)
def test_an_invalid_sha256_is_refused(digest, work):
    assert check_sha256("0a" * 32, work) == "0a" * 32
    with pytest.raises(StorageError) as caught:
        check_sha256(digest, work)
    check_raised(caught)


def test_a_link_out_of_a_folder_is_not_mirrored(work, outside, bucket):
    (work / "logs").mkdir()
    (work / "logs/events").symlink_to(outside / "secret")
    for remote in (locate(f"{bucket}/logs"), locate(work / "copy")):
        Mirror(work / "logs", remote).copy(include_slow=True)
        assert not list(remote.entries())
