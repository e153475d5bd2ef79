"""From a folder of pictures in a bucket to a trained run in a bucket, and on from there on another machine."""

import json

from bucket_runs import files, prepared, run, state_of, train
from PIL import Image

from trainer.storage import locate


def test_two_commands_lead_from_pictures_to_a_run_all_in_a_bucket(pictures, bucket, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = prepared(pictures, bucket)
    assert train(data, f"{bucket}/run", "--steps=8") == 0
    assert f"Look at {bucket}/run/samples/step-00000008.png" in capsys.readouterr().out
    there = files(f"{bucket}/run")
    assert {"config.json", "metrics.jsonl", "samples/progression.gif", "samples/step-00000000.png"} <= set(there)
    assert any(name.startswith("logs/") for name in there)

    assert train(data, tmp_path / "run", "--steps=8") == 0
    here = files(tmp_path / "run")
    assert {name for name in here if not name.startswith("logs/")} == {
        name for name in there if not name.startswith("logs/")
    }
    for name in ("samples/step-00000004.png", "samples/step-00000008.png", "samples/progression.gif"):
        assert (locate(tmp_path / "run") / name).read_bytes() == (locate(f"{bucket}/run") / name).read_bytes()
    assert state_of(tmp_path / "run", 8) == state_of(f"{bucket}/run", 8)

    assert train(data, f"{bucket}/run", "--steps=8") == 0
    assert f"The run in {bucket}/run is finished" in capsys.readouterr().out
    assert run("generate", f"--job_dir={bucket}/run", "--num_images=4", f"--out={tmp_path}/grid.png") == 0
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (22, 22)


def test_a_run_goes_on_from_its_bucket_alone_with_the_same_bits(pictures, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = prepared(pictures, bucket)
    small = f"--data_memory_mib={12 * 8 * 8 * 3 / 2**20}"
    assert train(data, f"{bucket}/whole", "--steps=14", small) == 0
    assert train(data, f"{bucket}/cut", "--steps=6", small) == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    assert train(data, f"{bucket}/cut", "--steps=14") == 0
    assert state_of(f"{bucket}/cut", 14) == state_of(f"{bucket}/whole", 14)
    lines = [json.loads(line)["step"] for line in (locate(f"{bucket}/cut") / "metrics.jsonl").read_bytes().splitlines()]
    assert lines == sorted(set(lines)) and lines[-1] == 14 and lines[0] <= 2
    assert json.loads((locate(f"{bucket}/cut") / "config.json").read_bytes())["data_windows"] > 1


def test_a_bucket_that_does_not_exist_is_one_sentence(pictures, bucket, tmp_path, capsys):
    assert train("digits", "gs://no-such-bucket/run", "--steps=1") == 1
    assert "error: the bucket gs://no-such-bucket does not exist" in capsys.readouterr().err
    assert train("gs://no-such-bucket/set", tmp_path / "run", "--steps=1") == 1
    assert "error: the bucket gs://no-such-bucket does not exist" in capsys.readouterr().err
    assert train(f"{bucket}/nothing", tmp_path / "run", "--steps=1") == 2
    assert "has no dataset.json" in capsys.readouterr().err
