"""Machines, here processes on loopback, train like one process with as many devices, also after failures."""

import json
import os
import random
import signal
import subprocess
import sys

import pytest
from conftest import TINY_MLP

from benchmarks import exact_resume, rehearsals
from trainer import task
from trainer.cloud.emulator.replicas import free_ports
from trainer.data.tfrecord_writer import write_prepared
from trainer.errors import ExitCode

FLAGS = [
    *("--recipe=vanilla", f"--architecture_options={json.dumps(TINY_MLP)}", "--jit_compile=off"),
    *("--metrics=none", "--noexport_model"),
]
STEPS = 450

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, digits):
    """Some digits in three shards, so that windows are cut."""
    folder, texts = tmp_path_factory.mktemp("set"), {"name": "some", "source": "", "license": "", "attribution": ""}
    write_prepared(folder, digits.images[:600], digits.labels[:600], digits.info.class_names, num_shards=3, **texts)
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes by their environment in /proc")
def test_a_stopped_killed_and_stalled_job_ends_with_the_same_bits(dataset, tmp_path):
    more = [f"--dataset={dataset}", "--num_chunks=2", f"--steps={STEPS}", "--worker_timeout_secs=12"]
    signals = [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP]
    sent, job = rehearsals.run_disturbed(tmp_path / "several", signals, random.Random(1), more, num_workers=1)
    told = job.log.read_text()
    assert sent == 3 and told.count("restarting the whole job") == 3, told
    assert "exited with 143" in told  # stopped by SIGTERM, all in the same step
    assert f"exited with {ExitCode.LOST_WORKER}" in told  # by the machine that stood still
    assert not [line for line in told.splitlines() if line.startswith("workerpool1") and '"Step ' in line]
    assert exact_resume.digest(job.folder) == rehearsals.undisturbed_digest(tmp_path / "alone", more, num_devices=2)
    steps = [json.loads(line)["step"] for line in (job.folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == STEPS


def chief_and_worker(command, of_worker=(), folders=(None, None)):
    """Starts both in their working folders; yields the exit code, the output and the errors of each."""
    chief, worker = (f"127.0.0.1:{port}" for port in free_ports(2))
    processes = []
    for role, flags, folder in zip(("chief", "worker"), ((), of_worker), folders, strict=True):
        spec = {"cluster": {"chief": [chief], "worker": [worker]}, "task": {"type": role, "index": 0}}
        environ = {**os.environ, "TF_CONFIG": json.dumps(spec)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen([*command, *flags], env=environ, cwd=folder, text=True, **pipes))
    for process in processes:
        out, error = process.communicate(timeout=90)
        yield process.returncode, out, error


def test_machines_with_other_flags_are_refused(dataset, tmp_path):
    command = [sys.executable, "-m", "trainer.task", *FLAGS, f"--dataset={dataset}", f"--job_dir={tmp_path}/run"]
    for code, _, error in chief_and_worker(command, ["--seed=7"]):
        (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
        assert code == 2 and "settings" in line


def test_machines_with_other_data_are_refused(digits, tmp_path):
    folders = tmp_path / "chief", tmp_path / "worker"
    for folder in folders:
        start, texts = len(folder.name), {"name": "some", "source": "", "license": "", "attribution": ""}
        images, labels = digits.images[start : start + 60], digits.labels[:60]
        write_prepared(folder / "set", images, labels, digits.info.class_names, num_shards=2, **texts)
    command = [sys.executable, "-m", "trainer.task", *FLAGS, "--dataset=set", "--num_chunks=2"]
    command += ["--global_batch_size=4", "--steps=4", f"--job_dir={tmp_path}/run"]
    for code, _, error in chief_and_worker(command, folders=folders):
        (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
        assert code == 1 and "data" in line


def test_the_chief_writes_a_model_that_is_missing(dataset, tmp_path):
    flags = [*FLAGS, f"--dataset={dataset}", f"--job_dir={tmp_path}/run", "--steps=2"]
    assert task.main(["task", *flags, "--strategy=one_device"]) == 0
    command = [sys.executable, "-m", "trainer.task", *flags, "--export_model"]
    for machine, (code, out, error) in zip(("chief", "worker"), chief_and_worker(command), strict=True):
        assert code == 0, error
        assert (f"{tmp_path}/run/model" in out) == (machine == "chief")
    model = tmp_path / "run/model/saved_model.pb"
    before = model.stat().st_mtime_ns
    for code, _, error in chief_and_worker(command):
        assert code == 0, error
    assert model.stat().st_mtime_ns == before
