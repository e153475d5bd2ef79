"""Files and results of a local study: trials.json, metric files, the table and the plot."""

import importlib.util
import itertools
import json
import os
import sys
from dataclasses import replace

import pytest
from refusals import check_refusal
from specs import LOSS, RATE, UNITS, WIDTH, child
from studies import CONDITIONAL, LOG_RATE, bowl, job, parameters, run, written

from trainer.cloud.tuning import study_report, trial_store
from trainer.errors import ConfigError, StorageError

pytest.importorskip("optuna")


def test_the_trials_file_is_complete_and_current_at_all_times(tmp_path):
    seen = []

    def look(trial):
        seen.append([trial["state"] for trial in written(tmp_path)["trials"]])
        return bowl(trial)

    run(job(count=3), tmp_path, look)
    assert seen == [["ACTIVE"], ["SUCCEEDED", "ACTIVE"], ["SUCCEEDED", "SUCCEEDED", "ACTIVE"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3", "trials.json"]


@pytest.mark.skipif(importlib.util.find_spec("google.cloud.aiplatform_v1") is None, reason="needs aiplatform")
@pytest.mark.filterwarnings("ignore")  # Google's packages have some of their own
def test_the_trials_file_parses_as_an_answer_of_vertex_ai(tmp_path):
    from google.cloud.aiplatform_v1.types import HyperparameterTuningJob, Trial
    from google.protobuf import json_format

    def second_fails(trial):
        return bowl(trial) + (trial.id == "2")

    run(job(LOG_RATE, CONDITIONAL, UNITS, count=3), tmp_path, second_fails)
    answer = HyperparameterTuningJob()
    content = {key: value for key, value in written(tmp_path).items() if key != "trainerArgs"}
    json_format.ParseDict(content, answer._pb)
    first, second, _ = answer.trials
    values = {parameter.parameter_id: parameter.value for parameter in first.parameters}
    assert (first.state, second.state) == (Trial.State.SUCCEEDED, Trial.State.INFEASIBLE)
    assert values["rate"] == parameters(tmp_path)["1"]["rate"] and first.end_time >= first.start_time
    assert first.final_measurement.step_count == 10 and first.final_measurement.metrics[0].metric_id == "frechet"
    assert not second.final_measurement.metrics and "1" in second.infeasible_reason


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_file_is_not_replaced_by_the_trials(make, tmp_path):
    path = tmp_path / "trials.json"
    make(path)
    mode = path.lstat().st_mode
    check_refusal(lambda: run(job(count=1), tmp_path, bowl), StorageError, str(path))
    assert path.lstat().st_mode == mode and list(tmp_path.iterdir()) == [path]


def test_the_table_has_the_best_first_and_its_flags(tmp_path):
    spec = job(LOG_RATE, CONDITIONAL, count=3)
    study = run(spec, tmp_path, lambda trial: bowl(trial) + (trial.id == "1"))
    head, *rows, _, sentence, flags = study_report.format_table(study).splitlines()
    assert head.split() == ["trial", "state", "frechet", "step", "rate", "loss", "penalty_weight"]
    assert [row.split()[0] for row in rows] == [record.id for record in study.ranking]
    assert rows[-1].split()[:4] == ["1", "INFEASIBLE", "-", "-"]
    assert study.best_trial.id in sentence
    assert flags == " ".join(trial_store.to_flags(study.best_trial.parameters))
    assert run(spec, tmp_path, no_trial) == study


def test_the_plot_has_a_panel_for_each_parameter(tmp_path):
    pytest.importorskip("matplotlib")
    study = run(job(LOG_RATE, CONDITIONAL, UNITS, WIDTH, count=6), tmp_path)
    content = study_report.plot(study)
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert content.startswith(b"\x89PNG") and (width, height) == (1620, 900)


def test_the_labels_of_a_plot_do_not_overlap(monkeypatch):
    figure_module = pytest.importorskip("matplotlib.figure")
    boxes = []

    def collect(figure, *arguments, **settings):
        figure.draw_without_rendering()
        axis = figure.axes[0].xaxis
        labels = [*axis.get_ticklabels(minor=False), *axis.get_ticklabels(minor=True)]
        low, high = axis.get_view_interval()
        boxes.extend(
            label.get_window_extent() for label in labels if label.get_text() and low <= label.get_position()[0] <= high
        )

    monkeypatch.setattr(figure_module.Figure, "savefig", collect)
    trials = [
        trial_store.TrialRecord(
            id=str(number),
            state="SUCCEEDED",
            parameters={"rate": rate, "units": 4},
            final_measurement=trial_store.Measurement(step=10, value=number),
            start_time="",
        )
        for number, rate in enumerate((1e-4, 8e-4), 1)
    ]
    spec = job(LOG_RATE, UNITS, WIDTH).study
    study_report.plot(study_report.Study(spec=spec, folder="study", trials=tuple(trials)))
    assert len(boxes) > 1 and not any(left.overlaps(right) for left, right in itertools.combinations(boxes, 2))


def test_a_parameter_with_words_and_numbers_can_be_plotted(tmp_path):
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


RATE_OF_ONE = {"parameterId": "rate", "value": 1.0}


@pytest.mark.parametrize(
    ("values", "mentions"),
    [
        ([], ("'rate'",)),
        ([RATE_OF_ONE], ("'units'",)),
        ([RATE_OF_ONE | {"value": 2}, ("units", 2), ("loss", "hinge")], ("'rate'=2",)),
        ([RATE_OF_ONE | {"value": 1e-6}, ("units", 2), ("loss", "hinge")], ("'rate'=1e-06",)),
        ([RATE_OF_ONE, ("units", 2.5), ("loss", "hinge")], ("'units'=2.5",)),
        ([RATE_OF_ONE, ("units", 10**400), ("loss", "hinge")], ("'units'",)),
        ([RATE_OF_ONE, ("units", True), ("loss", "hinge")], ("'units'=True",)),
        ([RATE_OF_ONE, ("units", 2), ("loss", "other")], ("'loss'='other'",)),
        ([RATE_OF_ONE, ("units", 2), ("loss", "wasserstein")], ("'penalty_weight'",)),
        ([RATE_OF_ONE, ("units", 2), ("loss", "hinge"), ("penalty_weight", 2)], ("'penalty_weight'=2",)),
    ],
)
@pytest.mark.parametrize("state", ["SUCCEEDED", "ACTIVE"])
def test_edited_parameters_of_a_trial_are_refused(values, mentions, state, tmp_path):
    spec = job(LOG_RATE, UNITS, CONDITIONAL, count=2)
    run(replace(spec, max_trial_count=1), tmp_path)
    content = written(tmp_path)
    content["trials"][0] |= {
        "state": state,
        "parameters": [one if isinstance(one, dict) else {"parameterId": one[0], "value": one[1]} for one in values],
    }
    (tmp_path / "trials.json").write_text(json.dumps(content))
    check_refusal(lambda: run(spec, tmp_path, no_trial), StorageError, "trials.json", *mentions)
    assert written(tmp_path) == content


def test_a_value_that_rounding_moved_out_of_the_bounds_is_accepted(tmp_path):
    run(job(count=1), tmp_path)
    content = written(tmp_path)
    content["trials"][0]["parameters"] = [{"parameterId": "rate", "value": 1e-5 * (1 - 1e-15)}]
    (tmp_path / "trials.json").write_text(json.dumps(content))
    assert len(run(job(count=2), tmp_path).trials) == 2


def test_a_trial_that_was_deleted_from_the_file_costs_no_other_trial(tmp_path):
    run(job(count=3), tmp_path)
    content = written(tmp_path)
    del content["trials"][1]
    (tmp_path / "trials.json").write_text(json.dumps(content))
    ran = []

    def run_once(trial):
        assert not ran
        ran.append(trial.id)
        return bowl(trial)

    run(job(count=3), tmp_path, run_once)
    assert [trial["id"] for trial in written(tmp_path)["trials"]] == ["1", "3", "4"]
    assert written(tmp_path)["trials"][:2] == content["trials"]


def test_two_trials_of_one_number_are_refused(tmp_path):
    run(job(count=2), tmp_path)
    content = written(tmp_path)
    content["trials"][1]["id"] = "1"
    (tmp_path / "trials.json").write_text(json.dumps(content))
    check_refusal(lambda: run(job(count=3), tmp_path, no_trial), StorageError, "trials.json", "1")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"studySpec": {}, "trials": [{}]}'])
def test_a_trials_file_of_another_program_is_not_touched(tmp_path, content):
    (tmp_path / "trials.json").write_text(content)
    check_refusal(lambda: run(job(), tmp_path, no_trial), ConfigError, "trials.json")
    assert (tmp_path / "trials.json").read_text() == content


def test_metrics_of_an_unknown_trial_are_refused(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1/output.metrics").write_text("")
    check_refusal(lambda: run(job(), tmp_path, no_trial), ConfigError, "1/output.metrics", "trials.json")


@pytest.mark.parametrize(("value", "values"), [(0, [0.0]), ("0", [0.0]), (0.5, [0.5]), ("nan", []), (None, [])])
def test_a_metric_of_zero_is_a_measurement(value, values, tmp_path):
    (tmp_path / "metrics").write_text(json.dumps({"frechet": value, "global_step": 0}))
    measurements = trial_store.read_metric_file(tmp_path / "metrics", "frechet")
    assert [(measurement.step, measurement.value) for measurement in measurements] == [(0, x) for x in values]


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


def test_a_study_without_successes_cannot_be_plotted():
    check_refusal(
        lambda: study_report.plot(study_report.Study(spec=job().study, folder="study", trials=())), ConfigError
    )
