"""Several machines, here processes on loopback, train as one process with as many devices does, whatever ends them."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest
import tensorflow as tf
from conftest import TINY_MLP

from trainer import task
from trainer.callbacks.watchdog import ABORTED
from trainer.cloud.replicas import free_ports
from trainer.data.prepared import write_prepared
from trainer.engine import agreement
from trainer.engine.manifest import MANIFEST
from trainer.errors import CheckpointError

FLAGS = [
    "--recipe=vanilla",
    f"--architecture_options={json.dumps(TINY_MLP)}",
    *("--latent_dim=8", "--global_batch_size=16", "--jit_compile=off", "--metrics=none", "--noexport_model"),
    *("--checkpoint_every_steps=100", "--sample_every_steps=0", "--ema_half_life_images=100"),
    "--worker_timeout_secs=6",
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, digits):
    """Some digits in three shards, so that windows are cut."""
    folder, texts = tmp_path_factory.mktemp("set"), {"name": "some", "source": "", "license": "", "attribution": ""}
    write_prepared(folder, digits.images[:600], digits.labels[:600], digits.info.class_names, num_shards=3, **texts)
    return folder


def places(dataset, job_dir, steps):
    return [*FLAGS, f"--dataset={dataset}", "--data_windows=2", f"--job_dir={job_dir}", f"--steps={steps}"]


class Machines:
    """A chief and a worker of one job."""

    def __init__(self, dataset, job_dir, steps, more=((), ())):
        chief, worker = (f"127.0.0.1:{port}" for port in free_ports(2))
        self.processes, self.said = [], []
        for role, flags in zip(("chief", "worker"), more, strict=True):
            spec = {"cluster": {"chief": [chief], "worker": [worker]}, "task": {"type": role, "index": 0}}
            self.said.append((tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")))  # noqa: SIM115 (__exit__)
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "trainer.task", *places(dataset, job_dir, steps), *flags],
                    env={**os.environ, "TF_CONFIG": json.dumps(spec)},
                    stdout=self.said[-1][0],
                    stderr=self.said[-1][1],
                )
            )
        self.job_dir, (self.chief, self.worker) = job_dir, self.processes

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        for process in self.processes:
            process.kill()
            process.wait()
        for file in itertools.chain.from_iterable(self.said):
            file.close()

    def await_step(self, step):
        end = time.monotonic() + 90
        while not any(found >= step for found in steps_of(self.job_dir)):
            assert time.monotonic() < end and all(process.poll() is None for process in self.processes), self.printed()
            time.sleep(0.02)

    def codes(self):
        """Waits for the end; the exit codes."""
        return [process.wait(90) for process in self.processes]

    def printed(self):
        """What each has written to standard output and to standard error."""
        for file in itertools.chain.from_iterable(self.said):
            file.seek(0)
        return [(output.read(), error.read()) for output, error in self.said]


def steps_of(job_dir):
    return sorted(int(path.parent.name[5:]) for path in job_dir.glob(f"checkpoints/step-*/{MANIFEST}"))


def state_of(job_dir):
    newest = max(job_dir.glob(f"checkpoints/step-*/{MANIFEST}"))
    return json.loads(newest.read_text())["step"], json.loads(newest.read_text())["state_sha256"]


def test_a_job_that_is_stopped_killed_and_stalled_ends_with_the_bits_of_one_process(dataset, tmp_path):
    job_dir, endless = tmp_path / "several", 1_000_000

    with Machines(dataset, job_dir, endless) as machines:
        machines.await_step(100)
        machines.worker.send_signal(signal.SIGTERM)
        assert machines.codes() == [143, 143]
        (told, error), (by_worker, _) = machines.printed()
        assert "stopped by SIGTERM at step" in error and "Step" in told and "Step" not in by_worker

    reached = steps_of(job_dir)[-1]
    with Machines(dataset, job_dir, endless) as machines:
        machines.await_step(reached + 100)
        machines.worker.kill()
        assert machines.codes() == [ABORTED, -signal.SIGKILL]
        assert "error: another machine was lost at or after step" in machines.printed()[0][1]

    reached = steps_of(job_dir)[-1]
    with Machines(dataset, job_dir, endless) as machines:
        machines.await_step(reached + 100)
        machines.worker.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert machines.chief.wait(60) == ABORTED and time.monotonic() - began < 20

    steps = steps_of(job_dir)[-1] + 150
    with Machines(dataset, job_dir, steps) as machines:
        assert machines.codes() == [0, 0], machines.printed()
    alone = tmp_path / "alone"
    assert task.main(["task", *places(dataset, alone, steps), "--strategy=mirrored"]) == 0
    assert state_of(job_dir) == state_of(alone) and state_of(alone)[0] == steps
    lines = [json.loads(line)["step"] for line in (job_dir / "metrics.jsonl").read_text().splitlines()]
    assert lines == sorted(set(lines)) and lines[-1] == steps


def test_machines_with_other_flags_are_refused(dataset, tmp_path):
    with Machines(dataset, tmp_path / "run", 10, more=((), ("--seed=7",))) as machines:
        assert machines.codes() == [2, 2]
        for _, error in machines.printed():
            assert "error: the machines were started with different settings; give all of them the same" in error


def test_machines_that_stand_at_different_steps_are_refused(monkeypatch):
    monkeypatch.setattr(agreement, "gathered", lambda strategy, number: [100, 0])
    with pytest.raises(CheckpointError, match="the machines resumed at the steps 100, 0; give a job_dir that all of"):
        agreement.check_step(tf.distribute.get_strategy(), 100)


def test_an_evaluator_and_a_lonely_multi_worker_are_refused(tmp_path, monkeypatch, capsys):
    flags = [*FLAGS, f"--job_dir={tmp_path}", "--steps=1"]
    assert task.main(["task", *flags, "--strategy=multi_worker"]) == 2
    assert "strategy=multi_worker needs several machines in TF_CONFIG" in capsys.readouterr().err
    spec = {"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "evaluator", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(spec))
    assert task.main(["task", *flags]) == 2
    assert "this machine is an evaluator" in capsys.readouterr().err
    monkeypatch.setenv("TF_CONFIG", "{")
    assert task.main(["task", *flags]) == 2
    assert "TF_CONFIG is not JSON" in capsys.readouterr().err
