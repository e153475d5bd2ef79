"""A study on images that are not digits: its trials are ranked by the metrics of the suite `photos`."""

import json

import numpy as np
import pytest
import yaml
from specs import JOB, TUNING, changed

from trainer import __main__ as commands
from trainer.cloud.jobs import job_spec
from trainer.cloud.jobs.preflight import check_job
from trainer.data.tfrecord_writer import write_prepared

pytest.importorskip("optuna")
pytest.importorskip("matplotlib")
pytestmark = pytest.mark.slow

RATE = {
    "parameterId": "generator_learning_rate",
    "scaleType": "UNIT_LOG_SCALE",
    "doubleValueSpec": {"minValue": 1e-5, "maxValue": 1e-1},
}
FLAGS = [
    "--recipe=vanilla",
    '--architecture_options={"generator_units": [16], "discriminator_units": [16]}',
    *("--latent_dim=8", "--global_batch_size=16", "--jit_compile=off", "--noexport_model", "--num_metric_samples=100"),
    *("--steps=60", "--evaluate_every_steps=20", "--sample_every_steps=0", "--checkpoint_every_steps=0"),
]


@pytest.fixture
def photos(tmp_path):
    """A dataset with gradients of random colors."""
    random = np.random.default_rng(0)
    colors = random.integers(0, 256, (120, 2, 1, 1, 3))
    position = np.linspace(0, 1, 16).reshape(1, 16, 1, 1)
    images = np.broadcast_to(colors[:, 0] * position + colors[:, 1] * (1 - position), (120, 16, 16, 3))
    texts = {"name": "photos", "source": "", "license": "", "attribution": ""}
    write_prepared(tmp_path / "photos", images.astype(np.uint8), np.zeros(120, np.int32), ["all"], **texts)
    return tmp_path / "photos"


def test_a_study_ranks_trials_by_the_metric_of_photographs(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    container = {
        "imageUri": "us-docker.pkg.dev/p/r/trainer",
        "command": ["python", "-m", "trainer.task"],
        "args": [*FLAGS, f"--dataset={photos}"],
    }
    content = changed(TUNING, trialJobSpec=changed(JOB, workerPoolSpecs__0__containerSpec=container))
    content |= {"maxTrialCount": 4, "parallelTrialCount": 2}
    content["studySpec"] |= {"parameters": [RATE], "measurementSelectionType": "BEST_MEASUREMENT"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    assert commands.main(["trainer", "local", "--config=study.yaml", "--base_output_dir=study"]) == 0
    content["trialJobSpec"]["baseOutputDirectory"] = {"outputUriPrefix": "gs://bkt/runs"}
    assert check_job(job_spec.parse(content))

    trials = json.loads((tmp_path / "study/trials.json").read_text())["trials"]
    assert [trial["state"] for trial in trials] == ["SUCCEEDED"] * 4
    best = {}
    for trial in trials:
        lines = (tmp_path / f"study/{trial['id']}/metrics.jsonl").read_text().splitlines()
        scalars = [line for line in map(json.loads, lines) if line["step"]]  # the untrained generator does not count
        best[trial["id"]] = min(line.get("metric/frechet_photos_100", np.inf) for line in scalars)
        (metric,) = trial["finalMeasurement"]["metrics"]
        assert metric["metricId"] == "frechet" and metric["value"] == pytest.approx(best[trial["id"]])
    assert len(set(best.values())) == 4
    out = capsys.readouterr().out
    _, first, *_ = out[out.index("trial  state") :].splitlines()
    assert first.split()[0] == min(best, key=best.__getitem__)
    assert len(list((photos / "statistics").glob("photos_*.npz"))) == 1
