"""A managed TensorBoard receives the events of local runs and of runs in a bucket."""

import json
import threading

import pytest
from bucket_runs import files, state_of
from conftest import TINY_MLP

from trainer import task
from trainer.callbacks import MetricsLog
from trainer.storage import locate, mirror
from trainer.storage.mirror import Mirror

FLAGS = [
    *("--recipe=cgan", "--architecture=mlp", f"--architecture_options={json.dumps(TINY_MLP)}", "--latent_dim=8"),
    *("--global_batch_size=16", "--jit_compile=off", "--strategy=one_device", "--metrics=none", "--noexport_model"),
    *("--sample_every_steps=0", "--steps_per_execution=2", "--checkpoint_every_steps=0"),
]


@pytest.fixture(params=["local", "bucket"])
def log_dir(request, tmp_path, bucket, monkeypatch):
    """A log folder outside the run directory, passed to the trainer as Vertex AI does."""
    folder = str(tmp_path / "tensorboard") if request.param == "local" else f"{bucket}/tensorboard"
    monkeypatch.setenv("AIP_TENSORBOARD_LOG_DIR", f"{folder}/")
    return folder


def contents(folder):
    return {name: (locate(folder) / name).read_bytes() for name in files(folder)}


def test_events_arrive_during_a_run_and_are_complete_at_its_end(log_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "_INTERVAL_SECS", 0.01)
    copied, seen, plain, on_end = threading.Event(), [], Mirror.copy, MetricsLog.on_train_batch_end
    monkeypatch.setattr(Mirror, "copy", lambda self, **settings: (plain(self, **settings), copied.set()))

    def look(self, batch, logs=None):
        on_end(self, batch, logs)
        for _ in range(2):  # the first may have started before this step
            copied.clear()
            assert copied.wait(20)
        seen.append(sum(entry.num_bytes for entry in files(log_dir).values()))

    monkeypatch.setattr(MetricsLog, "on_train_batch_end", look)
    assert task.main(["task", *FLAGS, "--steps=4", f"--job_dir={tmp_path / 'run'}"]) == 0
    copies = contents(log_dir)
    assert copies == contents(tmp_path / "run/logs") and len(copies) == 2
    assert 0 < seen[0] <= seen[-1] < sum(map(len, copies.values()))


def test_a_resumed_run_also_copies_its_earlier_events(log_dir, tmp_path, monkeypatch):
    job_dir = f"--job_dir={tmp_path / 'run'}"
    with monkeypatch.context() as before:
        before.delenv("AIP_TENSORBOARD_LOG_DIR")
        assert task.main(["task", *FLAGS, "--steps=2", job_dir]) == 0
    assert task.main(["task", *FLAGS, "--steps=4", job_dir]) == 0
    assert contents(log_dir) == contents(tmp_path / "run/logs") and len(contents(log_dir)) == 4


def test_a_run_in_a_bucket_has_its_events_in_both(log_dir, bucket):
    assert task.main(["task", *FLAGS, "--steps=2", f"--job_dir={bucket}/run"]) == 0
    assert contents(log_dir) == contents(f"{bucket}/run/logs") and len(contents(log_dir)) == 2


def test_a_folder_that_cannot_be_written_is_reported_and_training_continues(
    cloud_storage, tmp_path, monkeypatch, trainer_log
):
    monkeypatch.setenv("AIP_TENSORBOARD_LOG_DIR", "gs://no-such-bucket/logs-of-all")
    assert task.main(["task", *FLAGS, "--steps=4", f"--job_dir={tmp_path / 'run'}"]) == 0
    assert state_of(tmp_path / "run", 4)
    assert any("gs://no-such-bucket/logs-of-all" in message for message in trainer_log.messages)
