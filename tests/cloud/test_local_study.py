"""A tuning job with the `local` command: trials run on this machine, and an interrupted study resumes."""

import json
import math
import re
import sys
from pathlib import Path

import pytest
import yaml
from specs import JOB, LOSS, TUNING, changed, child

from trainer import __main__ as commands
from trainer.storage import locate

pytest.importorskip("optuna")
pytest.importorskip("matplotlib")

RATE = {
    "parameterId": "generator_learning_rate",
    "scaleType": "UNIT_LOG_SCALE",
    "doubleValueSpec": {"minValue": 1e-5, "maxValue": 1e-1},
}
WEIGHT = {"parameterId": "penalty_weight", "doubleValueSpec": {"minValue": 1, "maxValue": 20}}
CONDITIONAL = {**LOSS, "conditionalParameterSpecs": [child("parentCategoricalValues", ["wasserstein"], WEIGHT)]}
BOWL = """
import json, math, os, signal, sys
flags = dict(arg[2:].split("=") for arg in sys.argv[1:])
trial, distance = os.environ["CLOUD_ML_TRIAL_ID"], abs(math.log10(float(flags["generator_learning_rate"])) + 3)
with open("began", "a") as file:
    print(json.dumps([trial, flags, os.environ["AIP_CHECKPOINT_DIR"], os.environ["TF_CONFIG"]]), file=file)
def report(*values):
    if json.loads(os.environ["TF_CONFIG"])["task"]["type"] != "chief":
        return
    with open(os.environ["CLOUD_ML_HP_METRIC_FILE"], "w") as file:
        for n, value in enumerate(values, 1):
            print(json.dumps({"frechet": str(value), "global_step": str(n), "trial": trial}), file=file)
"""
"""A trial whose learning rate is best at 1e-3. As in training, only the chief writes its metrics."""
WORST_CORNER = 2.0  # of BOWL, at 1e-5 or 1e-1


@pytest.fixture
def local(tmp_path, monkeypatch, capsys):
    """Runs the command on a study of a module `mine.job`; returns exit code, output and errors."""
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)

    def run(source, *flags, **changes):
        spec = changed(
            JOB, workerPoolSpecs__0__containerSpec={"imageUri": "i", "command": ["python", "-m", "mine.job"]}
        )
        spec["workerPoolSpecs"].append(spec["workerPoolSpecs"][0])
        study = {"parameters": [RATE, CONDITIONAL], "measurementSelectionType": "BEST_MEASUREMENT"}
        content = changed(TUNING, trialJobSpec=spec, maxTrialCount=8)
        content["studySpec"] |= study
        Path("mine/job.py").write_text(BOWL + source)
        Path("tuning.yaml").write_text(yaml.safe_dump(content | changes))
        code = commands.main(["trainer", "local", "--config=tuning.yaml", *flags])
        return code, *capsys.readouterr()

    return run


def began():
    """Trial, flags, checkpoint folder and cluster of every process that has started."""
    return [json.loads(line) for line in Path("began").read_text().splitlines()]


def parameters(folder):
    """Parameters of every recorded trial, by trial ID."""
    trials = json.loads((locate(folder) / "trials.json").read_bytes())["trials"]
    return {trial["id"]: {item["parameterId"]: item["value"] for item in trial["parameters"]} for trial in trials}


def test_eight_trials_beat_the_worst_corner(local, tmp_path):
    code, out, error = local("report(distance)", "--base_output_dir=study")
    assert (code, error) == (0, "")
    head, best, *rest = out[out.index("trial  state") :].splitlines()
    assert head.split() == ["trial", "state", "frechet", "step", "generator_learning_rate", "loss", "penalty_weight"]
    assert float(best.split()[2]) < WORST_CORNER / 2 and len(rest) == 7 + 3
    assert best.split()[0] in rest[-2] and rest[-1].startswith("--generator_learning_rate=")
    assert (tmp_path / "study/study.png").read_bytes().startswith(b"\x89PNG")
    by_trial = parameters("study")
    assert list(by_trial) == [str(n) for n in range(1, 9)]
    assert {trial["loss"] for trial in by_trial.values()} == {"hinge", "wasserstein"}
    assert all(("penalty_weight" in trial) == (trial["loss"] == "wasserstein") for trial in by_trial.values())


def test_every_replica_of_a_trial_gets_its_parameters(local, tmp_path):
    assert local("report(distance)", "--base_output_dir=study", maxTrialCount=2)[0] == 0
    by_trial = parameters("study")
    processes = [(trial, flags, folder, json.loads(cluster)) for trial, flags, folder, cluster in began()]
    assert {(trial, cluster["task"]["type"]) for trial, *_, cluster in processes} <= {
        (trial, role) for trial in "12" for role in ("chief", "worker")
    }
    assert {trial for trial, *_ in processes} == {"1", "2"}
    for trial, flags, folder, cluster in processes:
        assert {name: str(value) for name, value in by_trial[trial].items()} == flags
        assert folder == f"{tmp_path}/study/{trial}/checkpoints/" and cluster["task"]["trial"] == trial


@pytest.mark.parametrize(
    ("number", "expected_code"), [("SIGINT", 130), pytest.param("SIGTERM", 143, marks=pytest.mark.slow)]
)
def test_a_study_resumes_exactly_after_a_signal(number, expected_code, local):
    stops = f"""
if trial == "3" and not os.path.exists("once"):
    open("once", "w").close()
    os.kill(os.getppid(), signal.{number})
    signal.pause()
report(distance)
"""
    code, _, error = local(stops, "--base_output_dir=a", parallelTrialCount=1)
    assert code == expected_code and error.startswith("error: ") and error.count("\n") == 1
    assert list(parameters("a")) == ["1", "2", "3"]
    assert local(stops, "--base_output_dir=a", parallelTrialCount=1)[0] == 0
    chiefs = [trial for trial, *_, cluster in began() if json.loads(cluster)["task"]["type"] == "chief"]
    assert chiefs == ["1", "2", "3", "3", *map(str, range(4, 9))]
    assert local("report(distance)", "--base_output_dir=b", parallelTrialCount=1)[0] == 0
    assert parameters("a") == parameters("b")


def test_a_stopped_trial_keeps_its_best_measurement(local):
    hopeless = """
if int(trial) < 7:
    report(*[1.0] * 50)
else:
    report(*[9.0 + n for n in range(50)])
    signal.pause()
"""
    flags = ["--base_output_dir=study", "--grace_secs=5"]
    study = TUNING["studySpec"] | {"parameters": [RATE], "measurementSelectionType": "BEST_MEASUREMENT"}
    code, out, _ = local(
        hopeless, *flags, maxTrialCount=7, parallelTrialCount=1, studySpec=study | {"medianAutomatedStoppingSpec": {}}
    )
    assert code == 0 and any({"7", "58", "50"} <= set(re.findall(r"\d+", line)) for line in out.splitlines())
    last = json.loads(Path("study/trials.json").read_text())["trials"][-1]
    assert last["state"] == "SUCCEEDED" and last["finalMeasurement"]["metrics"][0]["value"] == 9.0


def test_flags_replace_the_numbers_of_trials_and_continue_a_study(local):
    assert local("report(distance)", "--base_output_dir=s", "--max_trials=1", "--parallel_trials=1")[0] == 0
    assert list(parameters("s")) == ["1"]
    assert local("report(distance)", "--base_output_dir=s", "--max_trials=2")[0] == 0
    assert list(parameters("s")) == ["1", "2"] and len({trial for trial, *_ in began()}) == 2


def test_a_failed_trial_does_not_end_the_study(local):
    code, out, _ = local("report(distance)\nsys.exit(7 * (trial == '2'))", "--base_output_dir=s", maxTrialCount=3)
    assert code == 0 and any({"2", "7"} <= set(re.findall(r"\d+", line)) for line in out.splitlines())
    states = [trial["state"] for trial in json.loads(Path("s/trials.json").read_text())["trials"]]
    assert states == ["SUCCEEDED", "INFEASIBLE", "SUCCEEDED"]


def test_a_study_that_fails_still_shows_its_trials(local):
    source = "if trial == '2': sys.exit(7)\nreport(distance)"
    code, out, error = local(source, "--base_output_dir=s", maxFailedTrialCount=1, parallelTrialCount=1)
    assert code == 1 and error.startswith("error: ") and error.count("\n") == 1
    _, best, failed, *rest = out[out.index("trial  state") :].splitlines()
    assert best.split()[:2] == ["1", "SUCCEEDED"] and failed.split()[:2] == ["2", "INFEASIBLE"]
    assert rest[-1].startswith("--generator_learning_rate=") and Path("s/study.png").exists()


def test_a_missing_matplotlib_is_reported_before_the_trials(local, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, error = local("report(distance)", "--base_output_dir=s")
    assert code == 2 and "matplotlib" in error.lower() and not Path("began").exists()


def test_the_run_of_the_best_trial_is_named(local):
    source = "folder = os.path.dirname(os.path.dirname(os.environ['AIP_CHECKPOINT_DIR']))\n"
    source += "os.makedirs(folder, exist_ok=True)\nopen(f'{folder}/config.json', 'w').close()\nreport(distance)"
    code, out, _ = local(source, "--base_output_dir=s", maxTrialCount=1, parallelTrialCount=1)
    assert code == 0 and f"--job_dir={Path('s').absolute()}/1 " in out.splitlines()[-1]


def test_lines_of_trials_carry_their_number(local):
    code, out, _ = local("print('hello'); report(distance)", "--base_output_dir=s", maxTrialCount=2)
    assert code == 0
    entries = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    replicas = {entry["replica"] for entry in entries if entry["message"] == "hello"}
    assert {"trial 1 workerpool0-0", "trial 2 workerpool0-0"} <= replicas


def test_a_study_in_a_bucket_keeps_its_files_there(local, bucket):
    code, out, _ = local("report(distance)", f"--base_output_dir={bucket}/study", maxTrialCount=2)
    assert code == 0 and f"{bucket}/study/study.png" in out
    assert (locate(bucket) / "study/study.png").read_bytes().startswith(b"\x89PNG")
    by_trial = parameters(f"{bucket}/study")
    assert all(-5 <= math.log10(trial["generator_learning_rate"]) <= -1 for trial in by_trial.values())
    assert {folder for _, _, folder, _ in began()} == {f"{bucket}/study/{trial}/checkpoints/" for trial in "12"}
    assert local("report(distance)", f"--base_output_dir={bucket}/study", maxTrialCount=3)[0] == 0
    assert list(parameters(f"{bucket}/study")) == ["1", "2", "3"]


def test_a_dry_run_shows_the_first_trial(local):
    code, out, _ = local("", "--base_output_dir=study", "--dry_run")
    shown = json.loads(out)
    assert code == 0 and [replica["name"] for replica in shown] == ["workerpool0-0", "workerpool1-0"]
    assert shown[0]["command"][3].startswith("--generator_learning_rate=")
    assert shown[0]["environment"]["CLOUD_ML_TRIAL_ID"] == "1" and not Path("study").exists()
