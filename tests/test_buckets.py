"""Data preparation, training and resuming with everything in a bucket."""

import json
import threading
import urllib.request

import pytest
from bucket_runs import files, prepared, run, state_of, train
from PIL import Image
from refusals import check_command_refusal

from trainer.explore.server import ExploreServer
from trainer.serving import saved_model
from trainer.storage import locate


def test_two_commands_turn_images_into_a_run_in_a_bucket(pictures, bucket, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = prepared(pictures, bucket)
    assert train(data, f"{bucket}/run", "--steps=8") == 0
    assert f"{bucket}/run/samples/step-00000008.png" in capsys.readouterr().out
    remote_files = files(f"{bucket}/run")
    assert {"config.json", "metrics.jsonl", "samples/progression.gif", "samples/step-00000000.png"} <= set(remote_files)
    assert any(name.startswith("logs/") for name in remote_files)

    assert train(data, tmp_path / "run", "--steps=8") == 0
    local_files = files(tmp_path / "run")
    assert {name for name in local_files if not name.startswith("logs/")} == {
        name for name in remote_files if not name.startswith("logs/")
    }
    for name in ("samples/step-00000004.png", "samples/step-00000008.png", "samples/progression.gif"):
        assert (locate(tmp_path / "run") / name).read_bytes() == (locate(f"{bucket}/run") / name).read_bytes()
    assert state_of(tmp_path / "run", 8) == state_of(f"{bucket}/run", 8)

    assert train(data, f"{bucket}/run", "--steps=8") == 0
    assert f"{bucket}/run" in capsys.readouterr().out
    assert run("generate", f"--job_dir={bucket}/run", "--num_images=4", f"--out={tmp_path}/grid.png") == 0
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (22, 22)


@pytest.mark.slow
def test_every_command_reads_a_run_in_a_bucket(pictures, bucket, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    run_dir = f"{bucket}/run"
    assert train(prepared(pictures, bucket), run_dir, "--steps=4") == 0
    before = files(run_dir)
    capsys.readouterr()

    assert run("evaluate", f"--job_dir={run_dir}", "--metrics=photos", "--num_metric_samples=24") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["step"] == 4 and "frechet_photos_24" in json.dumps(result)
    for out in (f"{bucket}/images/", f"{bucket}/grid.png"):
        assert run("generate", f"--job_dir={run_dir}", "--num_images=3", f"--out={out}") == 0
    assert len(files(f"{bucket}/images")) == 3 and "grid.png" in files(bucket)
    assert run("export", f"--job_dir={run_dir}", f"--out={bucket}/model") == 0
    assert saved_model.read_metadata(locate(f"{bucket}/model"))["step"] == 4
    assert files(run_dir) == before

    locate(run_dir).delete(["report.html"])
    assert run("report", f"--job_dir={run_dir}") == 0 and "report.html" in files(run_dir)

    answers, serve = [], ExploreServer.serve_forever

    def serve_one_answer(server):
        def visit():
            try:
                with urllib.request.urlopen(f"{server.address}facts", timeout=20) as answer:
                    answers.append(json.loads(answer.read()))
            finally:
                server.shutdown()

        threading.Thread(target=visit).start()
        serve(server)

    monkeypatch.setattr(ExploreServer, "serve_forever", serve_one_answer)
    assert run("explore", f"--job_dir={run_dir}", "--checkpoint=latest") == 0
    assert run_dir in answers[0]["title"] and "4" in answers[0]["title"]
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("cache", "pictures")] == []


@pytest.mark.slow
def test_a_run_resumes_bit_exactly_from_its_bucket(pictures, bucket, tmp_path, monkeypatch):
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
    assert json.loads((locate(f"{bucket}/cut") / "config.json").read_bytes())["num_chunks"] > 1


@pytest.mark.parametrize(
    ("data", "job_dir", "code", "facts"),
    [
        ("digits", "gs://no-such-bucket/run", 1, ("gs://no-such-bucket",)),
        ("gs://no-such-bucket/set", "run", 1, ("gs://no-such-bucket",)),
        ("{bucket}/nothing", "run", 2, ("dataset={bucket}/nothing", "dataset.json")),
    ],
)
def test_a_missing_bucket_or_dataset_is_named(bucket, tmp_path, monkeypatch, capsys, data, job_dir, code, facts):
    monkeypatch.chdir(tmp_path)
    arguments = [data.format(bucket=bucket), job_dir, "--steps=1"]
    facts = [fact.format(bucket=bucket) for fact in facts]
    check_command_refusal(lambda argv: train(*argv), arguments, capsys, code, *facts)
