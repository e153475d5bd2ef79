"""Several machines, here processes on loopback, train as one process with as many devices does, whatever ends them."""

import json
import os
import random
import signal
import socket
import subprocess
import sys

import pytest
import tensorflow as tf
from conftest import TINY_MLP

from benchmarks import exact_resume, rehearsals
from trainer import task
from trainer.callbacks.watchdog import ABORTED
from trainer.cloud.replicas import free_ports
from trainer.data.prepared import write_prepared
from trainer.engine import agreement
from trainer.errors import CheckpointError

FLAGS = [
    *("--recipe=vanilla", f"--architecture_options={json.dumps(TINY_MLP)}", "--jit_compile=off"),
    *("--metrics=none", "--noexport_model"),
]
STEPS = 450


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, digits):
    """Some digits in three shards, so that windows are cut."""
    folder, texts = tmp_path_factory.mktemp("set"), {"name": "some", "source": "", "license": "", "attribution": ""}
    write_prepared(folder, digits.images[:600], digits.labels[:600], digits.info.class_names, num_shards=3, **texts)
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes by their environment in /proc")
def test_a_job_that_is_stopped_killed_and_stalled_ends_with_the_bits_of_one_process(dataset, tmp_path):
    more = [f"--dataset={dataset}", "--data_windows=2", f"--steps={STEPS}", "--worker_timeout_secs=12"]
    signals = [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP]
    sent, job = rehearsals.disturbed(tmp_path / "several", signals, random.Random(1), more, num_workers=1)
    told = job.log.read_text()
    assert sent == 3 and told.count("restarting the whole job") == 3, told
    assert "exited with 143: the loss of its machine" in told  # stopped by SIGTERM, all in the same step
    assert f"exited with {ABORTED}: a crash" in told  # by the machine that stood still
    assert "another machine was lost at or after step" in told
    assert not [line for line in told.splitlines() if line.startswith("workerpool1") and '"Step ' in line]
    assert exact_resume.digest(job.folder) == rehearsals.alone(tmp_path / "alone", more, num_machines=2)
    steps = [json.loads(line)["step"] for line in (job.folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == STEPS


def chief_and_worker(command, of_worker=()):
    """Starts both; yields the exit code, the output and the errors of each."""
    chief, worker = (f"127.0.0.1:{port}" for port in free_ports(2))
    processes = []
    for role, flags in (("chief", ()), ("worker", of_worker)):
        spec = {"cluster": {"chief": [chief], "worker": [worker]}, "task": {"type": role, "index": 0}}
        environ = {**os.environ, "TF_CONFIG": json.dumps(spec)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen([*command, *flags], env=environ, text=True, **pipes))
    for process in processes:
        out, error = process.communicate(timeout=90)
        yield process.returncode, out, error


def test_machines_with_other_flags_are_refused(dataset, tmp_path):
    command = [sys.executable, "-m", "trainer.task", *FLAGS, f"--dataset={dataset}", f"--job_dir={tmp_path}/run"]
    for code, _, error in chief_and_worker(command, ["--seed=7"]):
        assert code == 2
        assert "error: the machines were started with different settings; give all of them the same" in error


def test_machines_whose_job_was_killed_over_its_export_meet_and_the_chief_writes_the_model(dataset, tmp_path):
    flags = [*FLAGS, f"--dataset={dataset}", f"--job_dir={tmp_path}/run", "--steps=2"]
    assert task.main(["task", *flags, "--strategy=one_device"]) == 0
    command = [sys.executable, "-m", "trainer.task", *flags, "--export_model"]
    for machine, (code, out, error) in zip(("chief", "worker"), chief_and_worker(command), strict=True):
        assert code == 0, error
        assert "stands at step 2; its model is missing, and follows." in out
        assert ("The generator of step 2 is in" in out) == (machine == "chief")
    assert (tmp_path / "run/model/saved_model.pb").exists()
    for code, out, error in chief_and_worker(command):
        assert code == 0 and "is finished: it stands at step 2" in out, error


def test_machines_that_stand_at_different_steps_are_refused(monkeypatch):
    monkeypatch.setattr(agreement, "gathered", lambda strategy, number: [100, 0])
    with pytest.raises(CheckpointError, match="the machines resumed at the steps 100, 0; give a job_dir that all of"):
        agreement.check_step(tf.distribute.get_strategy(), 100)


def test_an_evaluator_strategies_for_other_numbers_and_a_taken_port_are_refused(tmp_path, monkeypatch, capsys):
    flags = [*FLAGS, f"--job_dir={tmp_path}", "--steps=1"]
    assert task.main(["task", *flags, "--strategy=multi_worker"]) == 2
    assert "strategy=multi_worker needs several machines in TF_CONFIG" in capsys.readouterr().err
    spec = {"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(spec))
    assert task.main(["task", *flags, "--strategy=one_device"]) == 2
    assert "strategy=one_device trains on one machine, and each of the 2 of this job would" in capsys.readouterr().err
    spec["task"]["type"] = "evaluator"
    monkeypatch.setenv("TF_CONFIG", json.dumps(spec))
    assert task.main(["task", *flags]) == 2
    assert "this machine is an evaluator" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        spec = {"cluster": {"chief": [address], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(spec))
        assert task.main(["task", *flags]) == 2
    assert f"the port of {address}, which is this machine in TF_CONFIG, cannot be listened on (Address already in " in (
        capsys.readouterr().err
    )
    monkeypatch.setenv("TF_CONFIG", "{")
    assert task.main(["task", *flags]) == 2
    assert "TF_CONFIG is not JSON" in capsys.readouterr().err
