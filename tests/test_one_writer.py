"""Two processes on one run directory or dataset: one writes, and the other changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from bucket_runs import TINY, files, pictures, run, state_of, train  # noqa: F401
from hostile import tree
from refusals import check_command_refusal, check_refusal

from benchmarks import lease as benchmark
from trainer import task
from trainer.config import TrainConfig
from trainer.environment import Environment
from trainer.errors import ConfigError
from trainer.storage import locate, resolve_mount
from trainer.storage.lease import LEASE, hold
from trainer.training import run as training_run
from trainer.training.checkpoint import store as store_module
from trainer.training.checkpoint.store import CheckpointStore


def trains(arguments):
    return train("digits", *arguments)


@pytest.mark.parametrize("name", ["run", "./run/", "link", "up/link", "link/../run"])
def test_a_second_run_changes_nothing_local(name, tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    (tmp_path / "up").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    with hold(locate(tmp_path / "run"), "job_dir"):
        before = tree(tmp_path / "run")
        for seed in (0, 1):
            arguments = [name, "--steps=4", f"--seed={seed}"]
            check_command_refusal(trains, arguments, capsys, 1, f"job_dir={name}", str(os.getpid()))
        assert tree(tmp_path / "run") == before


def test_a_second_run_changes_nothing_in_a_bucket(bucket, capsys):
    with hold(locate(f"{bucket}/run"), "job_dir"):
        for name in (f"{bucket}/run", f"{bucket}//run/"):
            check_command_refusal(trains, [name, "--steps=4", "--seed=1"], capsys, 1, name, str(os.getpid()))
        assert set(files(f"{bucket}/run")) == {LEASE}


@pytest.mark.slow
@pytest.mark.parametrize("where", ["local", "bucket"])
def test_a_run_that_loses_its_lease_commits_nothing_more(where, bucket, tmp_path, monkeypatch, capsys):
    job_dir = str(tmp_path / "run") if where == "local" else f"{bucket}/run"
    save = CheckpointStore.save

    def lose_at_step_8(self, state, step, *rest):
        if step == 8:
            self.wait()
            locate(job_dir).delete([LEASE])
            (locate(job_dir) / LEASE).write_bytes(b"{}")
        save(self, state, step, *rest)

    monkeypatch.setattr(store_module.CheckpointStore, "save", lose_at_step_8)
    check_command_refusal(trains, [job_dir, "--steps=14"], capsys, 1, f"job_dir={job_dir}")
    names = set(files(job_dir))
    assert not [name for name in names if "step-00000008/MANIFEST" in name or "step-00000014" in name]
    assert state_of(job_dir, 4) and (locate(job_dir) / LEASE).read_bytes() == b"{}"


@pytest.mark.slow
def test_two_trainers_with_other_seeds_leave_one_complete_run(tmp_path):
    flags = ["--steps=60", "--checkpoint_every_steps=20", "--sample_every_steps=0"]
    command = [sys.executable, "-m", "trainer.task", *TINY, "--dataset=digits", *flags]
    job_dir = tmp_path / "run"
    processes = [
        subprocess.Popen([*command, f"--job_dir={job_dir}", f"--seed={seed}"], stderr=subprocess.PIPE, text=True)
        for seed in (0, 1)
    ]
    errors = [process.communicate()[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 1]
    winner = codes.index(0)
    assert errors[winner] == "" and errors[1 - winner].count("\n") == 1
    assert json.loads((job_dir / "config.json").read_text())["seed"] == winner
    subprocess.run([*command, f"--job_dir={tmp_path / 'alone'}", f"--seed={winner}"], check=True)
    assert state_of(job_dir, 60) == state_of(tmp_path / "alone", 60)


@pytest.mark.slow
@pytest.mark.parametrize("in_bucket", [False, True])
def test_pairs_of_killed_and_paused_processes_lose_no_checkpoint(in_bucket, request, tmp_path):
    if in_bucket:
        request.getfixturevalue("cloud_storage")
    tally = benchmark.run_pairs(1, tmp_path, 7, in_bucket=in_bucket)
    assert tally.failures == []


def test_retention_keeps_newer_checkpoints_that_are_valid(tmp_path):
    def save(store, step):
        store.save({"a": keras.Variable(np.float32(step))}, step)
        store.wait()

    other, own = CheckpointStore(tmp_path, max_to_keep=1), CheckpointStore(tmp_path, max_to_keep=1)
    save(other, 20)
    save(own, 4)
    save(own, 8)
    assert own.steps() == [8, 20]
    (own.folder(20) / "state.index").unlink()
    assert own.find()[0].step == 8
    save(own, 12)
    assert own.steps() == [12]


REPLICAS = {
    "no job": ({}, ""),
    "empty": ({"CLOUD_ML_JOB_ID": ""}, ""),
    "job": ({"CLOUD_ML_JOB_ID": "7"}, "7, trial None, chief"),
    "trial": ({"CLOUD_ML_JOB_ID": "7", "CLOUD_ML_TRIAL_ID": "2"}, "7, trial 2, chief"),
}


@pytest.mark.parametrize(("environ", "replica"), REPLICAS.values(), ids=REPLICAS)
def test_the_identity_of_a_replica_comes_from_its_job(environ, replica):
    assert Environment.read(environ).replica == replica


def test_only_the_chief_of_several_machines_writes():
    for kind, index, writes in (("chief", 0, True), ("worker", 0, False), ("worker", 1, False)):
        spec = {"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": kind, "index": index}}
        environment = Environment.read({"TF_CONFIG": json.dumps(spec), "CLOUD_ML_JOB_ID": "7"})
        assert environment.writes == writes and environment.replica == f"7, trial None, {kind} {index}"
        if writes:

            def act(environment=environment):
                training_run.train(TrainConfig(job_dir="never"), environment, waits_for_lease=True)

            check_refusal(act, ConfigError, "wait_for_lease=True")


def test_wait_for_lease_is_a_flag_of_the_trainer_and_of_job_files(tmp_path, capsys):
    from trainer.cloud.jobs import arguments

    assert arguments.parse_args(["--wait_for_lease"], "args").flags == {}
    assert task.main(["t", "--recipe=digits", f"--job_dir={tmp_path}/run", "--wait_for_lease", "--dry_run"]) == 0
    assert "wait_for_lease" not in json.loads(capsys.readouterr().out)
    assert not (tmp_path / "run").exists()


def test_links_to_a_mounted_bucket_name_the_bucket(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to("/gcs/bucket/runs")
    (tmp_path / "plain").mkdir()
    monkeypatch.chdir(tmp_path)
    names = ("link/a", "./link/a", "link/../runs/a", "/gcs/bucket/runs/a", "/gcs//bucket/x/../runs/a")
    for name in (*names, "/tmp/../gcs/bucket/runs/a", "gs://bucket/runs/a"):
        assert resolve_mount(name) == "gs://bucket/runs/a", name
    for name in ("plain/a", "gs://bkt/a", "/gcs", "gcs/bucket/a"):
        assert resolve_mount(name) == name


@pytest.mark.parametrize("where", ["local", "bucket"])
def test_a_second_prepare_changes_nothing(where, pictures, bucket, tmp_path, capsys):  # noqa: F811
    out = str(tmp_path / "set") if where == "local" else f"{bucket}/set"
    (locate(out) / "images-00000.tfrecord").write_bytes(b"of the first process")
    flags = [f"--source={pictures}", f"--out={out}", "--image_size=8", "--num_workers=1"]
    with hold(locate(out), "out"):
        check_command_refusal(lambda arguments: run("prepare", *arguments), flags, capsys, 1, f"out={out}")
        assert set(files(out)) == {LEASE, "images-00000.tfrecord"}
    assert run("prepare", *flags) == 0
    assert set(files(out)) == {"images-00000.tfrecord", "dataset.json"}


LOCAL = """
import sys
from trainer.cloud.emulator import runner
from trainer.cloud.emulator.replicas import Replica
from trainer.cloud.emulator.restart_policy import RestartPolicy
program = '''
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
print("pids", os.getpid(), child.pid, flush=True)
signal.pause()
'''
replicas = [Replica(name=name, command=(sys.executable, "-S", "-c", program), environment={}) for name in sys.argv[1:]]
runner.run(replicas, RestartPolicy())
"""


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="finds processes in /proc")
@pytest.mark.parametrize("names", [["workerpool0-0"], ["workerpool0-0", "workerpool1-0"]])
def test_processes_of_a_local_job_end_when_it_is_killed(names):
    with subprocess.Popen([sys.executable, "-c", LOCAL, *names], stdout=subprocess.PIPE, text=True) as local:
        try:
            messages = [json.loads(local.stdout.readline())["message"] for _ in names]
            pids = [pid for message in messages for pid in message.split("pids")[1].split()]
            assert len(pids) == 2 * len(names) and all(map(is_running, pids))
        finally:
            local.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [pid for pid in pids if is_running(pid)] == []
