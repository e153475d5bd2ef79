"""A local tuning job: suggested parameters, running trials, early stopping, failures and resuming."""

import math
import re
import threading
from concurrent.futures import wait

import pytest
from refusals import check_refusal
from specs import LOSS, UNITS, WIDTH, child
from studies import CONDITIONAL, LOG_RATE, bowl, job, parameters, report, run, written

from trainer.cloud.tuning import optuna_backend, study_runner, trial_store
from trainer.errors import LeaseError, StorageError, TrainerError

pytest.importorskip("optuna")


@pytest.mark.parametrize("algorithm", ["ALGORITHM_UNSPECIFIED", "RANDOM_SEARCH"])
def test_eight_trials_beat_the_worst_corner(tmp_path, algorithm):
    study = run(job(algorithm=algorithm), tmp_path)
    assert [record.id for record in study.trials] == [str(n) for n in range(1, 9)]
    assert study.best_trial.final_measurement.value < 1 < (math.log10(1e-5) + 2) ** 2
    assert study.ranking[0] is study.best_trial


def test_bayesian_search_beats_random_search(tmp_path):
    chance = run(job(count=30, algorithm="RANDOM_SEARCH"), tmp_path / "a")
    bayesian = run(job(count=30), tmp_path / "b")

    def near(study):
        return sum(record.final_measurement.value < 0.25 for record in study.trials)

    assert near(bayesian) > 1.5 * near(chance)


def test_a_metric_can_be_maximized(tmp_path):
    metrics = [{"metricId": "frechet", "goal": "MAXIMIZE"}]
    study = run(job(metrics=metrics), tmp_path)
    assert study.best_trial.final_measurement.value == max(record.final_measurement.value for record in study.trials)


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
    flags = trial_store.to_flags({"units": 3, "weight": 20.0, "rate": 0.00031, "loss": "hinge"})
    assert flags == ("--units=3", "--weight=20", "--rate=0.00031", "--loss=hinge")


def test_a_conditional_parameter_needs_its_parents_value(tmp_path):
    run(job(LOG_RATE, CONDITIONAL, count=12), tmp_path)
    trials = parameters(tmp_path).values()
    assert {trial["loss"] for trial in trials} == {"hinge", "wasserstein"}
    assert all(("penalty_weight" in trial) == (trial["loss"] == "wasserstein") for trial in trials)
    assert all(1 <= trial["penalty_weight"] <= 20 for trial in trials if "penalty_weight" in trial)


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
    for trial in parameters(tmp_path).values():
        assert trial["units"] in ((1, 2, 3) if trial["loss"] == "hinge" else (64, 128))


@pytest.mark.parametrize(("scale", "low"), [("UNIT_LOG_SCALE", True), ("UNIT_REVERSE_LOG_SCALE", False)])
@pytest.mark.parametrize("kind", ["doubleValueSpec", "integerValueSpec"])
def test_a_logarithmic_scale_is_dense_at_its_end(tmp_path, scale, low, kind):
    rate = {"parameterId": "rate", "scaleType": scale, kind: {"minValue": 1, "maxValue": 10001}}
    run(job(rate, count=20, algorithm="RANDOM_SEARCH"), tmp_path)
    values = [trial["rate"] for trial in parameters(tmp_path).values()]
    assert all(1 <= value <= 10001 for value in values)
    near = sum(value < 2500 if low else value > 7500 for value in values)
    assert near >= 13 and len(set(values)) > 10


def test_a_grid_is_visited_once_without_inactive_children(tmp_path, trainer_log):
    weight = {"parameterId": "penalty_weight", "discreteValueSpec": {"values": [1, 10]}}
    loss = {**LOSS, "conditionalParameterSpecs": [child("parentCategoricalValues", ["wasserstein"], weight)]}
    spec = job(loss, WIDTH, count=20, parallel=2, algorithm="GRID_SEARCH")

    def constant(trial):
        report(trial, 1)
        return 0

    run(spec, tmp_path, constant)
    assert [tuple(point.values()) for point in parameters(tmp_path).values()] == [
        ("hinge", 0.5),
        ("hinge", 1),
        ("wasserstein", 1, 0.5),
        ("wasserstein", 1, 1),
        ("wasserstein", 10, 0.5),
        ("wasserstein", 10, 1),
    ]
    assert any("6" in line and "maxTrialCount=20" in line for line in trainer_log.messages)


def test_trials_overlap_up_to_the_limit(tmp_path):
    together = threading.Barrier(3)
    lock, now, most = threading.Lock(), set(), []

    def wait_for_others(trial):
        with lock:
            now.add(trial.id)
            most.append(len(now))
        together.wait(10)  # needs three at a time
        bowl(trial)
        with lock:
            now.remove(trial.id)
        return 0

    study = run(job(count=9, parallel=3), tmp_path, wait_for_others)
    assert len(study.trials) == 9 and max(most) == 3


def stepwise(trial, value, steps=6):
    """Reports a value per step until the trial should stop."""
    for step in range(1, steps + 1):
        report(trial, *[value] * step)
        if trial.stop.wait(0.02):
            return 143
    return 0


def test_a_trial_that_is_worse_than_the_median_is_stopped(tmp_path, trainer_log):
    def last_is_bad(trial):
        if int(trial.id) < 6:
            report(trial, *[int(trial.id)] * 500)
            return 0
        return stepwise(trial, 99, steps=500)

    study = run(job(count=6, medianAutomatedStoppingSpec={}), tmp_path, last_is_bad)
    bad = study.trials[-1]
    assert bad.state == "SUCCEEDED" and bad.final_measurement.value == 99 and bad.final_measurement.step < 5000
    assert any({"6", "99"} <= set(re.findall(r"\d+", line)) and "frechet" in line for line in trainer_log.messages)


def test_without_median_stopping_all_trials_run_to_their_end(tmp_path):
    def last_is_bad(trial):
        return stepwise(trial, 99 if trial.id == "7" else 1, steps=3)

    study = run(job(count=7, parallel=3, decayCurveStoppingSpec={}), tmp_path, last_is_bad)
    assert {record.final_measurement.step for record in study.trials} == {30}


@pytest.mark.parametrize(
    ("selection", "goal", "expected"),
    [
        ("BEST_MEASUREMENT", "MINIMIZE", (20, 1.0)),
        ("BEST_MEASUREMENT", "MAXIMIZE", (10, 5.0)),
        ("LAST_MEASUREMENT", "MINIMIZE", (30, 3.0)),
        ("MEASUREMENT_SELECTION_TYPE_UNSPECIFIED", "MINIMIZE", (30, 3.0)),
    ],
)
def test_the_best_or_the_last_measurement_is_final(tmp_path, selection, goal, expected):
    def three(trial):
        report(trial, 5, 1, 3, "nan")
        return 0

    metrics = [{"metricId": "frechet", "goal": goal}]
    study = run(job(count=1, metrics=metrics, measurementSelectionType=selection), tmp_path, three)
    assert (study.best_trial.final_measurement.step, study.best_trial.final_measurement.value) == expected
    assert len(study.best_trial.measurements) == 3


def test_a_failed_trial_has_no_final_measurement(tmp_path):
    def second_fails(trial):
        return bowl(trial) if trial.id != "2" else bowl(trial) + 7

    def third_is_silent(trial):
        return 0 if trial.id == "3" else second_fails(trial)

    study = run(job(count=4), tmp_path, third_is_silent)
    _, second, third, _ = study.trials
    assert (second.state, second.final_measurement) == (third.state, third.final_measurement) == ("INFEASIBLE", None)
    assert "7" in second.infeasible_reason and "frechet" in third.infeasible_reason
    assert study.best_trial.id in ("1", "4") and {record.id for record in study.ranking[2:]} == {"2", "3"}


def test_too_many_failures_end_a_study(tmp_path):
    def odd_fail(trial):
        return bowl(trial) if int(trial.id) % 2 == 0 else 1

    spec = job(maxFailedTrialCount=2)
    check_refusal(lambda: run(spec, tmp_path, odd_fail), TrainerError, "maxFailedTrialCount", "2", "trial 3", "1")
    assert list(parameters(tmp_path)) == ["1", "2", "3"]


def test_a_study_without_successes_ends(tmp_path):
    check_refusal(lambda: run(job(), tmp_path, lambda trial: 1), TrainerError, "3")
    assert list(parameters(tmp_path)) == ["1", "2", "3"]


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
    assert [trial["state"] for trial in written(tmp_path / "a")["trials"]] == ["SUCCEEDED"] * 3 + ["ACTIVE"]
    run(spec, tmp_path / "a", run_until_fourth)
    assert [trial_id for trial_id, _ in calls] == ["1", "2", "3", "4", *map(str, range(4, 15))]
    assert calls[3] == calls[4]
    run(spec, tmp_path / "b")
    assert parameters(tmp_path / "a") == parameters(tmp_path / "b")  # as if it had not been interrupted


def test_a_trial_that_ends_with_an_interrupted_study_keeps_its_result(bucket):
    waits = threading.Event()

    def crash_or_report(trial):
        if trial.id == "1":
            assert waits.wait(20)
            raise RuntimeError("interrupted")
        waits.set()
        assert trial.stop.wait(20)
        return bowl(trial)

    with pytest.raises(RuntimeError):
        run(job(count=2, parallel=2), f"{bucket}/study", crash_or_report)
    study = run(job(count=2, parallel=2), f"{bucket}/study", lambda trial: bowl(trial) if trial.id == "1" else 0)
    assert [trial.state for trial in study.trials] == ["SUCCEEDED"] * 2


def test_a_result_that_could_not_be_written_is_written_at_the_end(bucket, monkeypatch):
    write = trial_store.write

    def fail_once(file, spec, records):
        if any(record.measurements for record in records):
            monkeypatch.setattr(trial_store, "write", write)
            raise StorageError("no network.")
        write(file, spec, records)

    monkeypatch.setattr(trial_store, "write", fail_once)
    with pytest.raises(StorageError):
        run(job(count=1), f"{bucket}/study")
    study = run(job(count=1), f"{bucket}/study", lambda trial: 0)
    assert [trial.state for trial in study.trials] == ["SUCCEEDED"]


def test_optuna_has_the_parameters_of_an_interrupted_trial():
    suggester = optuna_backend.Suggester(job().study, [])
    suggester.resume(trial_store.TrialRecord(id="4", state="ACTIVE", parameters={"rate": 0.5}, start_time=""))
    assert suggester._study.trials[0].params == {"rate": 0.5}


def test_a_crash_stops_the_other_trials_which_run_again(tmp_path):
    spec, both, stopped, again = job(count=3, parallel=2), threading.Barrier(2), [], []

    def first_crashes(trial):
        both.wait(10)
        if trial.id == "1":
            raise RuntimeError("broken")
        bowl(trial)
        stopped.append(trial.stop.wait(5))
        return 143

    with pytest.raises(RuntimeError, match="broken"):
        run(spec, tmp_path, first_crashes)
    assert stopped == [True]
    before = parameters(tmp_path)
    study = run(spec, tmp_path, lambda trial: again.append(trial.id) or bowl(trial))
    assert sorted(again) == ["1", "2", "3"] and {key: parameters(tmp_path)[key] for key in before} == before
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


def test_more_trials_continue_a_study_that_has_ended(tmp_path):
    run(job(count=2), tmp_path)
    again = []
    run(job(count=4), tmp_path, lambda trial: again.append(trial.id) or bowl(trial))
    assert again == ["3", "4"]


def test_a_second_process_does_not_run_the_same_study(tmp_path):
    def run_again(trial):
        before = (tmp_path / "trials.json").read_bytes()
        check_refusal(lambda: run(job(), tmp_path), LeaseError, str(tmp_path))
        assert (tmp_path / "trials.json").read_bytes() == before
        return bowl(trial)

    assert len(run(job(count=2), tmp_path, run_again).trials) == 2
    assert not (tmp_path / "lease.json").exists()
