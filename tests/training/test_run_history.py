"""Checkpoints belong to a run if they were written under the same settings and data, in the same order."""

import pytest

from trainer.training.checkpoint.manifest import CheckpointManifest
from trainer.training.checkpoint.run_history import Revision, RunHistory

A, B, C = ({"config": name, "data": "d"} for name in "abc")


def history(*revisions):
    return RunHistory(tuple(Revision(step, fingerprints) for step, fingerprints in revisions))


def manifest(step, fingerprints, version=2):
    return CheckpointManifest(step, {}, "", fingerprints, {}, {}, version)


PLAIN, CHANGED, OTHER = history((0, A)), history((0, A), (11, B)), history((0, B))


@pytest.mark.parametrize(
    ("of_run", "written_by", "step", "belongs"),
    [
        (PLAIN, PLAIN, 0, True),
        (PLAIN, PLAIN, 20, True),
        (PLAIN, OTHER, 0, False),
        (PLAIN, OTHER, 20, False),
        (PLAIN, history((0, A | {"data": "e"})), 20, False),
        (PLAIN, history((0, A | {"data_b": "e"})), 20, True),
        (history((0, A | {"data_b": "e"})), PLAIN, 20, False),
        (CHANGED, PLAIN, 10, True),  # before the change
        (CHANGED, PLAIN, 11, False),
        (PLAIN, CHANGED, 10, True),
        (PLAIN, CHANGED, 11, False),
        (CHANGED, OTHER, 10, False),
        (CHANGED, OTHER, 20, False),  # the same settings now, others before
        (OTHER, CHANGED, 20, False),
        (CHANGED, history((0, A), (12, B)), 20, False),
        (CHANGED, history((0, C), (11, B)), 20, False),
        (history((0, A), (11, B), (21, A)), PLAIN, 30, False),
        (history((0, A), (11, B), (21, A)), CHANGED, 15, True),
        (RunHistory(), OTHER, 20, True),  # nothing is known
        (history((11, B)), OTHER, 10, True),
        (history((11, B)), PLAIN, 11, False),
    ],
)
def test_a_checkpoint_belongs_to_runs_with_the_same_past(of_run, written_by, step, belongs):
    assert (not of_run.problem(manifest(step, written_by.at(step)))) == belongs


def test_manifests_of_version_1_may_lack_fingerprints():
    assert not CHANGED.problem(manifest(20, {}, version=1))
    assert CHANGED.problem(manifest(20, {})) and CHANGED.problem(manifest(20, {"config": "c"}, version=1))


@pytest.mark.parametrize(
    ("before", "step", "fingerprints", "after"),
    [
        (RunHistory(), 0, A, history((1, A))),
        (RunHistory(), 8, A, history((9, A))),
        (PLAIN, 10, A, PLAIN),
        (PLAIN, 10, B, CHANGED),
        (PLAIN, 0, B, history((0, A), (1, B))),
        (CHANGED, 20, B, CHANGED),
        (CHANGED, 10, B, CHANGED),
        (CHANGED, 10, C, history((0, A), (11, C))),
        (CHANGED, 10, A, PLAIN),
        (CHANGED, 5, A, PLAIN),
        (CHANGED, 5, B, history((0, A), (6, B))),
        (CHANGED, 20, A, history((0, A), (11, B), (21, A))),
    ],
)
def test_a_resume_continues_the_history(before, step, fingerprints, after):
    assert before.resumed(step, fingerprints) == after
    assert RunHistory.from_json(after.to_json()) == after
    for earlier in range(step + 1):
        assert before.at(earlier) in (after.at(earlier), {})


@pytest.mark.parametrize(
    "values",
    [
        *(None, [], {}, 7, "text", [7], [None], [[]], [{}], [{"config": "a"}]),
        *([{"from_step": step, "config": "a"}] for step in (None, "0", -1, 0.0, True, [])),
        [{"from_step": 0, "config": 7}],
        [{"from_step": 0, "config": "a"}, {"from_step": 0, "config": "b"}],
        [{"from_step": 5, "config": "a"}, {"from_step": 0, "config": "b"}],
    ],
)
def test_a_malformed_history_is_refused(values):
    with pytest.raises(ValueError):
        RunHistory.from_json(values)
