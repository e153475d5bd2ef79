"""Checkpoints in a bucket: another machine resumes from them, and half an upload is never taken for one."""

import contextlib
import itertools

import keras
import numpy as np
import pytest
from refusals import check_refusal

from trainer.errors import CheckpointError, StorageError
from trainer.storage import locate
from trainer.storage.gcs import BucketLocation
from trainer.training.checkpoint import state_file
from trainer.training.checkpoint.manifest import MANIFEST, verify
from trainer.training.checkpoint.store import CheckpointStore


def state_of(value=0.0):
    return {"a/000/kernel": keras.Variable(np.full((3, 2), value, np.float32))}


@pytest.fixture
def remote(bucket):
    return locate(bucket) / "run/checkpoints"


@pytest.fixture
def machine(remote, tmp_path):
    """Makes the store of a machine that knows the bucket alone."""
    count = iter(range(100))
    return lambda: CheckpointStore(tmp_path / str(next(count)), max_to_keep=2, best="metric/x", remote=remote)


def save(store, step, **metrics):
    store.save(state_of(step), step, {f"metric/{name}": value for name, value in metrics.items()})
    store.wait()


def test_another_machine_resumes_from_the_newest(machine, remote):
    first = machine()
    for step in (1, 2, 3):
        save(first, step, x=[5.0, 1.0, 3.0][step - 1])
    second, state = machine(), state_of()
    assert second.steps() == [2, 3] and second.find_best()[0].step == 2 and second.best_value() == 1.0
    assert second.restore(state).step == 3 and state["a/000/kernel"].numpy().max() == 3.0
    save(second, 4, x=9.0)
    save(second, 5, x=9.0)
    assert machine().steps() == [2, 4, 5]  # the best one is kept
    assert {entry.name.partition("/")[0] for entry in remote.entries()} == {f"step-{step:08d}" for step in (2, 4, 5)}


class Killed(BaseException):
    """A kill, at any call to the bucket."""


@pytest.fixture
def killed_after(monkeypatch):
    """Runs something until so many files were written to the bucket or deleted from it; returns whether it ended."""

    def run(calls, act):
        left = itertools.count(calls, -1)

        def counted(plain):
            def call(*arguments, **settings):
                if next(left) <= 0:
                    raise Killed
                return plain(*arguments, **settings)

            return call

        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            for name in ("_upload_from", "write_bytes", "_delete"):
                patch.setattr(BucketLocation, name, counted(getattr(BucketLocation, name)))
            act()
            return True
        return False

    return run


def test_a_kill_at_any_file_loses_one_interval_at_most(machine, remote, killed_after):
    saved = []

    def life():
        store = machine()
        for step in (1, 2, 3, 4):
            save(store, step)
            saved.append(step)

    for calls in range(18):  # 3 files of 4 checkpoints, 3 deletions of 2
        saved.clear()
        assert not killed_after(calls, life)
        again, state = machine(), state_of()
        for step in again.steps():
            assert again.find(step)[0].step == step  # whatever is listed is whole
        restored = again.restore(state_of())
        reached = restored.step if restored else 0
        assert reached in (len(saved), len(saved) + 1)
        save(again, reached + 1)
        save(again, reached + 2)
        assert {int(entry.name[5:13]) for entry in remote.entries()} == {reached + 1, reached + 2}
        assert machine().restore(state).step == state["a/000/kernel"].numpy().max() == reached + 2
        for step in again.steps():
            again._remote.delete(step)
    assert killed_after(18, life)


@pytest.mark.parametrize("num_calls", range(9, 12))  # three files each of three checkpoints, then three deletions
def test_a_finished_run_deletes_what_a_kill_in_its_last_deletion_left(machine, remote, killed_after, num_calls):
    store = machine()
    assert not killed_after(num_calls, lambda: [save(store, step) for step in (1, 2, 3)])
    again = machine()
    assert again.restore(state_of()).step == 3 and again.has_leftovers(3, 3)
    again.clean(3, 3)
    assert not machine().has_leftovers(3, 3)
    assert {int(entry.name[5:13]) for entry in remote.entries()} == {2, 3}


def test_damage_in_the_bucket_is_named_and_the_older_one_taken(machine, remote):
    first = machine()
    save(first, 1)
    save(first, 2)
    (remote / "step-00000002/state.index").write_bytes(b"something else")
    second = machine()
    assert second.restore(state_of()).step == 1
    (rejected,) = second.rejected
    assert "step-00000002/state.index" in rejected and "14" in rejected
    (remote / f"step-00000001/{MANIFEST}").write_bytes(b"{}")
    check_refusal(lambda: machine().restore(state_of()), CheckpointError, "step-00000001", "step-00000002")


def test_a_bucket_that_vanishes_is_reported_at_the_next_save(machine, monkeypatch):
    store = machine()
    save(store, 1)

    def gone(*arguments, **settings):
        raise StorageError("the bucket is gone.")

    monkeypatch.setattr(BucketLocation, "upload", gone)
    store.save(state_of(2), 2)
    with pytest.raises(StorageError, match="the bucket is gone"):
        store.save(state_of(3), 3)
    monkeypatch.undo()
    assert machine().restore(state_of()).step == 1


def test_metrics_that_are_added_reach_the_bucket_before_this_machine(machine, killed_after):
    store = machine()
    save(store, 1, x=3.0)
    assert not killed_after(0, lambda: store.amend(1, {"metric/x": 0.5}, {}, 1))
    assert [each.find(1)[0].metrics["metric/x"] for each in (store, machine())] == [3.0, 3.0]
    assert killed_after(1, lambda: store.amend(1, {"metric/x": 0.5}, {}, 1))
    assert [each.find(1)[0].metrics["metric/x"] for each in (store, machine())] == [0.5, 0.5]


def test_a_machine_that_only_reads_rolls_back_while_the_chief_deletes(machine, monkeypatch):
    chief, state, load = machine(), state_of(), state_file.load
    for step in (1, 2):
        save(chief, step, x=1.0)
    worker = machine()
    assert worker.restore(state).step == 2

    def deleted_meanwhile(*arguments, **settings):
        load(*arguments, **settings)
        chief._delete(3)

    save(chief, 3, x=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(state_file, "load", deleted_meanwhile)
        assert worker.roll_back(1, state, {}, reads_only=True).step == 1
    assert not worker.folder(2).exists() and worker.best_value() == 1.0


@pytest.mark.parametrize("num_calls", range(6))  # two manifests, a list, and three files of the better checkpoint
def test_a_checkpoint_that_is_deleted_while_it_is_read_is_skipped(machine, monkeypatch, num_calls):
    chief, left = machine(), itertools.count(num_calls, -1)
    save(chief, 1, x=3.0)
    save(chief, 2, x=1.0)

    def counted(plain):
        def call(*arguments, **settings):
            if next(left) == 0:
                chief._remote.delete(2)
            return plain(*arguments, **settings)

        return call

    reader = machine()
    for name in ("entries", "read_bytes", "_download_to"):
        monkeypatch.setattr(BucketLocation, name, counted(getattr(BucketLocation, name)))
    manifest, _ = reader.find_best()
    assert next(left) < 0
    assert manifest.step == 1 and verify(reader.folder(1)) == (manifest, "")


def test_a_manifest_in_the_bucket_is_read_once(machine, monkeypatch):
    first, read, plain = machine(), [], BucketLocation.read_bytes
    for step in (1, 2, 3):
        save(first, step, x=float(step))
    second = machine()
    monkeypatch.setattr(BucketLocation, "read_bytes", lambda self: (read.append(self.parent.name), plain(self))[1])
    assert second.restore(state_of()).step == 3 and second.best_value() == 1.0
    save(second, 4, x=4.0)
    save(second, 5, x=5.0)
    assert sorted(read) == ["step-00000001", "step-00000002", "step-00000003"]
    assert second.steps() == machine().steps() == [1, 4, 5]
