"""Runs with a failing bucket or disk succeed after retries, or fail with one line and lose no checkpoint."""

import json
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from bucket_runs import TINY, files, prepared, state_of, train
from refusals import check_command_refusal

from trainer.storage import locate
from trainer.testing.fault_proxy import random_faults


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def contents(folder):
    """Returns the files of a run, without times and paths."""
    contents_by_name = {
        name: (locate(folder) / name).read_bytes()
        for name in files(folder)
        if not name.startswith("logs/") and name not in ("events.jsonl", "report.html")
    }
    contents_by_name["config.json"] = {**json.loads(contents_by_name["config.json"]), "job_dir": None}
    lines = [json.loads(line) for line in contents_by_name["metrics.jsonl"].splitlines()]
    contents_by_name["metrics.jsonl"] = [
        {
            name: value
            for name, value in line.items()
            if name not in ("time", "images_per_sec", "epoch_secs") and not name.startswith("resources/")
        }
        for line in lines
    ]
    return contents_by_name


@pytest.mark.slow
def test_a_run_through_a_faulty_network_leaves_the_same_files(pictures, bucket, proxy, tmp_path):
    data = prepared(pictures, bucket)
    flags = ["--checkpoint_every_steps=2", "--sample_every_steps=2"]
    assert train(data, tmp_path / "run", "--steps=20", *flags) == 0
    proxy.policy, proxy.requests, proxy.failed = random_faults(10), [], []
    shutil.rmtree(tmp_path / "cache")
    assert prepared(pictures, f"{bucket}/again") == f"{bucket}/again/set"
    assert train(data, f"{bucket}/run", "--steps=8", *flags) == 0
    assert train(data, f"{bucket}/run", "--steps=20", *flags) == 0
    assert len(proxy.failed) > len(proxy.requests) / 20 > 10
    proxy.policy = lambda request: None
    assert contents(f"{bucket}/run") == contents(tmp_path / "run")
    for name, entry in files(f"{bucket}/again/set").items():
        assert name == "dataset.json" or (entry.num_bytes, entry.crc32c) == (
            files(data)[name].num_bytes,
            files(data)[name].crc32c,
        )


def check_loss_at_step_8(status, bucket, proxy, capsys, *facts):
    """Trains with a bucket that fails with this status when the checkpoint of step 8 is written."""

    def from_step_8_on(request):
        if "checkpoints/step-00000008" in request.object_name:
            proxy.policy = lambda request: status
        return None

    proxy.policy = from_step_8_on
    check_command_refusal(train_with, ["digits", f"{bucket}/run", "--steps=14"], capsys, 1, *facts)
    proxy.policy = lambda request: None


def train_with(arguments):
    return train(*arguments)


@pytest.mark.slow
def test_a_bucket_lost_during_a_run_is_named_and_checkpoints_stay(bucket, proxy, tmp_path, capsys):
    check_loss_at_step_8(404, bucket, proxy, capsys, bucket)
    assert state_of(f"{bucket}/run", 4)
    assert train("digits", f"{bucket}/run", "--steps=14") == 0
    assert train("digits", tmp_path / "run", "--steps=14") == 0
    assert state_of(f"{bucket}/run", 14) == state_of(tmp_path / "run", 14)


def test_a_permission_lost_during_a_run_is_named(bucket, proxy, capsys):
    check_loss_at_step_8(403, bucket, proxy, capsys, bucket, "403", "roles/storage.objectUser")


def test_a_missing_permission_is_found_before_training(bucket, proxy, capsys):
    proxy.policy = lambda request: 403
    facts = (f"{bucket}/run", "403", "roles/storage.objectViewer")
    check_command_refusal(train_with, ["digits", f"{bucket}/run", "--steps=4"], capsys, 1, *facts)
    assert {request.method for request in proxy.requests} == {"GET"}


def command(*flags):
    return [sys.executable, "-m", "trainer.task", *TINY, "--dataset=digits", *flags]


@pytest.mark.slow
def test_sigterm_leaves_a_complete_run_in_its_bucket(bucket):
    arguments = command(f"--job_dir={bucket}/run", "--steps=1000000", "--checkpoint_every_steps=0")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while "Step " not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert "SIGTERM" in process.communicate(timeout=60)[1]
    assert process.returncode == 143
    remote_files = files(f"{bucket}/run")
    last = json.loads((locate(bucket) / "run/metrics.jsonl").read_bytes().splitlines()[-1])["step"]
    assert last > 0 and state_of(f"{bucket}/run", last)
    assert any(name.startswith("logs/events") for name in remote_files) and "samples/step-00000000.png" in remote_files


def on_a_disk_of(kib, folder, act):
    """Runs a command and lists the folder, which is a separate disk meanwhile."""
    inside = f"mount -t tmpfs -o size={kib}k none {folder} && {{ {act}; echo exit $?; cd {folder}; find . -type f; }}"
    return subprocess.run(["unshare", "--map-root-user", "--mount", "sh", "-c", inside], capture_output=True, text=True)


@pytest.fixture
def disk(tmp_path):
    """A folder for `on_a_disk_of`."""
    (tmp_path / "disk").mkdir()
    if "exit 0" not in on_a_disk_of(4, tmp_path / "disk", "true").stdout:
        pytest.skip("mounting a disk is not allowed here")
    return tmp_path / "disk"


def check_full_disk(done, fact):
    """Asserts that a command ended with one line about a full disk, which mentions a fact."""
    assert "exit 1" in done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr and fact in done.stderr


@pytest.mark.slow
def test_a_full_disk_ends_a_run_and_committed_checkpoints_stay(disk):
    flags = [f"--job_dir={disk}/run", "--steps=1000", "--sample_every_steps=0", "--max_to_keep=1000"]
    done = on_a_disk_of(2000, disk, shlex.join(command(*flags)))
    check_full_disk(done, f"{disk}/run")
    assert "./run/checkpoints/step-00000004/MANIFEST.json" in done.stdout.splitlines()


@pytest.mark.slow
def test_a_full_disk_leaves_no_dataset(pictures, disk, tmp_path):
    prepare = f"{sys.executable} -m trainer prepare --source={pictures} --image_size=64 --num_workers=1 --out="
    done = on_a_disk_of(100, disk, f"{prepare}{disk}/set")
    shard = f"{disk}/set/images-00000.tfrecord"
    check_full_disk(done, shard)
    assert "./" not in done.stdout
    check_full_disk(on_a_disk_of(100, disk, f"TMPDIR={disk} {prepare}{tmp_path}/set"), "TMPDIR")
    assert not (tmp_path / "set").exists()
