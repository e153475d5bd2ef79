"""A tuning job on this machine: its trials, early stopping, its record, and its table."""

import importlib.util
import json
import math
import re
import sys
import threading
from concurrent.futures import wait

import pytest
from refusals import check_refusal
from specs import LOSS, RATE, TUNING, UNITS, WIDTH, changed, child

from trainer.cloud.jobs import job_spec
from trainer.cloud.tuning import optuna_backend, study_report, study_runner, trial_store
from trainer.errors import ConfigError, TrainerError

pytest.importorskip("optuna")

LOG_RATE = {"parameterId": "rate", "scaleType": "UNIT_LOG_SCALE", "doubleValueSpec": {"minValue": 1e-5, "maxValue": 1}}
WEIGHT = {"parameterId": "penalty_weight", "doubleValueSpec": {"minValue": 1, "maxValue": 20}}
CONDITIONAL = {**LOSS, "conditionalParameterSpecs": [child("parentCategoricalValues", ["wasserstein"], WEIGHT)]}


def job(*parameters, count=8, parallel=1, **study):
    """A tuning job that minimizes `frechet`; more keys of its study, or of itself where they are known there."""
    content = changed(TUNING, maxTrialCount=count, parallelTrialCount=parallel)
    content["studySpec"]["parameters"] = list(parameters) or [LOG_RATE]
    content |= {key: study.pop(key) for key in list(study) if key.endswith("Count")}
    content["studySpec"] |= study
    return job_spec.parse(content)


def report(trial, *values, metric="frechet"):
    """Writes what a trainer writes; the steps are 10, 20 and so on."""
    lines = [{metric: str(value), "global_step": str(10 * n), "trial": trial.id} for n, value in enumerate(values, 1)]
    trial.metric_file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def bowl(trial):
    """Best at a rate of 1e-2."""
    report(trial, (math.log10(trial.parameters["rate"]) + 2) ** 2)
    return 0


def run(spec, folder, run_trial=bowl):
    return study_runner.study(spec, folder, run_trial, poll_secs=0.005)


def written(folder):
    return json.loads((folder / "trials.json").read_text())


def told(folder):
    """id -> parameters of every trial on record."""
    return {t["id"]: {p["parameterId"]: p["value"] for p in t["parameters"]} for t in written(folder)["trials"]}


def messages(capsys):
    return [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("algorithm", ["ALGORITHM_UNSPECIFIED", "RANDOM_SEARCH"])
def test_eight_trials_beat_the_worst_corner(tmp_path, algorithm):
    study = run(job(algorithm=algorithm), tmp_path)
    assert [record.id for record in study.trials] == [str(n) for n in range(1, 9)]
    assert study.best.final.value < 1 < (math.log10(1e-5) + 2) ** 2
    assert study.ranked[0] is study.best


def test_bayesian_search_comes_closer_than_chance(tmp_path):
    chance = run(job(count=30, algorithm="RANDOM_SEARCH"), tmp_path / "a")
    bayesian = run(job(count=30), tmp_path / "b")

    def near(study):
        return sum(record.final.value < 0.25 for record in study.trials)

    assert near(bayesian) > 1.5 * near(chance)


def test_a_metric_can_be_maximized(tmp_path):
    metrics = [{"metricId": "frechet", "goal": "MAXIMIZE"}]
    study = run(job(metrics=metrics), tmp_path)
    assert study.best.final.value == max(record.final.value for record in study.trials)


def test_a_trial_gets_flags_folders_and_its_number(tmp_path):
    seen = {}

    def look(trial):
        seen[trial.id] = trial
        return bowl(trial)

    run(job(LOG_RATE, UNITS, WIDTH, LOSS, count=2), tmp_path, look)
    trial, base = seen["2"], tmp_path / "2"
    rate, units, width, loss = (trial.parameters[name] for name in ("rate", "units", "width", "loss"))
    assert trial.args == (f"--rate={rate!r}", f"--units={units}", f"--width={width:g}", f"--loss={loss}")
    assert isinstance(units, int) and trial.folder == str(base) and base.is_dir()
    assert trial.environment == {"CLOUD_ML_TRIAL_ID": "2", "CLOUD_ML_HP_METRIC_FILE": f"{base}/output.metrics"}


def test_whole_numbers_are_written_without_a_point():
    found = trial_store.flags({"units": 3, "weight": 20.0, "rate": 0.00031, "loss": "hinge"})
    assert found == ("--units=3", "--weight=20", "--rate=0.00031", "--loss=hinge")


def test_a_conditional_parameter_needs_its_parents_value(tmp_path):
    run(job(LOG_RATE, CONDITIONAL, count=12), tmp_path)
    found = told(tmp_path).values()
    assert {one["loss"] for one in found} == {"hinge", "wasserstein"}
    assert all(("penalty_weight" in one) == (one["loss"] == "wasserstein") for one in found)
    assert all(1 <= one["penalty_weight"] <= 20 for one in found if "penalty_weight" in one)


def test_a_name_may_have_a_range_per_value_of_its_parent(tmp_path):
    small = {"parameterId": "units", "integerValueSpec": {"minValue": 1, "maxValue": 3}}
    large = {"parameterId": "units", "discreteValueSpec": {"values": [64, 128]}}
    parent = {
        **LOSS,
        "conditionalParameterSpecs": [
            child("parentCategoricalValues", ["hinge"], small),
            child("parentCategoricalValues", ["wasserstein"], large),
        ],
    }
    run(job(LOG_RATE, parent, count=12), tmp_path)
    run(job(LOG_RATE, parent, count=16), tmp_path)
    for one in told(tmp_path).values():
        assert one["units"] in ((1, 2, 3) if one["loss"] == "hinge" else (64, 128))


@pytest.mark.parametrize(("scale", "low"), [("UNIT_LOG_SCALE", True), ("UNIT_REVERSE_LOG_SCALE", False)])
@pytest.mark.parametrize("kind", ["doubleValueSpec", "integerValueSpec"])
def test_a_logarithmic_scale_is_dense_at_its_end(tmp_path, scale, low, kind):
    rate = {"parameterId": "rate", "scaleType": scale, kind: {"minValue": 1, "maxValue": 10001}}
    run(job(rate, count=20, algorithm="RANDOM_SEARCH"), tmp_path)
    values = [one["rate"] for one in told(tmp_path).values()]
    assert all(1 <= value <= 10001 for value in values)
    near = sum(value < 2500 if low else value > 7500 for value in values)
    assert near >= 13 and len(set(values)) > 10


def test_a_grid_is_walked_once_without_absent_children(tmp_path, capsys):
    weight = {"parameterId": "penalty_weight", "discreteValueSpec": {"values": [1, 10]}}
    loss = {**LOSS, "conditionalParameterSpecs": [child("parentCategoricalValues", ["wasserstein"], weight)]}
    spec = job(loss, WIDTH, count=20, parallel=2, algorithm="GRID_SEARCH")

    def one(trial):
        report(trial, 1)
        return 0

    run(spec, tmp_path, one)
    assert [tuple(point.values()) for point in told(tmp_path).values()] == [
        ("hinge", 0.5),
        ("hinge", 1),
        ("wasserstein", 1, 0.5),
        ("wasserstein", 1, 1),
        ("wasserstein", 10, 0.5),
        ("wasserstein", 10, 1),
    ]
    assert any("6" in line and "maxTrialCount=20" in line for line in messages(capsys))


def test_trials_overlap_and_are_never_more_than_allowed(tmp_path):
    together = threading.Barrier(3)
    lock, now, most = threading.Lock(), set(), []

    def meet(trial):
        with lock:
            now.add(trial.id)
            most.append(len(now))
        together.wait(10)  # needs three at a time
        bowl(trial)
        with lock:
            now.remove(trial.id)
        return 0

    study = run(job(count=9, parallel=3), tmp_path, meet)
    assert len(study.trials) == 9 and max(most) == 3


def stepwise(trial, value, steps=6):
    """Reports a value a step, until it is asked to stop."""
    for step in range(1, steps + 1):
        report(trial, *[value] * step)
        if trial.stop.wait(0.02):
            return 143
    return 0


def test_a_trial_that_is_worse_than_the_median_is_asked_to_end(tmp_path, capsys):
    def last_is_bad(trial):
        if int(trial.id) < 6:
            report(trial, *[int(trial.id)] * 500)
            return 0
        return stepwise(trial, 99, steps=500)

    study = run(job(count=6, medianAutomatedStoppingSpec={}), tmp_path, last_is_bad)
    bad = study.trials[-1]
    assert bad.state == "SUCCEEDED" and bad.final.value == 99 and bad.final.step < 5000
    assert any({"6", "99"} <= set(re.findall(r"\d+", line)) and "frechet" in line for line in messages(capsys))


def test_without_median_stopping_all_trials_run_to_their_end(tmp_path):
    def last_is_bad(trial):
        return stepwise(trial, 99 if trial.id == "7" else 1, steps=3)

    study = run(job(count=7, parallel=3, decayCurveStoppingSpec={}), tmp_path, last_is_bad)
    assert {record.final.step for record in study.trials} == {30}


@pytest.mark.parametrize(
    ("selection", "goal", "expected"),
    [
        ("BEST_MEASUREMENT", "MINIMIZE", (20, 1.0)),
        ("BEST_MEASUREMENT", "MAXIMIZE", (10, 5.0)),
        ("LAST_MEASUREMENT", "MINIMIZE", (30, 3.0)),
        ("MEASUREMENT_SELECTION_TYPE_UNSPECIFIED", "MINIMIZE", (30, 3.0)),
    ],
)
def test_the_best_or_the_last_measurement_counts(tmp_path, selection, goal, expected):
    def three(trial):
        report(trial, 5, 1, 3, "nan")
        return 0

    metrics = [{"metricId": "frechet", "goal": goal}]
    study = run(job(count=1, metrics=metrics, measurementSelectionType=selection), tmp_path, three)
    assert (study.best.final.step, study.best.final.value) == expected
    assert len(study.best.measurements) == 3


def test_a_failed_trial_has_no_measurement_that_counts(tmp_path):
    def second_fails(trial):
        return bowl(trial) if trial.id != "2" else bowl(trial) + 7

    def third_is_silent(trial):
        return 0 if trial.id == "3" else second_fails(trial)

    study = run(job(count=4), tmp_path, third_is_silent)
    _, second, third, _ = study.trials
    assert (second.state, second.final) == (third.state, third.final) == ("INFEASIBLE", None)
    assert "7" in second.infeasible_reason and "frechet" in third.infeasible_reason
    assert study.best.id in ("1", "4") and {record.id for record in study.ranked[2:]} == {"2", "3"}


def test_too_many_failures_end_a_study(tmp_path):
    def odd_fail(trial):
        return bowl(trial) if int(trial.id) % 2 == 0 else 1

    spec = job(maxFailedTrialCount=2)
    check_refusal(lambda: run(spec, tmp_path, odd_fail), TrainerError, "maxFailedTrialCount", "2", "trial 3", "1")
    assert list(told(tmp_path)) == ["1", "2", "3"]


def test_a_study_without_successes_ends(tmp_path):
    check_refusal(lambda: run(job(), tmp_path, lambda trial: 1), TrainerError, "3")
    assert list(told(tmp_path)) == ["1", "2", "3"]


@pytest.mark.parametrize("crash", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_study_resumes_exactly(tmp_path, crash):
    spec, calls = job(LOG_RATE, CONDITIONAL, count=14), []  # after ten, suggestions depend on what went before

    def run_until_fourth(trial):
        calls.append((trial.id, dict(trial.parameters)))
        if trial.id == "4" and len(calls) == 4:
            raise crash
        return bowl(trial)

    with pytest.raises(crash):
        run(spec, tmp_path / "a", run_until_fourth)
    assert [one["state"] for one in written(tmp_path / "a")["trials"]] == ["SUCCEEDED"] * 3 + ["ACTIVE"]
    run(spec, tmp_path / "a", run_until_fourth)
    assert [trial_id for trial_id, _ in calls] == ["1", "2", "3", "4", *map(str, range(4, 15))]
    assert calls[3] == calls[4]
    run(spec, tmp_path / "b")
    assert told(tmp_path / "a") == told(tmp_path / "b")  # as if it had not been interrupted


def test_optuna_has_the_parameters_of_an_interrupted_trial():
    suggester = optuna_backend.Suggester(job().study, [])
    suggester.ask_again(trial_store.TrialRecord(id="4", state="ACTIVE", parameters={"rate": 0.5}, start_time=""))
    assert suggester._study.trials[0].params == {"rate": 0.5}


def test_trials_beside_a_crash_are_stopped_and_run_again(tmp_path):
    spec, both, asked, again = job(count=3, parallel=2), threading.Barrier(2), [], []

    def first_crashes(trial):
        both.wait(10)
        if trial.id == "1":
            raise RuntimeError("broken")
        bowl(trial)
        asked.append(trial.stop.wait(5))
        return 143

    with pytest.raises(RuntimeError, match="broken"):
        run(spec, tmp_path, first_crashes)
    assert asked == [True]
    before = told(tmp_path)
    study = run(spec, tmp_path, lambda trial: again.append(trial.id) or bowl(trial))
    assert sorted(again) == ["1", "2", "3"] and {key: told(tmp_path)[key] for key in before} == before
    assert all(record.state == "SUCCEEDED" for record in study.trials)


def test_a_trial_that_ends_as_another_crashes_is_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(study_runner, "wait", lambda running, **_: wait(running))  # both at once
    again = []

    def first_crashes(trial):
        if trial.id == "1":
            raise RuntimeError("broken")
        return bowl(trial)

    with pytest.raises(RuntimeError, match="broken"):
        run(job(count=2, parallel=2), tmp_path, first_crashes)
    run(job(count=2, parallel=2), tmp_path, lambda trial: again.append(trial.id) or bowl(trial))
    assert again == ["1"]


def test_a_study_that_has_ended_can_be_given_more_trials(tmp_path):
    run(job(count=2), tmp_path)
    again = []
    run(job(count=4), tmp_path, lambda trial: again.append(trial.id) or bowl(trial))
    assert again == ["3", "4"]


def test_the_record_is_whole_and_current_at_all_times(tmp_path):
    seen = []

    def look(trial):
        seen.append([one["state"] for one in written(tmp_path)["trials"]])
        return bowl(trial)

    run(job(count=3), tmp_path, look)
    assert seen == [["ACTIVE"], ["SUCCEEDED", "ACTIVE"], ["SUCCEEDED", "SUCCEEDED", "ACTIVE"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3", "trials.json"]


@pytest.mark.skipif(importlib.util.find_spec("google.cloud.aiplatform_v1") is None, reason="needs aiplatform")
@pytest.mark.filterwarnings("ignore")  # Google's packages have some of their own
def test_the_record_parses_as_an_answer_of_vertex_ai(tmp_path):
    from google.cloud.aiplatform_v1.types import HyperparameterTuningJob, Trial
    from google.protobuf import json_format

    def second_fails(trial):
        return bowl(trial) + (trial.id == "2")

    run(job(LOG_RATE, CONDITIONAL, UNITS, count=3), tmp_path, second_fails)
    answer = HyperparameterTuningJob()
    json_format.ParseDict(written(tmp_path), answer._pb)
    first, second, _ = answer.trials
    values = {one.parameter_id: one.value for one in first.parameters}
    assert (first.state, second.state) == (Trial.State.SUCCEEDED, Trial.State.INFEASIBLE)
    assert values["rate"] == told(tmp_path)["1"]["rate"] and first.end_time >= first.start_time
    assert first.final_measurement.step_count == 10 and first.final_measurement.metrics[0].metric_id == "frechet"
    assert not second.final_measurement.metrics and "1" in second.infeasible_reason


def test_the_table_has_the_best_first_and_its_flags(tmp_path):
    study = run(job(LOG_RATE, CONDITIONAL, count=3), tmp_path, lambda trial: bowl(trial) + (trial.id == "1"))
    head, *rows, _, sentence, flags = study_report.table(study).splitlines()
    assert head.split() == ["trial", "state", "frechet", "step", "rate", "loss", "penalty_weight"]
    assert [row.split()[0] for row in rows] == [record.id for record in study.ranked]
    assert rows[-1].split()[:4] == ["1", "INFEASIBLE", "-", "-"]
    assert study.best.id in sentence
    assert flags == " ".join(trial_store.flags(study.best.parameters))
    assert run(study.spec, tmp_path, no_trial) == study


def test_the_plot_has_a_panel_for_each_parameter(tmp_path):
    pytest.importorskip("matplotlib")
    study = run(job(LOG_RATE, CONDITIONAL, UNITS, WIDTH, count=6), tmp_path)
    content = study_report.plot(study)
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert content.startswith(b"\x89PNG") and (width, height) == (1620, 900)


def test_a_parameter_of_words_and_numbers_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    words = {"parameterId": "size", "categoricalValueSpec": {"values": ["small", "large"]}}
    numbers = {"parameterId": "size", "integerValueSpec": {"minValue": 1, "maxValue": 9}}
    conditions = [
        child("parentCategoricalValues", ["hinge"], words),
        child("parentCategoricalValues", ["wasserstein"], numbers),
    ]
    study = run(job(LOG_RATE, {**LOSS, "conditionalParameterSpecs": conditions}), tmp_path)
    assert len(study_report.plot(study)) > 10_000


def no_trial(trial):
    raise AssertionError("nothing may run")


def test_a_study_of_several_metrics_is_refused(tmp_path):
    spec = job(metrics=[{"metricId": "frechet", "goal": "MINIMIZE"}, {"metricId": "kid", "goal": "MINIMIZE"}])
    check_refusal(lambda: run(spec, tmp_path, no_trial), ConfigError, "studySpec.metrics", "frechet", "kid")
    assert not list(tmp_path.iterdir())


def test_a_changed_study_does_not_resume(tmp_path):
    run(job(count=1), tmp_path)
    spec = job(RATE, count=2, algorithm="RANDOM_SEARCH")
    mentions = ("studySpec", f"{tmp_path}/trials.json", "algorithm", "parameters")
    check_refusal(lambda: run(spec, tmp_path, no_trial), ConfigError, *mentions)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"studySpec": {}, "trials": [{}]}'])
def test_a_record_of_something_else_is_left_alone(tmp_path, content):
    (tmp_path / "trials.json").write_text(content)
    check_refusal(lambda: run(job(), tmp_path, no_trial), ConfigError, "trials.json")
    assert (tmp_path / "trials.json").read_text() == content


def test_metrics_of_an_unknown_trial_are_refused(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1/output.metrics").write_text("")
    check_refusal(lambda: run(job(), tmp_path, no_trial), ConfigError, "1/output.metrics", "trials.json")


def test_an_unreadable_metric_file_is_refused(tmp_path):
    def scribble(trial):
        trial.metric_file.write_text("scribble\n{}\n")
        return 0

    check_refusal(lambda: run(job(), tmp_path, scribble), ConfigError, "1/output.metrics")


def test_without_optuna_or_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    study = run(job(count=1), tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    install = "pip install 'gan-trainer[tune]'"
    check_refusal(lambda: run(job(), tmp_path / "other", no_trial), ConfigError, "Optuna", install)
    check_refusal(lambda: study_report.plot(study), ConfigError, "Matplotlib", install)


def test_a_study_without_successes_cannot_be_drawn():
    check_refusal(lambda: study_report.plot(study_report.Study(spec=job(), folder="study", trials=())), ConfigError)
