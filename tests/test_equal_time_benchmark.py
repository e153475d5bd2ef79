"""The comparison at equal training times: contenders, budgets, pieces that are merged, and the DCGAN in PyTorch."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from refusals import check_command_refusal, check_refusal

from benchmarks import budget, equal_time
from benchmarks.equal_time import TORCH_DCGAN, Contender
from trainer.errors import ConfigError

CORE = min(os.sched_getaffinity(0))
"""A core that this process may use."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("photos", Contender("photos", "photos")),
        ("labels=photos --model=conditional", Contender("labels", "photos", ("--model=conditional",))),
        ("two=dcgan --seed=1 '--classes=a b'", Contender("two", "dcgan", ("--seed=1", "--classes=a b"))),
        ("own=my_gans:recipe", Contender("own", "my_gans:recipe")),
        (TORCH_DCGAN, Contender(TORCH_DCGAN, TORCH_DCGAN)),
    ],
)
def test_a_contender_is_a_recipe_with_flags(text, expected):
    assert Contender.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "a/b", "../x=photos", "a=photos flags", "a=photos seed=1", f"{TORCH_DCGAN}=photos", f"a={TORCH_DCGAN}"]
)
def test_another_form_of_a_contender_is_refused(text):
    check_refusal(lambda: Contender.parse(text), ConfigError, "contender", text)


@pytest.fixture
def commands(monkeypatch):
    """The commands that the benchmark starts. Training costs 10 s and 0.5 s per step; the metric falls with steps."""
    started = []
    monkeypatch.setattr(budget, "calibrate", lambda *arguments: budget.Cost(10.0, 0.5))

    def flag(command, name):
        return next(argument.partition("=")[2] for argument in command if argument.startswith(f"--{name}="))

    def run_checked(command, log_path, cores):
        started.append(command)
        if "trainer.task" in command:
            (log_path.parent / "run").mkdir()
            config = {"precision": "bfloat16", "global_batch_size": 32}
            (log_path.parent / "run/config.json").write_text(json.dumps(config))
        else:
            np.savez(flag(command, "out"), x=np.zeros((2, 8, 8, 3), np.uint8))
        return budget.Usage(0, 80.0, 110.0, 512.0)

    def run(command, output, cores=(), errors=None):
        started.append(command)
        step = int(flag(command, "images").rpartition("-")[2].removesuffix(".npz"))
        metrics = {"frechet_photos_5k": 1000 / step, "precision_photos_5k": 0.5, "recall_photos_5k": 0.25}
        real = {"frechet_photos_5k": 0.2}
        output.write(json.dumps({"metrics": metrics, "real_vs_real": real}).encode())
        return budget.Usage(0, 1.0, 1.0, 1.0)

    monkeypatch.setattr(budget, "run_checked", run_checked)
    monkeypatch.setattr(budget, "run", run)
    return started


def run_benchmark(tmp_path, *flags):
    fixed = ["--clock=processor", f"--cores={CORE}", "--minutes=1", "--moments=3", f"--out={tmp_path / 'out'}"]
    return equal_time.main(["equal_time", f"--data={tmp_path / 'set'}", *fixed, *flags])


def test_a_contender_trains_for_the_budget_and_is_measured_at_every_moment(tmp_path, commands, capsys):
    assert run_benchmark(tmp_path, "--contender=fast=dcgan --beta_1=0") == 0
    (result,) = json.loads((tmp_path / "out/equal_time.json").read_text())
    assert result["steps"] == 100 and "--steps=100" in result["command"] and "--beta_1=0" in result["command"]
    assert "--metrics=none" in result["command"] and "--checkpoint_every_steps=34" in result["command"]
    assert [moment["step"] for moment in result["moments"]] == [34, 68, 100]
    assert [moment["images_seen"] for moment in result["moments"]] == [1088, 2176, 3200]
    assert [moment["seconds"] for moment in result["moments"]] == [44.0, 78.0, 110.0]
    assert result["images_per_sec"] == pytest.approx(32.0) and result["precision"] == "bfloat16"
    assert sum("evaluate" in command for command in commands) == 3
    assert not list((tmp_path / "out/fast").glob("*.npz"))
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| fast"))
    assert "| 10 | 1.00 | 0.5 | 0.25 |" in line and "0.7: 29.4" in line


def test_pieces_are_merged_and_not_repeated(tmp_path, commands, capsys):
    both = ["--contender=first=dcgan", "--contender=second=hinge_sn"]
    assert run_benchmark(tmp_path, *both, "--only=second") == 0
    assert run_benchmark(tmp_path, *both, "--only=first") == 0
    num_commands = len(commands)
    capsys.readouterr()
    assert run_benchmark(tmp_path, *both) == 0
    assert len(commands) == num_commands
    assert {result["name"] for result in equal_time.results(tmp_path / "out")} == {"first", "second"}
    assert run_benchmark(tmp_path, "--table", "--contender=other") == 0
    out = capsys.readouterr().out
    assert "first" in out and "second" in out and len(commands) == num_commands
    assert run_benchmark(tmp_path, *both, "--only=first", "--minutes=2") == 0
    assert len(commands) > num_commands


def test_unknown_names_and_missing_data_are_refused(tmp_path, capsys):
    arguments = ["equal_time", f"--out={tmp_path}"]
    check_command_refusal(equal_time.main, [*arguments, "--data=x", "--only=y"], capsys, 2, "only", "y")
    check_command_refusal(equal_time.main, arguments, capsys, 2, "data")
    check_command_refusal(equal_time.main, [*arguments, "--data=x", "--cores=77777"], capsys, 2, "cores", "77777")


@pytest.mark.slow
@pytest.mark.parametrize("clock", budget.CLOCKS)
def test_the_dcgan_in_pytorch_trains_for_a_time_and_writes_images(tmp_path, clock):
    pytest.importorskip("torch", exc_type=ImportError)
    np.save(tmp_path / "data.npy", np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), np.uint8))
    command = [sys.executable, "-m", "benchmarks.peers.pytorch_dcgan", f"--images={tmp_path / 'data.npy'}"]
    command += [f"--out={tmp_path}", "--seconds=2", f"--clock={clock}", "--moments=2", "--num_images=30"]
    subprocess.run(command, check=True, timeout=200)
    result = json.loads((tmp_path / "result.json").read_text())
    assert all(moment["seconds"] >= seconds for moment, seconds in zip(result["moments"], (1, 2), strict=True))
    assert result["moments"][-1]["step"] == result["steps"] and result["precision"] in ("float32", "bfloat16")
    for moment in result["moments"]:
        images = np.load(tmp_path / moment["images"])["x"]
        assert images.shape == (30, 16, 16, 3) and images.dtype == np.uint8 and np.ptp(images) > 0
