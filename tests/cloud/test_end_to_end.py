"""From prepared digits in a bucket, through the SDK and a local service, to a run in the bucket."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bucket_runs import TINY, files, run, state_of
from local_vertex import use

from trainer.cloud.vertex import follow
from trainer.storage import locate
from trainer.testing.vertex_service import VertexService
from trainer.training.checkpoint.manifest import MANIFEST

pytest.importorskip("yaml")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS = 400
CHECKPOINTS = ("--checkpoint_every_steps=100", "--steps_per_execution=50", "--sample_every_steps=400")


@pytest.fixture(scope="module")
def in_bucket(cloud_storage, tmp_path_factory, digits):
    """A bucket that holds digits, prepared from arrays at gs://BUCKET/data/photos."""
    from trainer.testing.bucket_server import new_bucket

    name, arrays = new_bucket(), tmp_path_factory.mktemp("arrays") / "digits.npz"
    np.savez(arrays, images=digits.images[:200], labels=digits.labels[:200])
    assert run("prepare", f"--source={arrays}", f"--out={name}/data/photos", "--num_workers=1") == 0
    return name


@pytest.fixture
def submit(tmp_path, monkeypatch, in_bucket):
    """Submits a job file of this repository with other args, waits, and returns the output of the runners."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(follow, "_POLL_SECS", 0.1)
    monkeypatch.setattr(follow, "_LOG_DELAY_SECS", 0.0)
    log = tmp_path / "log"

    def send(file, run_name, args, *flags, while_it_runs=lambda process: None):
        def on_this_machine(spec):
            config = tmp_path / "received.json"
            config.write_text(json.dumps(spec))
            command = [sys.executable, "-m", "trainer", "local", f"--config={config}"]
            with log.open("a") as out, subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out) as process:
                while_it_runs(process)
            if process.returncode:
                raise RuntimeError(f"the runner ended with {process.returncode}: {log.read_text()[-2000:]}")

        monkeypatch.setenv("BUCKET", in_bucket.removeprefix("gs://"))
        monkeypatch.setenv("RUN", run_name)
        flags = ["--project=my-project", "--region=us-central1", f"--args=^;^{';'.join(args)}", *flags]
        with VertexService(on_this_machine) as service:
            use(service, monkeypatch)
            assert run("submit", f"--config={ROOT / file}", *flags, "--wait") == 0, log.read_text()[-2000:]
        return log.read_text()

    return send


def chief_of(process):
    """Process ID of the chief. None: the chief is not running."""
    command = ["ps", "-o", "pid=,comm=", "--ppid", str(process.pid)]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    pids = [int(line.split()[0]) for line in lines if line.split()[1].startswith("python")]
    return pids[0] if pids else None


def test_a_job_whose_chief_is_killed_ends_with_the_same_bits(submit, in_bucket):
    args = [*TINY, f"--dataset={in_bucket}/data/photos", f"--steps={STEPS}", *CHECKPOINTS, "--export_model"]
    submit("config.yaml", "whole", args)
    names = files(f"{in_bucket}/runs/whole")
    last = f"{STEPS:08d}"
    assert {
        "config.json",
        "metrics.jsonl",
        "samples/progression.gif",
        f"samples/step-{last}.png",
        f"checkpoints/step-{last}/{MANIFEST}",
        "model/saved_model.pb",
    } <= set(names)
    assert any(name.startswith("logs/") for name in names)
    assert json.loads((locate(in_bucket) / "runs/whole/config.json").read_bytes())["num_virtual_devices"] == 2

    def kill_the_chief(process):
        while not any(name.endswith(MANIFEST) for name in files(f"{in_bucket}/runs/cut")):
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(chief_of(process), signal.SIGKILL)

    printed = submit("config.yaml", "cut", args, while_it_runs=kill_the_chief)
    assert any("workerpool0-0" in line and "SIGKILL" in line for line in printed.splitlines())
    assert state_of(f"{in_bucket}/runs/cut", STEPS) == state_of(f"{in_bucket}/runs/whole", STEPS)


def test_a_tuning_job_leaves_its_trials_in_the_bucket(submit, in_bucket):
    pytest.importorskip("optuna")
    args = [*TINY, f"--dataset={in_bucket}/data/photos", "--metrics=digits", "--steps=2"]
    submit("scripts/tuning.yaml", "sweep", [*args, "--evaluate_every_steps=2"], "--max_trials=2")
    trials = json.loads((locate(in_bucket) / "runs/sweep/trials.json").read_bytes())["trials"]
    assert [trial["state"] for trial in trials] == ["SUCCEEDED"] * 2
    for trial in trials:
        config = json.loads((locate(in_bucket) / f"runs/sweep/{trial['id']}/config.json").read_bytes())
        for parameter in trial["parameters"]:
            assert config[parameter["parameterId"]] == parameter["value"]
