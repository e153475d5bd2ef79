"""Commands: exit codes, output and files."""

import hashlib
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import TINY_DCGAN, TINY_MLP
from PIL import Image

import trainer.__main__ as commands
from trainer import task
from trainer.callbacks import MetricsLog
from trainer.cli import app
from trainer.data.tfrecord_writer import write_prepared
from trainer.errors import StorageError
from trainer.training.checkpoint.store import CheckpointStore

TINY = [
    "--recipe=vanilla",
    f"--architecture_options={json.dumps(TINY_MLP)}",
    "--latent_dim=8",
    "--global_batch_size=16",
    "--jit_compile=off",
    "--strategy=one_device",
    "--metrics=none",
    "--steps=6",
    "--sample_every_steps=3",
    "--checkpoint_every_steps=3",
    "--steps_per_execution=2",
    "--noexport_model",
]
TINY_CGAN = [
    *TINY,
    "--recipe=cgan",
    "--architecture=dcgan",
    f"--architecture_options={json.dumps(TINY_DCGAN)}",
    "--metrics=digits",
]


def train(job_dir, *more):
    return task.main(["task", f"--job_dir={job_dir}", *TINY, *more])


def content(directory):
    return {
        path.relative_to(directory): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    job_dir = tmp_path_factory.mktemp("runs") / "tiny"
    assert task.main(["task", f"--job-dir={job_dir}", *TINY_CGAN]) == 0
    return job_dir


def test_a_run_leaves_the_run_directory(finished):
    names = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    assert {"config.json", "metrics.jsonl", "samples/progression.gif"} <= names
    assert {f"samples/step-{step:08d}.png" for step in (0, 3, 6)} <= names
    for step in (3, 6):
        assert {f"checkpoints/step-{step:08d}/{name}" for name in ("MANIFEST.json", "state.index")} <= names
    assert any(name.startswith("logs/events.") for name in names)


def test_metrics_have_one_line_per_execution_with_the_promised_keys(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 3, 4, 6]
    assert {"step", "images_seen", "time", "loss/generator", "loss/discriminator", "images_per_sec"} <= set(lines[1])
    assert lines[-1]["images_seen"] == 96
    assert {"metric/frechet_digits_5k", "metric/recall_digits_5k", "metric/conditional_accuracy"} <= set(lines[-1])
    assert "metric/frechet_digits_5k" in lines[0]


def test_the_grid_has_one_row_per_class_and_the_animation_all_frames(finished):
    with Image.open(finished / "samples/step-00000006.png") as grid:
        assert grid.size == (10 * 30 + 2, 10 * 30 + 2)
    with Image.open(finished / "samples/progression.gif") as animation:
        assert animation.n_frames == 3


def test_a_finished_run_changes_nothing(finished, capsys):
    before = content(finished)
    assert task.main(["task", f"--job_dir={finished}", *TINY_CGAN]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["severity"] == "INFO" and "6" in json.loads(line)["message"]
    assert content(finished) == before


def test_generate_is_deterministic_and_has_its_shapes(finished, tmp_path, capsys):
    def arrays(*more):
        out = tmp_path / "samples.npz"
        arguments = ["main", "generate", f"--job_dir={finished}", "--num_images=12", f"--out={out}", *more]
        assert commands.main(arguments) == 0
        with np.load(out) as loaded:
            return loaded["x"], loaded["y"]

    images, labels = arrays("--seed=3")
    assert images.dtype == np.uint8 and images.shape == (12, 28, 28, 1)
    assert labels.tolist() == [*range(10), 0, 1]
    np.testing.assert_array_equal(images, arrays("--seed=3")[0])
    assert (images != arrays("--seed=4")[0]).any()
    assert arrays("--label=7", "--checkpoint=3")[1].tolist() == [7] * 12
    grid = tmp_path / "grid.png"
    assert commands.main(["main", "generate", f"--job_dir={finished}", f"--out={grid}"]) == 0
    with Image.open(grid) as picture:
        assert picture.size[0] == 302
    assert "step" in capsys.readouterr().out


def test_evaluate_prints_metrics_and_those_of_real_images(finished, capsys):
    assert commands.main(["main", "evaluate", f"--job_dir={finished}", "--checkpoint=latest"]) == 0
    printed = json.loads(capsys.readouterr().out)
    logged = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    assert printed["step"] == 6
    assert printed["metrics"]["frechet_digits_5k"] == pytest.approx(logged["metric/frechet_digits_5k"], rel=1e-6)
    assert printed["real_vs_real"]["frechet_digits_5k"] < 1


def test_a_run_with_more_steps_ends_with_the_bits_of_a_longer_run(tmp_path):
    assert train(tmp_path / "long", "--steps=9") == 0
    assert train(tmp_path / "short", "--steps=5") == 0
    assert train(tmp_path / "short", "--steps=9") == 0
    long, short = (
        json.loads((tmp_path / run / "checkpoints/step-00000009/MANIFEST.json").read_text())["state_sha256"]
        for run in ("long", "short")
    )
    assert long == short
    steps = [json.loads(line)["step"] for line in (tmp_path / "short/metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_a_run_with_a_damaged_checkpoint_ends_with_the_same_bits(tmp_path, capsys):
    assert train(tmp_path / "a") == 0
    newest = tmp_path / "a/checkpoints/step-00000006"
    digest = json.loads((newest / "MANIFEST.json").read_text())["state_sha256"]
    data = next(newest.glob("state.data-*"))
    data.write_bytes(b"\0" + data.read_bytes()[1:])
    assert train(tmp_path / "a") == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (warning,) = (line for line in printed if line["severity"] == "WARNING")
    assert "step-00000006/state.data-00000-of-00001" in warning["message"]
    assert 3 in [
        line.get("step") for line in printed if "loss/generator" not in line
    ]  # the step that the run resumed from
    assert json.loads((newest / "MANIFEST.json").read_text())["state_sha256"] == digest


def test_a_resume_that_does_not_fit_leaves_the_run_as_it_was(tmp_path, capsys):
    assert train(tmp_path / "run") == 0
    before = content(tmp_path / "run")
    assert train(tmp_path / "run", "--latent_dim=9", "--allow_config_change", "--steps=9") == 1
    assert "generator" in capsys.readouterr().err
    after = content(tmp_path / "run")
    assert {name: after[name] for name in before} == before
    assert train(tmp_path / "run", "--steps=9") == 0


def test_an_error_commits_the_checkpoint_that_is_being_written(tmp_path, monkeypatch, capsys):
    plain = CheckpointStore._commit

    def slow(self, *arguments):
        time.sleep(0.5)
        plain(self, *arguments)

    def fail(self, batch, logs=None):
        if self.model.step == 6:
            raise StorageError("the disk is gone.")

    monkeypatch.setattr(CheckpointStore, "_commit", slow)
    monkeypatch.setattr(MetricsLog, "on_train_batch_end", fail)
    assert train(tmp_path / "run") == 1
    assert capsys.readouterr().err == "error: the disk is gone.\n"
    assert (tmp_path / "run/checkpoints/step-00000003/MANIFEST.json").exists()


def test_a_run_with_schedules_resumes_with_the_flag_in_its_error(tmp_path, capsys):
    decaying = ["--learning_rate_decay=cosine", "--steps=2"]
    assert train(tmp_path / "run", *decaying) == 0
    assert train(tmp_path / "run", *decaying, "--steps=3") == 1
    error = capsys.readouterr().err
    assert "--schedule_images=32" in error and "48" in error and error.count("\n") == 1
    assert train(tmp_path / "run", *decaying, "--steps=3", "--schedule_images=32") == 0
    assert (tmp_path / "run/checkpoints/step-00000003/MANIFEST.json").exists()


def test_dry_run_prints_the_whole_config_and_touches_nothing(tmp_path, capsys):
    assert train(tmp_path / "run", "--dry_run") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["steps"] == 6 and printed["metrics"] == "none" and printed["job_dir"] == str(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argv0", "program"),
    [("/venv/bin/gan-trainer", "gan-trainer"), ("/src/trainer/__main__.py", "python -m trainer")],
)
def test_help_names_the_program_as_invoked(argv0, program, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [argv0, "train", "--help"])
    assert commands.main() == 0
    assert f"  {program} train --recipe=" in capsys.readouterr().out
    assert commands.main([argv0]) == 0
    assert f"{program} COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("dataset", "classes", "numbers"),
    [("fashion_mnist", "sneaker,ankle boot,0", [7, 9, 0]), ("digits", "7,3", [7, 3]), ("digits", "none", None)],
)
def test_class_names_become_numbers_in_the_config(dataset, classes, numbers, tmp_path, capsys):
    assert train(tmp_path / "run", f"--dataset={dataset}", f"--classes={classes}", "--dry_run") == 0
    assert json.loads(capsys.readouterr().out)["classes"] == numbers


def test_help_and_the_list_of_commands(capsys):
    assert task.main(["task", "--help"]) == 0
    assert "--generator_learning_rate" in capsys.readouterr().out
    assert commands.main(["main"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in commands._COMMANDS)
    for name in commands._COMMANDS:
        assert commands.main(["main", name, "--help"]) == 0


@pytest.mark.slow
def test_two_virtual_devices_are_two_replicas(tmp_path):
    command = [sys.executable, "-m", "trainer.task", f"--job_dir={tmp_path}", *TINY]
    command += ["--num_virtual_devices=2", "--strategy=auto"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    messages = [json.loads(line)["message"] for line in printed.splitlines()]
    assert any("2 CPU" in message for message in messages)
    assert (tmp_path / "checkpoints/step-00000006/MANIFEST.json").exists()


@pytest.mark.slow
def test_sigterm_commits_exits_143_and_resumes_to_the_same_bits(tmp_path):
    command = [sys.executable, "-m", "trainer.task", f"--job_dir={tmp_path / 'cut'}", *TINY, "--steps=1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert any('"loss/generator"' in line for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(timeout=15) == 143
    step = max(int(path.parent.name[5:]) for path in (tmp_path / "cut/checkpoints").glob("step-*/MANIFEST.json"))
    digests = []
    for run in ("cut", "whole"):
        assert train(tmp_path / run, f"--steps={step + 2}", "--checkpoint_every_steps=0", "--sample_every_steps=0") == 0
        manifest = tmp_path / run / f"checkpoints/step-{step + 2:08d}/MANIFEST.json"
        digests.append(json.loads(manifest.read_text())["state_sha256"])
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_a_cyclegan_is_trained_evaluated_and_sampled(tmp_path, capsys):
    options = {"generator_filters": 4, "residual_blocks": 1, "discriminator_filters": 4, "discriminator_layers": 2}
    flags = ["--recipe=cyclegan", f"--architecture_options={json.dumps(options)}", "--strategy=one_device"]
    arguments = [*flags, "--steps=2", "--global_batch_size=4", "--steps_per_execution=2"]
    assert task.main(["task", f"--job_dir={tmp_path / 'run'}", *arguments]) == 0
    capsys.readouterr()
    assert commands.main(["trainer", "evaluate", f"--job_dir={tmp_path / 'run'}"]) == 0
    assert 0 < json.loads(capsys.readouterr().out)["metrics"]["cycle_error"] < 1
    out = tmp_path / "grid.png"
    assert (
        commands.main(["trainer", "generate", f"--job_dir={tmp_path / 'run'}", "--num_images=4", f"--out={out}"]) == 0
    )
    with Image.open(out) as grid:
        assert grid.size == (2 * 30 + 2, 2 * 30 + 2)


@pytest.mark.slow
def test_a_cyclegan_with_three_images_per_domain_is_trained_and_sampled(tmp_path):
    for domain in "ab":
        images = np.full((3, 16, 16, 1), 99, np.uint8)
        about = {"name": domain, "source": "", "license": "", "attribution": ""}
        write_prepared(tmp_path / domain, images, np.zeros(3, np.int32), ["x"], **about)
    flags = ["--recipe=cyclegan", "--architecture=unet_translator", "--strategy=one_device", "--steps=2"]
    options = {"generator_filters": 4, "discriminator_filters": 4, "discriminator_layers": 1, "depth": 2}
    flags += [f"--dataset={tmp_path / 'a'}", f"--dataset_b={tmp_path / 'b'}", "--global_batch_size=1"]
    flags += [f"--architecture_options={json.dumps(options)}", f"--job_dir={tmp_path / 'run'}", "--metrics=cycle"]
    assert task.main(["task", *flags]) == 0
    out = tmp_path / "grid.png"
    assert commands.main(["trainer", "generate", f"--job_dir={tmp_path / 'run'}", f"--out={out}"]) == 0
    with Image.open(out) as grid:
        assert grid.size == (2 * 18 + 2, 2 * 18 + 2)


def test_an_unforeseen_error_is_one_log_entry_with_its_stack(tmp_path, monkeypatch, capsys):
    def fail(config, environment, **options):
        raise RuntimeError("quite unforeseen")

    monkeypatch.setattr("trainer.training.run.train", fail)
    assert train(tmp_path / "run") == 1
    (entry,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert entry["severity"] == "ERROR" and "Traceback" in entry["message"] and "quite unforeseen" in entry["message"]


@pytest.mark.parametrize("program", ["trainer.task --help", "trainer", "trainer --help"])
def test_help_into_a_closed_pipe_ends_quietly(program):
    command = f"{sys.executable} -m {program} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_closed_stream_is_no_error(closed):
    command = f"{sys.executable} -m trainer prepare --source=nowhere --out=nowhere {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["grid.png", "grid.PNG", "grid.Png"])
def test_extensions_of_outputs_are_read_in_any_case(name, tmp_path):
    assert app.output_file("out", f"{tmp_path}/{name}", {".png": "a .png"}).name == name
