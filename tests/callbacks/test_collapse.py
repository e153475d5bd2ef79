"""The collapse alarm: which evaluations raise it, and that a resumed run raises the same alarms."""

import dataclasses
import json
import types

import keras
import pytest
from conftest import tiny_gan

from trainer import callbacks
from trainer.callbacks import Priority
from trainer.training.checkpoint.manifest import CheckpointManifest
from trainer.training.checkpoint.store import CheckpointStore

NAN, INFINITY = float("nan"), float("inf")
MONITOR, RECALL = "metric/frechet", "metric/recall"


def evaluate(alarm, model, value, recall=None):
    """Evaluates 10 steps later. Returns True if the alarm was raised."""
    model.step += 10
    logs = {MONITOR: value, "loss/generator": 1.0} | ({} if recall is None else {RECALL: recall})
    alarm.on_train_batch_end(0, logs)
    return alarm.EVENT in logs


def start(untrained=None, **arguments):
    alarm, model = callbacks.CollapseAlarm(MONITOR, RECALL, **arguments), types.SimpleNamespace(step=0)
    model.stop_training = False
    alarm.set_model(model)
    alarm.on_train_begin({} if untrained is None else {MONITOR: untrained, RECALL: 0.0})
    return alarm, model


@pytest.mark.parametrize(
    ("untrained", "values", "alarms"),
    [
        (100, [50, 20, 40, 40], [3]),
        (100, [50, 20, 39.9, 39.9, 39.9], []),
        (100, [50, 20, 60, 30, 60, 30], []),
        (100, [50, 20, 60, 60, 60, 60], [3]),
        (100, [50, 20, 60, 60, 30, 60, 60], [3, 6]),
        (None, [50, 20, 60, 60], [3]),
        (100, [20, 30, 60, 60], [3]),
        (100, [250, 600, 600], []),  # never better than the untrained generator
        (100, [250, 90, 200, 200], [3]),
        (100, [50, 20, NAN, NAN], [3]),
        (100, [50, 20, INFINITY, 60], [3]),
        (NAN, [50, 20, 60, 60], [3]),
        (100, [NAN, NAN, NAN], []),
        (100, [NAN, 50, 100, 100], [3]),
        (100, [0, 0, 0], []),
        (100, [0, 1, 1], [2]),
        (100, [], []),
    ],
)
def test_the_metric_at_twice_its_best_twice_in_a_row_raises_the_alarm(untrained, values, alarms):
    alarm, model = start(untrained)
    assert [index for index, value in enumerate(values) if evaluate(alarm, model, value)] == alarms
    assert not model.stop_training


@pytest.mark.parametrize(
    ("recalls", "alarms"),
    [
        ([0.2, 0.6, 0.31, 0.29], [3]),
        ([0.2, 0.6, 0.3], []),
        ([0.6, 0.2, 0.2, 0.5, 0.1], [1, 4]),
        ([0.05, 0.0, 0.0], []),  # nothing to lose
        ([0.1, 0.04], [1]),
        ([0.6, NAN], [1]),
        ([None, 0.6, None, 0.1], [3]),
    ],
)
def test_a_recall_below_half_of_its_peak_raises_the_alarm(recalls, alarms):
    alarm, model = start(100)
    assert [index for index, recall in enumerate(recalls) if evaluate(alarm, model, 50, recall)] == alarms


def test_a_recall_counts_only_after_the_generator_was_better_than_the_untrained_one():
    alarm, model = start(500)
    assert not any(evaluate(alarm, model, value, recall) for value, recall in [(600, 0.3), (700, 0.1), (400, 0.1)])
    assert not evaluate(alarm, model, 300, 0.2)
    assert evaluate(alarm, model, 300, 0.09)


def test_executions_without_an_evaluation_change_nothing():
    alarm, model = start(100)
    evaluate(alarm, model, 20, 0.5)
    evaluate(alarm, model, 60, 0.5)
    before, logs = alarm.get_state(), {"loss/generator": 1.0}
    alarm.on_train_batch_end(0, logs)
    assert alarm.get_state() == before and logs == {"loss/generator": 1.0}


def test_one_warning_per_collapse_names_both_values(trainer_log):
    alarm, model = start(100)
    for value in (20, 61.5, 61.5, 61.5):
        evaluate(alarm, model, value)
    (record,) = [record for record in trainer_log.records if record.levelname == "WARNING"]
    assert all(mention in record.message for mention in ("frechet", "61.5", "20", "30")) and "\n" not in record.message


@pytest.mark.parametrize("cut", range(7))
def test_the_state_continues_with_the_same_alarms(cut):
    values = [(50, 0.3), (20, 0.6), (60, 0.5), (60, 0.5), (30, 0.5), (30, 0.2), (60, 0.5)]
    whole, model = start(100)
    expected = [evaluate(whole, model, *pair) for pair in values]
    first, model = start(100)
    raised = [evaluate(first, model, *pair) for pair in values[:cut]]
    second, _ = start()
    second.set_model(model)
    second.set_state(json.loads(json.dumps(first.get_state())))
    second.on_train_begin({MONITOR: 100} if model.step == 0 else {})
    assert raised + [evaluate(second, model, *pair) for pair in values[cut:]] == expected
    assert second.get_state() == whole.get_state()


@pytest.mark.parametrize(
    ("monitor", "recall", "alarms"),
    [
        (MONITOR, RECALL, [0, 1]),  # the same metrics
        ("metric/fid", "metric/other_recall", []),
        ("metric/fid", RECALL, [0]),
        (MONITOR, "metric/other_recall", [1]),
        (MONITOR, None, [1]),
    ],
)
def test_values_of_other_metrics_do_not_count_after_a_change_of_the_suite(monitor, recall, alarms):
    first, model = start(100)
    evaluate(first, model, 20, 0.6)
    evaluate(first, model, 60, 0.6)
    state = json.loads(json.dumps(first.get_state()))
    raised = []
    for number, values in enumerate([(20, 0.1), (60, 0.6)]):
        second = callbacks.CollapseAlarm(monitor, recall)
        second.set_model(model)
        second.set_state(state)
        second.on_train_begin({})
        logs = dict(zip((monitor, recall), values, strict=True))
        second.on_train_batch_end(0, logs)
        raised += [number] * (second.EVENT in logs)
    assert raised == alarms


class Suite:
    """A metric suite whose values depend on the step only."""

    def __init__(self, values):
        self.values = values

    def measure(self, model):
        return {"frechet": self.values[model.step]}


VALUES = {0: 9.0, 2: 4.0, 4: 8.5, 6: 8.5, 8: 8.5}


class RateLog(keras.callbacks.Callback):
    """Adds a value to the logs at the beginning, before other callbacks read them."""

    priority = Priority.FIRST

    def on_train_begin(self, logs=None):
        logs["learning_rate"] = 1e-4


def fit(digits, folder, *, stop, steps=8, max_to_keep=3, more=()):
    """Trains a tiny GAN whose metric collapses at step 6. Returns the GAN and the lines of its metrics."""
    alarm, gan = callbacks.CollapseAlarm(MONITOR, None, stop), tiny_gan("mlp")
    checkpoint = callbacks.Checkpoint(
        folder / "checkpoints", 2, best=MONITOR, callback_states={"collapse": alarm}, max_to_keep=max_to_keep
    )
    evaluation = callbacks.Evaluation(Suite(VALUES), every_steps=2)
    active = [checkpoint, callbacks.MetricsLog(folder / "metrics.jsonl"), alarm, evaluation, *more]
    gan.fit(digits.images, batch_size=16, steps=steps, steps_per_execution=2, callbacks=active, verbose=0)
    return gan, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("stop", "last"), [(False, 8), (True, 6)])
@pytest.mark.parametrize("first", [2, 4, 6])
def test_a_resumed_run_has_the_alarms_of_an_uninterrupted_one(digits, tmp_path, stop, last, first):
    fit(digits, tmp_path, stop=stop, steps=first)
    (tmp_path / "metrics.jsonl").write_text("")  # a by-product, on which no decision depends
    gan, lines = fit(digits, tmp_path, stop=stop)
    assert gan.step == last
    assert [line["step"] for line in lines if line.get("event/collapse") == 1.0] == [6] * (first < 6)
    store = CheckpointStore(tmp_path / "checkpoints", best=MONITOR)
    manifest, _ = store.find()
    assert manifest.step == last and manifest.callbacks["collapse"]["is_collapsed"] == 1.0
    assert store.find_best()[0].step == 2


def test_a_stopped_run_stays_stopped_until_it_is_continued_on_purpose(digits, tmp_path):
    assert fit(digits, tmp_path, stop=True)[0].step == 6
    assert fit(digits, tmp_path, stop=True)[0].step == 6
    assert fit(digits, tmp_path, stop=False)[0].step == 8


def test_values_of_other_callbacks_are_no_evaluation_of_a_resumed_run(digits, tmp_path):
    _, lines = fit(digits, tmp_path, stop=True)
    path = tmp_path / "checkpoints/step-00000006/MANIFEST.json"
    content = path.read_bytes()
    assert b"metric/frechet" in content
    gan, lines_of_resumed_run = fit(digits, tmp_path, stop=True, more=[RateLog()])
    assert (gan.step, lines_of_resumed_run) == (6, lines)
    assert path.read_bytes() == content


def test_a_state_without_a_recall_has_the_names_of_earlier_versions():
    alarm = callbacks.CollapseAlarm(MONITOR)
    alarm.set_state({f"best {MONITOR}": 2.0, "peak None": 0.25})
    assert alarm.get_state() == {
        f"best {MONITOR}": 2.0,
        f"num_bad {MONITOR}": 0.0,
        "peak None": 0.25,
        "is_collapsed": 0.0,
    }


def test_manifests_without_states_of_callbacks_keep_their_form():
    manifest = CheckpointManifest(4, {}, "", {}, {}, {}, settings={"a": 1.0})
    assert b"callbacks" not in manifest.to_bytes()
    assert CheckpointManifest.from_bytes(manifest.to_bytes()) == manifest
    changed = dataclasses.replace(manifest, callbacks={"collapse": {"best": 0.1, "num_bad": 1}})
    assert CheckpointManifest.from_bytes(changed.to_bytes()) == changed
    with pytest.raises(ValueError, match="damaged"):
        CheckpointManifest.from_bytes(changed.to_bytes().replace(b"0.1", b"0.2"))
