"""Run directories: copies of TensorBoard's event files, and partial downloads."""

import contextlib
import io

import pytest
import tensorflow as tf
from refusals import check_refusal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.errors import StorageError
from trainer.storage import RunDirectory, documents, locate
from trainer.storage.gcs import BucketLocation
from trainer.storage.local import AppendOnlyFolder
from trainer.storage.run_directory import CONFIG

GRID = "samples/step-00000001.png"


def num_mirrors(job_dir, log_dir):
    with RunDirectory(job_dir).open() as directory:
        directory.logs.mkdir(parents=True, exist_ok=True)
        with directory.mirror_changes(log_dir) as mirrors:
            return len(mirrors)


def test_the_log_folder_of_the_run_gets_no_second_copy(tmp_path, bucket, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for spelling in ("run/logs", "./run/../run/logs", f"{tmp_path}/link/run/logs", f"{tmp_path}/run/logs"):
        assert num_mirrors("run", spelling) == 0, spelling
    assert num_mirrors("run", None) == 0
    assert num_mirrors(f"{bucket}/run", f"{bucket}/run/logs") == 1
    assert num_mirrors(f"{bucket}/run/", f"{bucket}/run/logs") == 1
    for elsewhere in ("run/logs-of-all", "run", f"{tmp_path}/tensorboard", f"{bucket}/run/logs"):
        assert num_mirrors("run", elsewhere) == 1, elsewhere
    assert num_mirrors(f"{bucket}/run", f"{bucket}/run/logs2") == 2


def test_downloaded_files_are_not_uploaded_again(bucket, monkeypatch):
    remote = locate(f"{bucket}/run")
    for name in ("config.json", GRID, "logs/events.out.tfevents.1.v2"):
        (remote / name).write_bytes(name.encode())
    sent = []
    plain = BucketLocation.upload
    monkeypatch.setattr(
        BucketLocation, "upload", lambda self, folder, names: (sent.extend(names), plain(self, folder, names))
    )
    with RunDirectory(f"{bucket}/run").open() as directory, directory.mirror_changes():
        directory.write_config(b"another config")
        (directory.samples / "2.png").touch()
    assert sorted(sent) == ["samples/2.png"]
    assert (remote / "config.json").read_bytes() == b"another config"


def test_single_files_of_a_run_in_a_bucket_can_be_downloaded(bucket, tmp_path):
    for name in ("config.json", GRID, "checkpoints/step-1/state"):
        (locate(f"{bucket}/run") / name).write_bytes(b"")
    for only, names in ((None, ["config.json", GRID]), ({CONFIG}, ["config.json"]), ({"other"}, [])):
        with RunDirectory(f"{bucket}/run").open(only) as directory:
            assert [entry.name for entry in locate(directory.root).entries()] == names


@pytest.mark.parametrize("only", [None, {CONFIG}])
def test_a_very_large_config_is_named_by_its_place_in_the_bucket(only, bucket, monkeypatch):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 9)
    (locate(f"{bucket}/run") / CONFIG).write_bytes(b"x" * 10)
    (locate(f"{bucket}/run") / GRID).write_bytes(b"x" * 10)

    def act():
        with RunDirectory(f"{bucket}/run").open(only):
            pass

    check_refusal(act, StorageError, f"{bucket}/run/{CONFIG}", "9")


def test_tensorboard_continues_to_read_a_local_folder(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path / "logs"))
    seen = []
    for step in range(3):
        with writer.as_default():
            tf.summary.scalar("loss", 1.0, step=step)
        writer.flush()
        names = [entry.name for entry in locate(tmp_path / "logs").entries()]
        AppendOnlyFolder(tmp_path / "copy").upload(tmp_path / "logs", names)
        if step == 0:
            reader = EventAccumulator(str(tmp_path / "copy"))
        with contextlib.redirect_stderr(io.StringIO()):
            reader.Reload()
        seen.append(len(reader.Tensors("loss")))
    writer.close()
    assert seen == [1, 2, 3]
    (name,) = names
    assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / "logs" / name).read_bytes()
