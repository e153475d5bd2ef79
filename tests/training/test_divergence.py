"""Updates that are not finite are skipped, and a run in which many are skipped returns to an earlier checkpoint."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from broken_updates import Stop, break_updates, diverging, fit, interrupt_deletions, rollbacks, run
from conftest import tiny_gan, values_of
from refusals import check_refusal

from trainer.callbacks import Checkpoint
from trainer.errors import DivergenceError
from trainer.models import GAN
from trainer.storage.run_directory import read_metrics
from trainer.training.checkpoint.manifest import state_sha256
from trainer.training.divergence import MAX_ROLLBACKS, STATE_NAME, DivergenceState

ALWAYS = range(10**6)


@pytest.fixture(scope="module")
def images(digits):
    return digits.images[:160]


def changed(before, after):
    """Returns the names of the parts of a state that differ, without the record of skipped steps."""
    names = {name.partition("/")[0] for name in before if (before[name] != after[name]).any()}
    return names - {STATE_NAME}


@pytest.mark.parametrize(
    ("settings", "broken", "moving"),
    [
        ({}, {}, set()),
        ({}, {"value": np.inf}, set()),
        ({}, {"in_gradient": True}, set()),
        ({}, {"phases": ["generator"]}, {"discriminator", "discriminator_optimizer"}),
        ({}, {"phases": ["discriminator"]}, {"generator", "generator_optimizer", "ema_generator"}),
        ({"update_order": "simultaneous"}, {"phases": ["generator"]}, set()),
        ({"optimizer": "rmsprop"}, {"in_gradient": True}, set()),
        pytest.param({"jit_compile": "on"}, {}, set(), marks=pytest.mark.slow),
        ({"jit_compile": "on"}, {"phases": ["generator"]}, {"discriminator", "discriminator_optimizer"}),
    ],
)
@pytest.mark.parametrize("num_replicas", [1, 2])
def test_an_update_that_is_not_finite_changes_nothing(images, two_replicas, num_replicas, settings, broken, moving):
    strategy = two_replicas if num_replicas == 2 else None
    gan = tiny_gan(strategy=strategy, ema_half_life_images=100.0, **settings)
    before = fit(break_updates(gan, [2], **broken), images, 2)
    after = fit(gan, images, 3)
    assert {name.removesuffix("_optimizer") for name in changed(before, after)} == {
        name.removesuffix("_optimizer") for name in moving
    }
    counts = {name: int(gan.optimizers[name].iterations.numpy()) for name in ("generator", "discriminator")}
    assert counts == {name: 2 + (name in moving) for name in counts}
    assert gan.divergence.skips.numpy().tolist() == [0] * 10 + [3]
    assert changed(after, fit(gan, images, 4)) >= {"generator", "discriminator", "ema_generator"}


@pytest.mark.parametrize(
    ("broken", "is_moving"), [(["discriminator_fake"], True), (["discriminator_real", "discriminator_fake"], False)]
)
def test_moments_move_if_one_of_two_updates_is_skipped(images, two_replicas, broken, is_moving):
    networks = {
        "generator": lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)]),
        "discriminator": lambda: keras.Sequential(
            [keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
        ),
    }
    gan = GAN(2, networks=networks)
    gan.compile(discriminator_updates="separate", strategy=two_replicas, jit_compile=False)
    before = values_of(gan)
    after = fit(break_updates(gan, [0], phases=broken), images[:, 8, 8:12, 0], 1)
    (moments,) = (name for name in before if name.startswith("discriminator/") and name.endswith("moving_mean"))
    assert (before[moments] != after[moments]).any() == is_moving


@pytest.mark.parametrize("jit_compile", ["off", pytest.param("on", marks=pytest.mark.slow)])
def test_logs_are_means_of_the_other_steps_and_count_skipped_updates(images, jit_compile, trainer_log):
    seen = []
    record = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(dict(logs)))

    def logs_of(steps_per_execution, steps=()):
        seen.clear()
        gan = break_updates(tiny_gan(jit_compile=jit_compile), steps)
        history = gan.fit(
            images,
            batch_size=16,
            steps=10,
            steps_per_execution=steps_per_execution,
            callbacks=[record],
            verbose=0,
        )
        return history.history, list(seen)

    _, undisturbed = logs_of(1)
    assert "skipped_updates" not in set().union(*undisturbed)
    assert not trainer_log.records
    _, singly = logs_of(1, [3, 4])
    history, (together,) = logs_of(10, [3, 4])
    assert [logs.get("skipped_updates") for logs in singly] == [None] * 3 + [2.0] * 2 + [None] * 5
    assert {name for name in singly[3] if name.startswith("loss/")} == set()
    assert together["skipped_updates"] == 4.0 and history["skipped_updates"] == [4.0]
    expected = np.mean([logs["loss/generator"] for logs in singly if "loss/generator" in logs])
    assert together["loss/generator"] == pytest.approx(expected, rel=1e-5)
    assert history["loss/generator"] == pytest.approx([expected], rel=1e-5)
    assert len([record for record in trainer_log.records if record.levelname == "WARNING"]) == 2  # one for each run


@pytest.mark.parametrize(
    ("steps", "due"),
    [
        ([*range(4)], None),
        ([*range(5)], 4),
        ([10, 11, 12, 13, 15, 16, 17, 18], None),
        ([10, 11, 12, 13, 15, 16, 17, 18, 19], 19),
        ([*range(0, 1000, 100)], None),
        ([*range(0, 1001, 100)], None),
        ([0, *range(99, 1000, 100)], 999),
        ([*range(5000, 5021, 2)], 5020),
        ([0, 1, *range(1000, 1018, 2)], None),
        ([0, *range(1, 18, 2), 2000, 2002, 2004], None),
    ],
)
def test_a_rollback_is_due_after_5_consecutive_skips_or_11_in_1000_steps(steps, due):
    state = DivergenceState()
    results = [bool(state.add_skip(tf.constant(step, tf.int64))) for step in steps]
    assert [step for step, is_due in zip(steps, results, strict=True) if is_due][:1] == ([] if due is None else [due])


@pytest.mark.parametrize(
    ("skipped", "step", "applied"), [([], 7, 7), ([5], 7, 7), ([6], 7, 6), ([2, 4, 5, 6], 7, 4), ([0, 1], 2, 0)]
)
def test_the_last_applied_step_is_the_one_before_consecutive_skips(skipped, step, applied):
    state = DivergenceState()
    for number in skipped:
        state.add_skip(tf.constant(number, tf.int64))
    assert state.last_applied_step(step) == applied


def test_four_skips_in_a_row_do_not_roll_back(images, tmp_path):
    gan = break_updates(tiny_gan(), range(4, 8))
    fit(gan, images, 12, callbacks=[Checkpoint(tmp_path, 4)])
    assert gan.step == 12 and gan.divergence.num_rollbacks == 0


@pytest.mark.parametrize("num_replicas", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_rollback_returns_to_the_last_checkpoint_before_the_skips_with_other_numbers(
    images, two_replicas, num_replicas, tmp_path, trainer_log
):
    strategy = two_replicas if num_replicas == 2 else None
    steps, saved = [], {}
    gan = break_updates(tiny_gan(strategy=strategy), range(7, 12))
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: (steps.append(gan.step), saved.setdefault(gan.step, values_of(gan)))
    )
    run(tmp_path, images, gan, callbacks=[record], steps_per_execution=1)
    assert steps == [*range(1, 12), *range(7, 21)]  # 5 skips up to step 12, and back to the checkpoint of step 6
    assert gan.divergence.num_rollbacks == 1
    assert gan.divergence.skips.numpy().tolist() == [0] * 11
    assert "generator" in changed(saved[7], values_of(gan))
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == [
        f"step-{step:08d}" for step in (15, 18, 20)
    ]
    lines, num_damaged = read_metrics(tmp_path / "metrics.jsonl")
    assert num_damaged == 0
    assert [line["step"] for line in lines] == [*range(1, 7), 6, *range(7, 21)]
    event = lines[6]
    assert (event["event/rollback"], event["diverged_at_step"], event["rollbacks"]) == (1.0, 12, 1)
    assert any("12" in item.getMessage() and "6" in item.getMessage() for item in trainer_log.records)


def test_other_random_numbers_follow_a_rollback_in_the_same_steps(images, tmp_path):
    first = values_of(tiny_gan())
    assert not changed(first, values_of(tiny_gan()))
    undisturbed, returned = tiny_gan(), diverging([5, 6, 7, 8, 9])
    fit(undisturbed, images, 10)
    run(tmp_path, images, returned, steps=10)
    assert state_sha256(values_of(undisturbed)) != state_sha256(values_of(returned))


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_the_bits_do_not_depend_on_the_length_of_executions(images, tmp_path, steps_per_execution):
    reference = run(tmp_path / "a", images, diverging())
    assert run(tmp_path / "b", images, diverging(), steps_per_execution=steps_per_execution) == reference


def test_skips_that_are_not_in_a_row_roll_back_at_the_eleventh(images, tmp_path):
    run(tmp_path, images, diverging([*range(4, 26, 2)]), steps=30)
    lines, _ = read_metrics(tmp_path / "metrics.jsonl")
    (event,) = [line for line in lines if "event/rollback" in line]
    assert (event["step"], event["diverged_at_step"]) == (24, 25)


@pytest.mark.parametrize("every_steps", [3, 0, 100])
def test_a_run_without_a_way_back_ends_with_an_error(images, tmp_path, every_steps):
    gan = diverging(ALWAYS if every_steps == 3 else range(7, 12), num_salts=10)
    check_refusal(lambda: run(tmp_path, images, gan, every_steps=every_steps), DivergenceError, "step", "loss/")
    assert gan.divergence.num_rollbacks == 0


def test_a_fit_without_checkpoints_ends_with_an_error(images):
    check_refusal(lambda: fit(diverging(), images, 20), DivergenceError, "step 12", "loss/")


def test_a_run_that_still_diverges_after_three_rollbacks_ends_with_an_error(images, tmp_path):
    gan = diverging(num_salts=10)
    check_refusal(lambda: run(tmp_path, images, gan), DivergenceError, "step 12", str(MAX_ROLLBACKS))
    assert gan.divergence.num_rollbacks == MAX_ROLLBACKS
    lines, _ = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["rollbacks"] for line in lines if "event/rollback" in line] == [1, 2, 3]


def test_a_third_rollback_can_succeed(images, tmp_path):
    gan = diverging(num_salts=3)
    run(tmp_path, images, gan)
    assert gan.step == 20 and gan.divergence.num_rollbacks == 3


def test_weights_that_are_not_finite_at_a_checkpoint_roll_back(images, tmp_path):
    """Their loss may still be finite, as with an infinite moment of an optimizer, which stops a weight."""
    gan = tiny_gan()

    def damage(batch, logs):
        if gan.step == 8 and gan.divergence.num_rollbacks == 0:
            velocity = gan.optimizers["generator"].variables[-1]
            velocity.assign(np.full(velocity.shape, np.inf))

    run(
        tmp_path,
        images,
        gan,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=damage)],
        steps_per_execution=1,
    )
    assert gan.step == 20 and gan.divergence.num_rollbacks == 1
    lines, _ = read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["diverged_at_step"]) for line in lines if "event/rollback" in line] == [(6, 9)]


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [True, False])
def test_a_run_stopped_around_rollbacks_ends_with_the_same_bits(images, tmp_path, is_killed):
    reference = run(tmp_path / "whole", images, diverging(num_salts=2), steps_per_execution=1)
    for number, at in enumerate([(5, 0), (7, 0), (9, 0), (11, 0), (7, 1), (10, 1), (6, 2), (7, 2), (13, 2)]):
        folder = tmp_path / str(number)
        gan = diverging(num_salts=2)
        with contextlib.suppress(KeyboardInterrupt):
            run(folder, images, gan, callbacks=[Stop(*at, is_killed)], steps_per_execution=1)
        assert run(folder, images, diverging(num_salts=2), steps_per_execution=1) == reference, at
        assert rollbacks(folder) == rollbacks(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("num_deletions", [0, 1])
def test_a_run_killed_during_a_rollback_ends_with_the_same_bits(images, tmp_path, monkeypatch, num_deletions):
    """Two checkpoints are abandoned, of steps 9 and 12, because 13 steps pass before the rollback."""
    steps = range(8, 13)
    reference = run(tmp_path / "whole", images, diverging(steps))
    checkpoint = Checkpoint(tmp_path / "killed" / "checkpoints", 3)
    deleted = interrupt_deletions(checkpoint, num_deletions, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        fit(diverging(steps), images, 20, callbacks=[checkpoint])
    assert len(deleted) == num_deletions
    assert run(tmp_path / "killed", images, diverging(steps)) == reference


def test_checkpoints_for_a_rollback_stay_when_others_come(images, tmp_path):
    """A run that keeps one checkpoint, and is stopped at odd steps, returns to where it returns without stops."""
    gan = diverging(range(7, 12))
    for steps in (7, 8, 10):
        fit(gan, images, steps, callbacks=[Checkpoint(tmp_path, 3, max_to_keep=1)])
    fit(gan, images, 13, callbacks=[Checkpoint(tmp_path, 3, max_to_keep=1)])
    assert gan.divergence.num_rollbacks == 1 and gan.step == 13


def test_a_rollback_restores_the_best_value_of_the_remaining_checkpoints(images, tmp_path):
    gan = diverging()

    class Metric(keras.callbacks.Callback):
        priority = 0

        def on_train_batch_end(self, batch, logs=None):
            is_abandoned = self.model.step == 9 and self.model.divergence.num_rollbacks == 0
            logs["metric/frechet"] = 1.0 if is_abandoned else {3: 5.0, 6: 4.0}.get(self.model.step, 4.5)

    checkpoint = Checkpoint(tmp_path, 3, best="metric/frechet")
    fit(gan, images, 20, callbacks=[checkpoint, Metric()], steps_per_execution=1)
    assert gan.divergence.num_rollbacks == 1
    assert (checkpoint.store.find_best()[0].step, checkpoint.store.best_value()) == (6, 4.0)
