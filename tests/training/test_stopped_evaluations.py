"""SIGTERM during an evaluation ends a run with a checkpoint, and the next start repeats the evaluation."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from trainer import heartbeat, task
from trainer.callbacks import Evaluation
from trainer.metrics import digits as digits_metrics
from trainer.models.sampler import Sampler
from trainer.training.checkpoint.store import CheckpointStore

pytestmark = pytest.mark.slow

COMMON = [
    *("--jit_compile=off", "--strategy=one_device", "--steps=4", "--steps_per_execution=1", "--sample_every_steps=0"),
    *("--evaluate_every_steps=2", "--checkpoint_every_steps=3"),
]
UNITS = '--architecture_options={"generator_units": [16], "discriminator_units": [16]}'
VANILLA = ["--recipe=vanilla", UNITS, "--latent_dim=8", "--global_batch_size=4", *COMMON]
DIGITS = [*VANILLA, "--metrics=digits", "--num_metric_samples=170"]
TRANSLATOR = '{"generator_filters": 4, "discriminator_filters": 4, "depth": 2, "discriminator_layers": 1}'
CYCLE = [
    *("--recipe=cyclegan", "--architecture=unet_translator", f"--architecture_options={TRANSLATOR}"),
    *("--global_batch_size=2", '--model_options={"pool_size": 4}', *COMMON, "--steps=2"),
]


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def train(job_dir, flags):
    return task.main(["task", *flags, f"--job_dir={job_dir}"])


def terminate_in_evaluation(patch, step, moment):
    """Sends SIGTERM at a moment of the evaluation of a step: within its blocks of images, or after the last one."""
    steps, evaluate, blocks, compare = [], Evaluation._evaluate, Sampler._blocks, digits_metrics.compare

    def send():
        if steps == [step] and not heartbeat.is_stop_requested():
            os.kill(os.getpid(), signal.SIGTERM)
            while not heartbeat.is_stop_requested():  # a thread receives the signal
                time.sleep(0.001)

    def evaluated(self, logs):
        steps.append(self.model.step)
        evaluate(self, logs)
        steps.pop()

    def interrupted(*arguments):
        for index, block in enumerate(blocks(*arguments)):
            if index == 1:
                send()
            assert index < 2 or steps != [step], "a block was read after SIGTERM"
            yield block

    def signalled(*arguments):
        send()
        return compare(*arguments)

    patch.setattr(Evaluation, "_evaluate", evaluated)
    if moment == "blocks":
        patch.setattr(Sampler, "_blocks", interrupted)
    else:
        patch.setattr(digits_metrics, "compare", signalled)


def results_of(job_dir):
    """The facts about a finished run that must not depend on where it was stopped."""
    lines = [json.loads(line) for line in (job_dir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["time"]
        for name in [name for name in line if name == "images_per_sec" or name.startswith("resources/")]:
            del line[name]
    manifest, _ = CheckpointStore(job_dir / "checkpoints").find()
    model = job_dir / "model/assets.extra/run.json"
    exported_step = json.loads(model.read_text())["step"] if model.exists() else None
    return lines, manifest.state_sha256, manifest.metrics, manifest.callbacks, exported_step


def check_stopped(job_dir, step, capsys):
    manifest, _ = CheckpointStore(job_dir / "checkpoints").find()
    assert manifest.step == step and not manifest.metrics
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "SIGTERM" in errors[0]
    assert not (job_dir / "model").exists()
    lines = [json.loads(line) for line in (job_dir / "metrics.jsonl").read_text().splitlines()]
    assert not [line for line in lines if line["step"] == step and any("metric/" in name for name in line)]


def test_a_run_stopped_in_evaluations_ends_like_an_undisturbed_one(tmp_path, capsys):
    flags = [*DIGITS, "--export_model"]
    assert train(tmp_path / "whole", flags) == 0
    expected = results_of(tmp_path / "whole")
    assert [line["step"] for line in expected[0] if "metric/frechet_digits_170" in line] == [0, 2, 4]
    for step in (0, 2, 4):
        for moment in ("blocks", "end"):
            job_dir = tmp_path / f"{moment} {step}"
            for _ in range(2):  # the repeated evaluation is stopped, too
                with pytest.MonkeyPatch.context() as patch:
                    terminate_in_evaluation(patch, step, moment)
                    assert train(job_dir, flags) == 143
                check_stopped(job_dir, step, capsys)
            assert train(job_dir, flags) == 0
            assert results_of(job_dir) == expected, (step, moment)
            before = results_of(job_dir)
            assert train(job_dir, flags) == 0  # it is finished
            assert results_of(job_dir) == before


def test_an_evaluation_of_translations_is_stopped_at_a_block(tmp_path, capsys):
    flags = [*CYCLE, "--noexport_model"]
    with pytest.MonkeyPatch.context() as patch:
        terminate_in_evaluation(patch, 2, "blocks")
        assert train(tmp_path / "stopped", flags) == 143
    check_stopped(tmp_path / "stopped", 2, capsys)
    for name in ("stopped", "whole"):
        assert train(tmp_path / name, flags) == 0
    assert results_of(tmp_path / "stopped") == results_of(tmp_path / "whole")


def test_a_finished_run_without_the_suite_needs_no_repeated_evaluation(tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        terminate_in_evaluation(patch, 4, "blocks")
        assert train(tmp_path / "run", [*DIGITS, "--noexport_model"]) == 143
    check_stopped(tmp_path / "run", 4, capsys)
    assert train(tmp_path / "run", [*VANILLA, "--metrics=none", "--noexport_model"]) == 0
    assert "finished" in "".join(capsys.readouterr())


def test_sigterm_reaches_a_process_in_an_evaluation_of_minutes(tmp_path):
    flags = [*VANILLA, "--metrics=photos", "--num_metric_samples=50000", f"--job_dir={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "trainer.task", *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert any("Training the recipe" in line for line in process.stdout)
        time.sleep(5)  # into the evaluation of step 0
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        output, _ = process.communicate(timeout=120)
        seconds = time.monotonic() - started
    assert process.returncode == 143 and output.count("error: ") == 1
    assert seconds < 30
    manifest, _ = CheckpointStore(tmp_path / "run/checkpoints").find()
    assert manifest.step == 0
