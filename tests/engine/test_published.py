"""Checkpoints in a bucket: another machine goes on from them, and half an upload is never taken for one."""

import keras
import numpy as np
import pytest

from trainer.engine.checkpoint import CheckpointStore
from trainer.engine.manifest import MANIFEST
from trainer.errors import CheckpointError, StorageError
from trainer.storage import locate
from trainer.storage.buckets import BucketLocation


def state_of(value=0.0):
    return {"a/000/kernel": keras.Variable(np.full((3, 2), value, np.float32))}


@pytest.fixture
def remote(bucket):
    return locate(bucket) / "run/checkpoints"


@pytest.fixture
def machine(remote, tmp_path):
    """Makes the store of a machine that knows the bucket alone."""
    count = iter(range(100))
    return lambda: CheckpointStore(tmp_path / str(next(count)), keep=2, best="metric/x", remote=remote)


def save(store, step, **metrics):
    store.save(state_of(step), step, {f"metric/{name}": value for name, value in metrics.items()})
    store.wait()


def test_another_machine_goes_on_from_the_newest(machine, remote):
    first = machine()
    for step in (1, 2, 3):
        save(first, step, x=[5.0, 1.0, 3.0][step - 1])
    second, state = machine(), state_of()
    assert second.steps() == [2, 3] and second.best() == 2 and second.best_value() == 1.0
    assert second.restore(state).step == 3 and state["a/000/kernel"].numpy().max() == 3.0
    save(second, 4, x=9.0)
    save(second, 5, x=9.0)
    assert machine().steps() == [2, 4, 5]  # the best one is kept
    assert {entry.name.partition("/")[0] for entry in remote.entries()} == {f"step-{step:08d}" for step in (2, 4, 5)}


class Killed(BaseException):
    """A kill, at any call to the bucket."""


@pytest.mark.parametrize("calls", range(6))
def test_a_kill_in_the_middle_of_an_upload_leaves_the_one_before(machine, remote, monkeypatch, calls):
    save(machine(), 1)
    left = [calls]

    def counted(plain):
        def call(*arguments, **settings):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return plain(*arguments, **settings)

        return call

    dying = machine()
    dying.restore(state_of())
    with monkeypatch.context() as patch:
        for name in ("_upload_from", "write_bytes", "_delete"):
            patch.setattr(BucketLocation, name, counted(getattr(BucketLocation, name)))
        committed = True
        try:
            save(dying, 2)
        except Killed:
            committed = False
    again, state = machine(), state_of()
    assert again.restore(state).step == (2 if committed else 1)
    save(again, 2)
    assert machine().restore(state).step == 2 and state["a/000/kernel"].numpy().max() == 2.0
    assert committed == (calls >= 3)


def test_damage_in_the_bucket_is_named_and_the_older_one_taken(machine, remote):
    first = machine()
    save(first, 1)
    save(first, 2)
    (remote / "step-00000002/state.index").write_bytes(b"something else")
    second = machine()
    assert second.restore(state_of()).step == 1
    assert second.rejected == ("step-00000002/state.index has 14 bytes where " + second.rejected[0].split("where ")[1],)
    (remote / f"step-00000001/{MANIFEST}").write_bytes(b"{}")
    with pytest.raises(CheckpointError, match="no checkpoint in .* can be trusted"):
        machine().restore(state_of())


def test_a_bucket_that_vanishes_is_told_at_the_next_save(machine, monkeypatch):
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
