"""Machines, here processes on loopback, train like one process with as many devices, also after failures."""

import json
import os
import random
import signal
import subprocess
import sys

import pytest
from conftest import TINY_ARCHITECTURES, TINY_MLP

from benchmarks import rehearsals
from benchmarks.tally import digest
from trainer import task
from trainer.cloud.emulator.replicas import free_ports
from trainer.data.tfrecord_writer import write_prepared
from trainer.errors import ExitCode
from trainer.training.processors import supports_bfloat16

FLAGS = [
    *("--recipe=vanilla", f"--architecture_options={json.dumps(TINY_MLP)}", "--jit_compile=off"),
    *("--metrics=none", "--noexport_model"),
]
STEPS = 450

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, digits):
    """Some digits in three shards, which a run can load in chunks."""
    folder, texts = tmp_path_factory.mktemp("set"), {"name": "some", "source": "", "license": "", "attribution": ""}
    write_prepared(folder, digits.images[:600], digits.labels[:600], digits.info.class_names, num_shards=3, **texts)
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes by their environment in /proc")
def test_a_stopped_killed_and_stalled_job_ends_with_the_same_bits(dataset, tmp_path):
    more = [f"--dataset={dataset}", "--num_chunks=2", f"--steps={STEPS}", "--worker_timeout_secs=12"]
    more += ["--sample_every_steps=70"]  # only the chief writes samples, and ends executions for them
    signals = [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP]
    sent, job = rehearsals.run_disturbed(tmp_path / "several", signals, random.Random(1), more, num_workers=1)
    log = job.log.read_text()
    assert sent == 3 and log.count("restarting the whole job") == 3, log
    assert "exited with 143" in log  # stopped by SIGTERM, all in the same step
    assert f"exited with {ExitCode.LOST_WORKER}" in log  # by the machine that stood still
    assert not [line for line in log.splitlines() if '"workerpool1' in line and '"Step ' in line]
    assert digest(job.folder) == rehearsals.undisturbed_digest(tmp_path / "alone", more, num_devices=2)
    steps = [json.loads(line)["step"] for line in (job.folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == STEPS


def chief_and_worker(command, of_worker=(), folders=(None, None), environ_of_worker=()):
    """Starts both in their working folders; yields the exit code, the output and the errors of each."""
    chief, worker = (f"127.0.0.1:{port}" for port in free_ports(2))
    processes = []
    for role, flags, folder in zip(("chief", "worker"), ((), of_worker), folders, strict=True):
        spec = {"cluster": {"chief": [chief], "worker": [worker]}, "task": {"type": role, "index": 0}}
        environ = {**os.environ, "TF_CONFIG": json.dumps(spec)} | dict(environ_of_worker if role == "worker" else ())
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen([*command, *flags], env=environ, cwd=folder, text=True, **pipes))
    try:
        for process in processes:
            out, error = process.communicate(timeout=180)
            yield process.returncode, out, error
    finally:
        for process in processes:
            process.kill()


def metrics_of(run):
    """The metrics in a run's log by step."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = {line["step"]: {name: line[name] for name in line if name.startswith("metric/")} for line in lines}
    return {step: values for step, values in metrics.items() if values}


def test_all_machines_evaluate_and_measure_what_one_process_does(dataset, tmp_path):
    flags = [*FLAGS, "--metrics=digits", f"--dataset={dataset}", "--global_batch_size=24", "--steps=2"]
    flags += ["--model=conditional", "--sample_every_steps=0", "--loss=relativistic", "--penalties=r1,r2"]
    task_command = [sys.executable, "-m", "trainer.task", *flags]
    outputs = []
    for code, out, error in chief_and_worker([*task_command, f"--job_dir={tmp_path}/several"]):
        assert code == 0, error
        outputs.append(out)
    assert [sum("frechet_digits_5k" in line for line in out.splitlines()) > 0 for out in outputs] == [True, False]
    mirrored = [*task_command, "--strategy=mirrored", "--num_virtual_devices=2", f"--job_dir={tmp_path}/alone"]
    subprocess.run(mirrored, check=True, capture_output=True)
    several, alone = metrics_of(tmp_path / "several"), metrics_of(tmp_path / "alone")
    assert list(several) == [0, 2] and {len(values) for values in several.values()} == {7}
    assert several == alone
    assert digest(tmp_path / "several") == digest(tmp_path / "alone")


@pytest.mark.parametrize("environ_of_worker", [{}, {"TF_ENABLE_ONEDNN_OPTS": "0"}])
def test_machines_of_two_kinds_choose_the_same_precision(tmp_path, environ_of_worker):
    options = json.dumps(TINY_ARCHITECTURES["dcgan"])
    flags = ["--recipe=dcgan", f"--architecture_options={options}", "--global_batch_size=8", "--steps=1"]
    flags += ["--metrics=none", "--noexport_model", f"--job_dir={tmp_path}/run"]
    command = [sys.executable, "-m", "trainer.task", *flags]
    for code, _, error in chief_and_worker(command, environ_of_worker=environ_of_worker):
        assert code == 0, error
    stored = json.loads((tmp_path / "run/config.json").read_text())
    is_fast = supports_bfloat16() and not environ_of_worker
    assert stored["precision"] == ("bfloat16" if is_fast else "float32")


_GAN_OF_THE_CLUSTER = """
import json, os
import numpy as np
from trainer.callbacks import Evaluation
from trainer.config.train_config import TrainConfig
from trainer.models import from_config
from trainer.training.distributed import strategy as strategies
from trainer.training.distributed.cluster import parse_cluster

cluster = parse_cluster(os.environ["TF_CONFIG"], None)
sizes = {"generator_units": [16], "discriminator_units": [16]}
network = {"architecture": "mlp", "architecture_options": sizes, "latent_dim": 8}
config = TrainConfig(**network, global_batch_size=8, jit_compile="off")
strategy = strategies.create(config, cluster)
gan = from_config(config, (28, 28, 1), 10, strategy)
"""

_STOPPED_BY_A_METRIC = """
import hashlib
import keras
from trainer.metrics.extraction import all_agree


class Steps:
    def measure(self, model):  # another value on each machine
        (self.images,), _ = model.sample_features(170, lambda images: (images,))
        return {"steps": model.step + 100 * (not cluster.is_chief)}


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = logs.get("metric/steps", 0) >= 4


suite, images = Steps(), np.zeros((32, 28, 28, 1), np.uint8)
history = gan.fit(images, batch_size=8, steps=12, callbacks=[Evaluation(suite, 2), Stop()], verbose=0).history
facts = {
    "step": gan.step,
    "metric": history["metric/steps"],
    "is_sample": bool((suite.images == gan.sample(170)[0]).all()),
    "agreed": [all_agree(strategy, flag) for flag in (True, cluster.is_chief, not cluster.is_chief, False)],
}
print(json.dumps(facts | {"images": hashlib.sha256(suite.images.tobytes()).hexdigest()}))
"""


def test_machines_decide_alike_from_the_metrics_of_the_first():
    done = list(chief_and_worker([sys.executable, "-c", _GAN_OF_THE_CLUSTER + _STOPPED_BY_A_METRIC]))
    assert [code for code, _, _ in done] == [0, 0], done
    facts, same = (json.loads(out.splitlines()[-1]) for _, out, _ in done)
    assert facts == same
    assert (facts["step"], facts["metric"], facts["is_sample"]) == (4, [4.0], True)
    assert facts["agreed"] == [True, False, False, False]


_STOPPED_IN_AN_EVALUATION = """
import signal, time


class Means:
    signals, ended = [2, 4], []

    def measure(self, model):
        if not cluster.is_chief and model.step in self.signals:
            self.signals.remove(model.step)
            os.kill(os.getpid(), signal.SIGTERM)
            while not model.preempted:
                time.sleep(0.001)
        (values,), _ = model.sample_features(170, lambda images: (images[:, 0, 0, 0],))
        self.ended.append(model.step)
        return {"mean": float(values.mean())}


suite, images = Means(), np.zeros((32, 28, 28, 1), np.uint8)
evaluation = Evaluation(suite, 2)
facts = []
for _ in range(3):
    gan.fit(images, batch_size=8, steps=4, callbacks=[evaluation], verbose=0, handle_sigterm=True)
    facts.append([gan.step, evaluation.is_pending, list(suite.ended)])
print(json.dumps(facts))
"""


def test_sigterm_to_one_machine_ends_an_evaluation_on_all_at_the_same_block():
    done = list(chief_and_worker([sys.executable, "-c", _GAN_OF_THE_CLUSTER + _STOPPED_IN_AN_EVALUATION]))
    assert [code for code, _, _ in done] == [0, 0], done
    facts, same = (json.loads(out.splitlines()[-1]) for _, out, _ in done)
    assert facts == same == [[2, True, [0]], [4, True, [0, 2]], [4, False, [0, 2, 4]]]


def test_machines_at_different_steps_are_refused_before_an_evaluation(dataset, tmp_path):
    folders = tmp_path / "chief", tmp_path / "worker"
    for folder in folders:
        folder.mkdir()
    flags = [*FLAGS, "--metrics=digits", f"--dataset={dataset}", "--global_batch_size=4", "--job_dir=run"]
    command = [sys.executable, "-m", "trainer.task", *flags]
    subprocess.run([*command, "--steps=2", "--strategy=one_device"], check=True, cwd=folders[0], capture_output=True)
    for code, _, error in chief_and_worker([*command, "--steps=4"], folders=folders):
        (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
        assert code == 1 and "2, 0" in line


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
