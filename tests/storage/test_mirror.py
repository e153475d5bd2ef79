"""Changes in a folder are copied to a bucket, and all of them at the end."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from trainer.errors import StorageError
from trainer.storage import locate, mirror
from trainer.storage.gcs import BucketLocation
from trainer.storage.local import LocalLocation
from trainer.storage.mirror import Mirror


@pytest.fixture
def run(tmp_path):
    for name in ("config.json", "samples/1.png", "logs/events", "checkpoints/step-1/state", ".config.json.x"):
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "run"


@pytest.fixture
def uploads(monkeypatch):
    """Names of the files that are uploaded to buckets."""
    sent = []
    plain = BucketLocation.upload
    monkeypatch.setattr(
        BucketLocation, "upload", lambda self, folder, names: (sent.extend(names), plain(self, folder, names))
    )
    return sent


def test_changes_are_copied_once_and_completely_at_the_end(run, bucket, uploads):
    remote = locate(bucket) / "job"
    with Mirror(run, remote, without=("checkpoints",), slow=("logs",)) as mirroring:
        mirroring.copy()
        assert sorted(uploads) == ["config.json", "logs/events", "samples/1.png"]
        (run / "logs/events").write_text("more")
        (run / "samples/2.png").write_text("two")
        mirroring.copy()
        assert uploads[3:] == ["samples/2.png"]
    assert uploads[4:] == ["logs/events"]
    assert {entry.name for entry in remote.entries()} == {
        "config.json",
        "logs/events",
        "samples/1.png",
        "samples/2.png",
    }
    assert (remote / "logs/events").read_bytes() == b"more"


def test_changes_are_copied_in_the_background(run, bucket, uploads, monkeypatch):
    monkeypatch.setattr(mirror, "_INTERVAL_SECS", 0.01)
    copied = threading.Event()
    plain = Mirror.copy
    monkeypatch.setattr(Mirror, "copy", lambda self, **settings: (plain(self, **settings), copied.set()))
    with Mirror(run, locate(bucket) / "job", without=("checkpoints",)):
        assert copied.wait(20)
        assert "config.json" in uploads


def test_a_copy_that_fails_is_logged_at_once_and_at_the_end(run, cloud_storage, monkeypatch, trainer_log):
    monkeypatch.setattr(mirror, "_INTERVAL_SECS", 0.01)
    copies = threading.Semaphore(0)
    plain = Mirror.copy
    monkeypatch.setattr(Mirror, "copy", lambda self, **settings: (plain(self, **settings), copies.release()))
    with Mirror(run, locate("gs://no-such-bucket/job")):
        assert copies.acquire(timeout=20) and copies.acquire(timeout=20)
    assert len(trainer_log.messages) == 2 and all("gs://no-such-bucket" in text for text in trainer_log.messages)


@pytest.mark.parametrize("error", [StorageError("refused"), FileNotFoundError("deleted meanwhile")])
def test_a_file_that_cannot_be_copied_does_not_block_the_others(error, run, tmp_path, monkeypatch, trainer_log):
    plain = LocalLocation.upload

    def upload(self, folder, names):
        if "config.json" in names:
            raise error
        plain(self, folder, names)

    monkeypatch.setattr(LocalLocation, "upload", upload)
    mirroring = Mirror(run, locate(tmp_path / "copy"), without=("checkpoints",))
    for _ in range(3):
        mirroring.copy()
    assert (tmp_path / "copy/samples/1.png").exists() and (tmp_path / "copy/logs/events").exists()
    assert len(trainer_log.messages) == 1 and "config.json" in trainer_log.text
    monkeypatch.setattr(LocalLocation, "upload", plain)
    mirroring.copy()
    assert (tmp_path / "copy/config.json").exists()


def test_folders_may_disappear_while_they_are_listed(run, tmp_path, monkeypatch):
    (run / "samples/more").mkdir()
    (run / "samples/more/2.png").touch()
    plain = os.scandir

    def scandir(folder):
        if folder == str(run / "samples/more"):
            shutil.rmtree(folder)
        return plain(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    Mirror(run, locate(tmp_path / "copy")).copy()
    assert (tmp_path / "copy/samples/1.png").exists() and not (tmp_path / "copy/samples/more").exists()


def test_excluded_and_hidden_folders_are_not_listed(run, tmp_path, monkeypatch):
    (run / ".model.partial").mkdir()
    (run / ".model.partial/weights").touch()
    (run / "samples/checkpoints").mkdir()
    (run / "samples/checkpoints/2.png").touch()
    listed, plain = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (listed.append(Path(folder).name), plain(folder))[1])
    Mirror(run, locate(tmp_path / "copy"), without=("checkpoints",)).copy(include_slow=True)
    assert sorted(listed) == ["checkpoints", "logs", "run", "samples"]
    assert (tmp_path / "copy/samples/checkpoints/2.png").exists()
    assert not (tmp_path / "copy/.model.partial").exists() and not (tmp_path / "copy/checkpoints").exists()


def test_a_deleted_file_is_no_longer_reported(run, trainer_log):
    with Mirror(run, locate("/dev/null/copy"), without=("checkpoints", "logs", "samples")) as mirroring:
        mirroring.copy()
        assert len(trainer_log.messages) == 1
        (run / "config.json").unlink()
    assert len(trainer_log.messages) == 1


def test_an_object_is_written_at_most_once_per_second(run, bucket, uploads, monkeypatch):
    monkeypatch.setattr(mirror, "_MIN_REWRITE_SECS", 0.4)
    mirroring = Mirror(run, locate(bucket) / "job", without=("checkpoints", "logs", "samples"))
    started = time.monotonic()
    for text in ("one", "another", "the third"):
        (run / "config.json").write_text(text)
        mirroring.copy()
    assert uploads == ["config.json"] * 3 and time.monotonic() - started >= 0.8
    (run / "new.json").write_text("new")
    mirroring.copy()
    assert time.monotonic() - started < 1.1 and uploads[3:] == ["new.json"]
