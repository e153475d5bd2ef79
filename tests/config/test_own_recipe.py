"""Custom losses, architectures, models and recipes from a module outside the package."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trainer.__main__ as commands
from trainer import task
from trainer.config.suites import SUITES
from trainer.models import MODELS

ROOT = Path(__file__).parents[2]


def trainer(arguments, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "trainer", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_recipe_of_the_docs_trains_and_samples(tmp_path):
    example = re.search(r"```python\n(# my_gans\.py\n.*?)```", (ROOT / "docs/recipes.md").read_text(), re.S).group(1)
    (tmp_path / "my_gans.py").write_text(example)
    name = re.search(r"@recipe\ndef (\w+)|def (\w+)\(\) -> TrainConfig", example).group(1, 2)
    recipe = f"my_gans:{name[0] or name[1]}"
    flags = [f"--recipe={recipe}", "--job_dir=run", "--steps=2", "--metrics=none", "--jit_compile=off"]
    trained = trainer(["train", *flags], tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert json.loads((tmp_path / "run/config.json").read_text())["recipe"] == recipe
    generated = trainer(["generate", "--job_dir=run", "--num_images=4", "--out=grid.png"], tmp_path)
    assert generated.returncode == 0, generated.stderr
    assert (tmp_path / "grid.png").stat().st_size > 0


OWN_SUITE = """
import numpy as np

from trainer.config import recipes
from trainer.metrics import register_suite
from trainer.metrics.suite import Suite


@register_suite("brightness", monitor="brightness", minimized=("brightness",), num_real_images=20)
class Brightness(Suite):
    def __init__(self, images):
        assert len(images) == 20
        self.mean = images.mean()

    def measure(self, model):
        return {"brightness": abs(float(np.mean(model.sample(4)[0])) - self.mean)}

    def real_vs_real(self):
        return {"brightness": 0.0}


def mine():
    return recipes.get("vanilla").override(metrics="brightness")
"""


@pytest.mark.slow
def test_a_run_with_a_suite_of_its_own_is_evaluated_and_has_a_best_checkpoint(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_suite.py").write_text(OWN_SUITE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(SUITES, "_members", dict(SUITES._members))
    small = json.dumps({"generator_units": [8], "discriminator_units": [8]})
    flags = ["--recipe=my_suite:mine", f"--job_dir={tmp_path}/runs/run", f"--architecture_options={small}"]
    assert task.main(["task", *flags, "--steps=2", "--global_batch_size=16", "--noexport_model"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "runs/run/metrics.jsonl").read_text().splitlines()]
    capsys.readouterr()
    SUITES._members.pop("brightness")
    del sys.modules["my_suite"]
    evaluate = ["trainer", "evaluate", f"--job_dir={tmp_path}/runs/run", "--recipe=my_suite:mine"]
    assert commands.main([*evaluate, "--checkpoint=latest"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["metrics"]["brightness"] == pytest.approx(lines[-1]["metric/brightness"], rel=1e-6)
    assert measured["protocol"]["metrics"] == "brightness"


@pytest.mark.slow
def test_the_model_of_the_docs_trains_resumes_samples_and_is_served(tmp_path, monkeypatch, capsys):
    example = re.search(r"```python\n(# my_model\.py\n.*?)```", (ROOT / "docs/recipes.md").read_text(), re.S).group(1)
    (tmp_path / "my_model.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(MODELS, "_members", dict(MODELS._members))
    small = json.dumps({"generator_filters": [8, 4], "discriminator_filters": [4, 8]})
    flags = [f"--job_dir={tmp_path}/run", f"--architecture_options={small}", "--metrics=none", "--jit_compile=off"]
    command = ["task", "--recipe=my_model:encoding", "--global_batch_size=16", "--steps_per_execution=1", *flags]
    assert task.main([*command, "--steps=2"]) == 0
    assert task.main([*command, "--steps=3"]) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert 2 in [entry.get("step") for entry in entries if "loss/generator" not in entry]  # where it resumed
    logged = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert logged["step"] == 3 and logged["loss/encoding"] > 0
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["model"], config["model_options"]) == ("encoding", {"encoding_weight": 0.5})
    assert (tmp_path / "run/model/saved_model.pb").exists()
    grid = tmp_path / "grid.png"
    assert commands.main(["trainer", "generate", f"--job_dir={tmp_path}/run", f"--out={grid}"]) == 0
    assert grid.stat().st_size > 0
