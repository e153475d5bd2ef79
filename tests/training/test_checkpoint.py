"""A checkpoint is committed by its manifest, and nothing that differs from what was written is ever loaded."""

import errno
import math
import os
import random
import shutil
import time

import keras
import numpy as np
import pytest
from conftest import tiny_gan, values_of
from refusals import check_refusal

from trainer.callbacks import Checkpoint
from trainer.errors import CheckpointError, DivergenceError
from trainer.training.checkpoint import store as store_module
from trainer.training.checkpoint.manifest import state_sha256, verify
from trainer.training.checkpoint.store import CheckpointStore


def make_state(value=0.0):
    return {
        "a/000/kernel": keras.Variable(np.full((3, 2), value, np.float32)),
        "b/000": keras.Variable(np.int64(value)),
    }


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path, max_to_keep=3, best="metric/frechet")


def save(store, step, **metrics):
    store.save(make_state(step), step, {f"metric/{name}": value for name, value in metrics.items()})
    store.wait()


def test_what_was_saved_is_restored_with_its_digest(store):
    save(store, 7)
    state = make_state()
    manifest = store.restore(state)
    assert manifest.step == 7
    assert state["a/000/kernel"].numpy().tolist() == [[7.0, 7.0]] * 3
    assert manifest.state_sha256 == state_sha256({name: variable.numpy() for name, variable in state.items()})


def test_a_snapshot_is_not_touched_by_later_updates(store):
    state = make_state(1)
    store.save(state, 1)
    state["a/000/kernel"].assign(np.zeros((3, 2), np.float32))
    store.wait()
    restored = make_state()
    store.restore(restored)
    assert restored["a/000/kernel"].numpy().max() == 1.0


def test_the_last_three_and_the_best_are_kept(store):
    for step, frechet in enumerate([9.0, 2.0, 5.0, 4.0, 3.0, 6.0], start=1):
        save(store, step, frechet=frechet)
    assert store.steps() == [2, 4, 5, 6]
    assert store.find_best()[0].step == 2
    assert store.best_value() == 2.0


def test_a_checkpoint_that_is_being_written_is_restored(store, monkeypatch):
    save(store, 1)
    write = store_module.state_file.write

    def write_slowly(*arguments):
        time.sleep(0.5)
        write(*arguments)

    monkeypatch.setattr(store_module.state_file, "write", write_slowly)
    store.save(make_state(2), 2)
    assert store.restore(make_state()).step == 2


def test_a_restore_that_failed_is_repeated_by_the_next_fit(tmp_path):
    (tmp_path / "step-00000002").mkdir()
    checkpoint = Checkpoint(tmp_path)
    check_refusal(lambda: checkpoint.restore(tiny_gan()), CheckpointError, "step-00000002")
    assert not checkpoint.is_restored


def test_a_checkpoint_callback_begins_anew_without_its_checkpoints(digits, tmp_path):
    checkpoint = Checkpoint(tmp_path / "run", every_steps=2)
    for _ in range(2):
        tiny_gan().fit(digits.images[:32], batch_size=16, steps=2, callbacks=checkpoint, verbose=0)
        assert checkpoint.store.steps() == [2]
        shutil.rmtree(tmp_path / "run")


def test_the_best_value_of_checkpoints_that_are_missing_does_not_count(digits, tmp_path):
    checkpoint = Checkpoint(tmp_path, every_steps=0, best="metric/frechet")
    for value, step in ((1.0, 2), (2.0, 3)):
        checkpoint.set_model(tiny_gan())
        checkpoint.set_params({"num_steps": 9})
        checkpoint.restore(checkpoint.model)
        checkpoint.model.step = step
        checkpoint.on_train_batch_end(0, {"metric/frechet": value})
        checkpoint.store.wait()
        assert checkpoint.store.steps() == [step]
        shutil.rmtree(checkpoint.store.folder(step))


def test_an_empty_directory_restores_nothing(store):
    assert store.restore(make_state()) is None


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.unlink(),
    ],
    ids=["flipped", "cut", "missing"],
)
def test_damage_to_the_newest_is_named_and_the_older_one_taken(store, harm):
    save(store, 1), save(store, 2)
    harm(next(store.folder(2).glob("state.data-*")))
    assert store.restore(make_state()).step == 1
    (rejected,) = store.rejected
    assert "step-00000002/state.data-" in rejected and "\n" not in rejected


def damage(store, step):
    path = next(store.folder(step).glob("state.data-*"))
    path.write_bytes(path.read_bytes()[:-1])


def test_the_best_is_the_best_checkpoint_that_verifies(store):
    for step, frechet in ((1, 3.0), (2, 2.0), (3, 1.0)):
        save(store, step, frechet=frechet)
    damage(store, 3)
    manifest, problems = store.find_best()
    assert manifest.step == 2 and store.best_value() == 2.0
    assert len(problems) == 1 and "step-00000003/state.data-" in problems[0]
    damage(store, 2), damage(store, 1)
    assert store.find_best()[0] is None


@pytest.mark.parametrize("bad", [math.nan, -math.inf, math.inf])
@pytest.mark.parametrize("position", range(3))
def test_a_metric_that_is_not_finite_is_never_the_best(store, bad, position):
    values = [3.0, 2.0]
    values.insert(position, bad)
    for step, value in enumerate(values, start=1):
        save(store, step, frechet=value)
    assert store.best_value() == 2.0
    assert store.find_best()[0].metrics == {"metric/frechet": 2.0}


def test_a_damaged_checkpoint_is_not_counted_among_the_newest(tmp_path):
    first = CheckpointStore(tmp_path, max_to_keep=2)
    save(first, 4), save(first, 8)
    damage(first, 8)
    store = CheckpointStore(tmp_path, max_to_keep=1, best="metric/frechet")
    assert store.restore(make_state()).step == 4
    for step in (5, 6):
        save(store, step, frechet=float(step))
        assert CheckpointStore(tmp_path).restore(make_state()).step == step
    assert store.steps() == [5, 6]  # the best one, and the newest


def test_a_damaged_best_checkpoint_is_written_again(digits, tmp_path):
    """It counts for nothing until then, so that the same value is a new best one."""

    class Evaluates(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            logs["metric/x"] = {2: 5.0, 3: 1.0}.get(self.model.step, 9.0)

    def fit(steps):
        saves = Checkpoint(tmp_path, every_steps=2, max_to_keep=2, best="metric/x")
        gan = tiny_gan()
        settings = {"batch_size": 16, "steps_per_execution": 1, "verbose": 0}
        gan.fit(digits.images[:64], steps=steps, callbacks=[Evaluates(), saves], **settings)
        return saves.store

    store = fit(3)
    assert store.find_best()[0].step == 3
    damage(store, 3)
    again = fit(4)
    assert again.find_best()[0].step == 3


def test_a_folder_without_manifest_is_no_checkpoint(store):
    save(store, 1), save(store, 2)
    (store.folder(2) / "MANIFEST.json").unlink()
    assert store.restore(make_state()).step == 1


def test_five_hundred_random_damages_are_all_detected(store, tmp_path):
    save(store, 1)
    folder, chance = store.folder(1), random.Random(0)
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    names = sorted(path.name for path in folder.iterdir())
    for _ in range(500):
        path = folder / chance.choice(names)
        content = bytearray(path.read_bytes())
        kind, place = chance.choice(["flip", "cut", "delete"]), chance.randrange(len(content))
        if kind == "flip":
            content[place] ^= 1 << chance.randrange(8)
            path.write_bytes(content)
        elif kind == "cut":
            path.write_bytes(content[:place])
        else:
            path.unlink()
        assert verify(folder)[0] is None, (kind, path.name, place)
        shutil.copy(whole / path.name, path)
    assert verify(folder)[0] is not None


def test_values_that_are_not_finite_are_never_committed(store):
    save(store, 1)
    broken = make_state() | {"a/000/kernel": keras.Variable(np.full((3, 2), np.nan, np.float32))}
    check_refusal(lambda: store.save(broken, 2), DivergenceError, "a/000/kernel", "2")
    store.wait()
    assert store.steps() == [1]


def test_an_error_of_the_background_surfaces_at_the_next_save(store, tmp_path):
    store.directory = tmp_path / "file"
    store.directory.write_text("a file where the folder should be")
    store.save(make_state(), 1)
    check_refusal(lambda: store.save(make_state(), 2), CheckpointError, "1", str(store.directory))


@pytest.mark.parametrize("architecture", ["mlp", pytest.param("dcgan", marks=pytest.mark.slow)])
def test_a_run_resumed_at_every_step_ends_with_the_same_bits(digits, tmp_path, architecture):
    settings = {"ema_half_life_images": 100.0}

    def fit(steps, directory):
        gan = tiny_gan(architecture, **settings)
        gan.fit(digits.images, batch_size=16, steps=steps, verbose=0, callbacks=[Checkpoint(directory, every_steps=2)])
        return gan

    reference = values_of(fit(4, tmp_path / "whole"))
    for steps in range(1, 5):
        gan = fit(steps, tmp_path / "cut")
    assert gan.step == 4
    assert state_sha256(values_of(gan)) == state_sha256(reference)


def test_metrics_that_are_added_to_a_checkpoint_count_as_its_own(store):
    for step in (1, 2, 3, 4, 5):
        save(store, step, frechet=[3.0, 1.0, 4.0, 5.0, 6.0][step - 1])
    assert store.steps() == [2, 3, 4, 5]
    before = store.find()[0]
    store.amend(5, {"metric/frechet": 0.5}, {"collapse": {"best": 0.5}}, 5)
    manifest, problems = store.find()
    assert (
        not problems
        and manifest.metrics == {"metric/frechet": 0.5}
        and manifest.callbacks == {"collapse": {"best": 0.5}}
    )
    assert (manifest.files, manifest.state_sha256) == (before.files, before.state_sha256)
    assert store.find_best()[0].step == 5 and store.steps() == [3, 4, 5]  # the former best one is not kept


def test_a_checkpoint_stays_valid_when_metrics_cannot_be_added(store, monkeypatch):
    save(store, 1, frechet=3.0)
    before = store.find()

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module, "write_atomically", full)
    check_refusal(lambda: store.amend(1, {"metric/frechet": 0.5}, {}, 1), CheckpointError, "step 1")
    assert store.find() == before
