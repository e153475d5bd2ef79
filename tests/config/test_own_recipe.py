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
