"""An evaluation that a signal ends is repeated by the next start, and leaves no trace."""

import contextlib
import json
import os
import signal
import time

import pytest
from conftest import tiny_gan, values_of

from trainer import callbacks, heartbeat
from trainer.training.checkpoint.manifest import state_sha256
from trainer.training.checkpoint.store import CheckpointStore
from trainer.training.run_end import has_pending_evaluation

MONITOR = "metric/frechet"
VALUES = {0: 9.0, 2: 4.0, 4: 8.5, 6: 8.5, 8: 3.0}
STEPS, NUM_PARTS = 8, 3


class Suite:
    """A metric suite whose evaluations have three parts, and receive a signal in some parts of some steps."""

    def __init__(self, signals=(), number=signal.SIGTERM):
        self.signals, self.number, self.parts = list(signals), number, []

    def measure(self, model):
        for part in range(NUM_PARTS):
            self.parts.append((model.step, part))
            if (model.step, part) in self.signals:
                os.kill(os.getpid(), self.number)
                while not model.preempted:  # a thread receives SIGTERM
                    time.sleep(0.001)
            heartbeat.beat()
        return {"frechet": VALUES[model.step]}


def start(digits, folder, suite, gan=None, *, steps=STEPS, **settings):
    """Starts a run, or continues it in what stands for another process. Returns the model and its evaluation."""
    gan, alarm = gan or tiny_gan("mlp"), callbacks.CollapseAlarm(MONITOR)
    evaluation = callbacks.Evaluation(suite, every_steps=2)
    states = {"evaluation": evaluation, "collapse": alarm}
    checkpoint = callbacks.Checkpoint(
        folder / "checkpoints", 4, best=MONITOR, callback_states=states, max_to_keep=1, **settings
    )
    active = [evaluation, alarm, callbacks.MetricsLog(folder / "metrics.jsonl"), checkpoint]
    active += [callbacks.TuningReport(folder / "trial/metrics", "1")]
    arguments = {"batch_size": 16, "steps_per_execution": 2, "verbose": 0, "handle_sigterm": True}
    gan.fit(digits.images, steps=steps, callbacks=active, **arguments)
    return gan, evaluation


def results_of(folder, gan):
    """The facts about a finished run that must not depend on where it was stopped."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    reported = [json.loads(line) for line in (folder / "trial/metrics").read_text().splitlines()]
    for line in (*lines, *reported):
        for name in ("time", "images_per_sec", "timestamp"):
            line.pop(name, None)
    store = CheckpointStore(folder / "checkpoints", best=MONITOR)
    manifest, problems = store.find()
    checkpoints = (
        manifest.state_sha256,
        manifest.metrics,
        manifest.callbacks,
        problems,
        store.find_best()[0].step,
        store.steps(),
    )
    return lines, reported, checkpoints, state_sha256(values_of(gan))


@pytest.fixture(scope="module")
def undisturbed(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    gan, _ = start(digits, folder, Suite())
    results = results_of(folder, gan)
    assert [line["step"] for line in results[0] if MONITOR in line] == list(VALUES)
    assert [line["step"] for line in results[0] if "event/collapse" in line] == [6]
    return results


@pytest.mark.parametrize("part", [0, NUM_PARTS - 1])
@pytest.mark.parametrize("step", VALUES)
def test_sigterm_ends_an_evaluation_after_its_part_and_the_next_start_repeats_it(
    digits, tmp_path, undisturbed, step, part
):
    suite = Suite([(step, part)])
    gan, evaluation = start(digits, tmp_path, suite)
    assert gan.preempted and gan.step == step and evaluation.is_pending
    assert suite.parts[-1] == (step, part)
    manifest, _ = CheckpointStore(tmp_path / "checkpoints").find()
    assert manifest.step == step and not manifest.metrics
    assert has_pending_evaluation(manifest.callbacks["evaluation"], step)
    suite = Suite()
    gan, evaluation = start(digits, tmp_path, suite)
    assert suite.parts[0] == (step, 0) and not evaluation.is_pending
    assert results_of(tmp_path, gan) == undisturbed


def test_an_evaluation_may_be_stopped_again_and_again(digits, tmp_path, undisturbed):
    for step, part in [(0, 1), (0, 0), (2, 1), (2, 2), (4, 0), (6, 0), (6, 1), (6, 2), (8, 1), (8, 2)]:
        gan, evaluation = start(digits, tmp_path, Suite([(step, part)]))
        assert gan.step == step and evaluation.is_pending
    gan, _ = start(digits, tmp_path, Suite())
    assert results_of(tmp_path, gan) == undisturbed


@pytest.mark.parametrize("step", VALUES)
def test_sigterm_after_an_evaluation_does_not_repeat_it(digits, tmp_path, undisturbed, step, monkeypatch):
    suite = Suite()
    measure = suite.measure

    def signalled(model):
        values = measure(model)
        if model.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
            while not model.preempted:
                time.sleep(0.001)
        return values

    suite.measure = signalled
    gan, evaluation = start(digits, tmp_path, suite)
    assert gan.preempted and gan.step == step and not evaluation.is_pending
    suite = Suite()
    gan, _ = start(digits, tmp_path, suite)
    assert step == 0 or (step, 0) not in suite.parts
    assert results_of(tmp_path, gan) == undisturbed


@pytest.mark.parametrize("step", VALUES)
def test_ctrl_c_ends_an_evaluation_at_once_and_the_next_start_repeats_it(digits, tmp_path, undisturbed, step):
    suite = Suite([(step, 1)], signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        start(digits, tmp_path, suite)
    assert suite.parts[-1] == (step, 1)
    gan, _ = start(digits, tmp_path, Suite())
    results = results_of(tmp_path, gan)
    reported = [line for index, line in enumerate(results[1]) if line not in results[1][:index]]  # 6 came twice
    assert (results[0], reported, *results[2:]) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", VALUES)
def test_the_next_fit_of_the_same_model_begins_with_the_evaluation(digits, step, number):
    suite, gan = Suite([(step, 1)], number), tiny_gan("mlp")
    evaluation = callbacks.Evaluation(suite, every_steps=2)
    arguments = {"batch_size": 16, "steps_per_execution": 2, "verbose": 0, "callbacks": [evaluation]}
    with contextlib.nullcontext() if number == signal.SIGTERM else pytest.raises(KeyboardInterrupt):
        gan.fit(digits.images, steps=STEPS, handle_sigterm=True, **arguments)
    assert gan.step == step and evaluation.is_pending
    suite.signals, suite.parts = [], []
    gan.fit(digits.images, steps=STEPS, **arguments)
    assert suite.parts == [(at, part) for at in VALUES if at >= step for part in range(NUM_PARTS)]


def test_a_signal_outside_of_an_evaluation_stops_no_other_work(digits):
    gan = tiny_gan("mlp")
    gan._preemption.requested = True
    heartbeat.beat()
    assert gan.sample(60)[0].shape == (60, 28, 28, 1)
