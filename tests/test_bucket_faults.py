"""A run whose bucket fails, refuses, vanishes, or whose disk is full: it ends right, or with a sentence and no loss."""

import json
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from bucket_runs import TINY, files, prepared, state_of, train
from faults import one_in

from trainer.storage import locate


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def contents(folder):
    """What a run left, without what tells the time and the place."""
    found = {name: (locate(folder) / name).read_bytes() for name in files(folder) if not name.startswith("logs/")}
    found["config.json"] = {**json.loads(found["config.json"]), "job_dir": None}
    lines = [json.loads(line) for line in found["metrics.jsonl"].splitlines()]
    found["metrics.jsonl"] = [
        {name: value for name, value in line.items() if name not in ("time", "images_per_sec", "epoch_secs")}
        for line in lines
    ]
    return found


def test_a_run_through_a_faulty_network_leaves_what_a_local_one_leaves(pictures, bucket, proxy, tmp_path):
    data = prepared(pictures, bucket)
    flags = ["--checkpoint_every_steps=2", "--sample_every_steps=2"]
    assert train(data, tmp_path / "run", "--steps=20", *flags) == 0
    proxy.fate, proxy.requests, proxy.failed = one_in(10), [], []
    shutil.rmtree(tmp_path / "cache")
    assert prepared(pictures, f"{bucket}/again") == f"{bucket}/again/set"
    assert train(data, f"{bucket}/run", "--steps=8", *flags) == 0
    assert train(data, f"{bucket}/run", "--steps=20", *flags) == 0
    assert len(proxy.failed) > len(proxy.requests) / 20 > 10
    proxy.fate = lambda request: None
    assert contents(f"{bucket}/run") == contents(tmp_path / "run")
    for name, entry in files(f"{bucket}/again/set").items():
        assert name == "dataset.json" or (entry.num_bytes, entry.crc32c) == (
            files(data)[name].num_bytes,
            files(data)[name].crc32c,
        )


def lost_at_step_8(status, bucket, proxy, capsys):
    """The sentence of a run whose bucket answers with this status when the checkpoint of step 8 is written."""

    def from_step_8_on(request):
        if "checkpoints/step-00000008" in request.object_name:
            proxy.fate = lambda request: status
        return None

    proxy.fate = from_step_8_on
    assert train("digits", f"{bucket}/run", "--steps=14") == 1
    proxy.fate = lambda request: None
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


def test_a_bucket_that_is_lost_in_mid_run_is_a_sentence_and_what_was_committed_stays(bucket, proxy, tmp_path, capsys):
    said = lost_at_step_8(404, bucket, proxy, capsys)
    assert f"the bucket {bucket} does not exist; create it, or correct its name." in said
    assert state_of(f"{bucket}/run", 4)
    assert train("digits", f"{bucket}/run", "--steps=14") == 0
    assert train("digits", tmp_path / "run", "--steps=14") == 0
    assert state_of(f"{bucket}/run", 14) == state_of(tmp_path / "run", 14)


def test_a_permission_that_is_lost_in_mid_run_is_a_sentence(bucket, proxy, capsys):
    said = lost_at_step_8(403, bucket, proxy, capsys)
    assert "cannot be written: this account has no permission (403); grant it roles/storage.objectUser on the " in said


def test_a_bucket_without_permission_is_told_before_anything_is_trained(bucket, proxy, capsys):
    proxy.fate = lambda request: 403
    assert train("digits", f"{bucket}/run", "--steps=4") == 1
    captured = capsys.readouterr()
    assert captured.err == (
        f"error: {bucket}/run cannot be listed: this account has no permission (403); grant it "
        f"roles/storage.objectViewer on the bucket {bucket[5:]}.\n"
    )
    assert "Training" not in captured.out


def command(*flags):
    return [sys.executable, "-m", "trainer.task", *TINY, "--dataset=digits", *flags]


def test_sigterm_leaves_all_of_a_run_in_its_bucket(bucket):
    arguments = command(f"--job_dir={bucket}/run", "--steps=1000000", "--checkpoint_every_steps=0")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while "Step " not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert "stopped by SIGTERM at step" in process.communicate(timeout=60)[1]
    assert process.returncode == 143
    there = files(f"{bucket}/run")
    last = json.loads((locate(bucket) / "run/metrics.jsonl").read_bytes().splitlines()[-1])["step"]
    assert last > 0 and state_of(f"{bucket}/run", last)
    assert any(name.startswith("logs/events") for name in there) and "samples/step-00000000.png" in there


def on_a_disk_of(kib, folder, act):
    """Runs a command and then lists the folder, which is a disk of its own while they run."""
    inside = f"mount -t tmpfs -o size={kib}k none {folder} && {{ {act}; echo exit $?; cd {folder}; find . -type f; }}"
    return subprocess.run(["unshare", "--map-root-user", "--mount", "sh", "-c", inside], capture_output=True, text=True)


@pytest.fixture
def disk(tmp_path):
    """A folder for `on_a_disk_of`."""
    (tmp_path / "disk").mkdir()
    if "exit 0" not in on_a_disk_of(4, tmp_path / "disk", "true").stdout:
        pytest.skip("mounting a disk is not allowed here")
    return tmp_path / "disk"


def test_a_full_disk_is_a_sentence_and_what_was_committed_stays(disk):
    flags = [f"--job_dir={disk}/run", "--steps=1000", "--sample_every_steps=0", "--keep_checkpoints=1000"]
    done = on_a_disk_of(2000, disk, shlex.join(command(*flags)))
    assert "exit 1" in done.stdout and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and "No space left on device" in done.stderr
    assert "./run/checkpoints/step-00000004/MANIFEST.json" in done.stdout.splitlines()


def test_a_full_disk_leaves_no_data_set(pictures, disk, tmp_path):
    prepare = f"{sys.executable} -m trainer prepare --source={pictures} --image_size=64 --processes=1 --out="
    done = on_a_disk_of(100, disk, f"{prepare}{disk}/set")
    shard = f"{disk}/set/images-00000.tfrecord"
    assert done.stderr == f"error: {shard} cannot be written (No space left on device); free space on its disk.\n"
    assert "exit 1" in done.stdout and "./" not in done.stdout
    done = on_a_disk_of(100, disk, f"TMPDIR={disk} {prepare}{tmp_path}/set")
    assert "exit 1" in done.stdout and "No space left on device); free space on its disk, or let TMPDIR" in done.stderr
    assert not (tmp_path / "set").exists()
