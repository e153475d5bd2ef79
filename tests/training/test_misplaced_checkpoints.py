"""Checkpoints that were renamed, exchanged, copied or linked: the right one is taken, an older one, or none."""

import json
import random
import shutil

import keras
import numpy as np
import pytest
from hostile import tree
from refusals import check_refusal

from trainer.errors import CheckpointError
from trainer.storage import locate
from trainer.training.checkpoint.manifest import MANIFEST, CheckpointManifest
from trainer.training.checkpoint.run_history import Revision, RunHistory
from trainer.training.checkpoint.store import CheckpointStore

STEPS = (2, 4, 6, 8)
RUNS = {
    "run": ((0, "a"),),
    "twin": ((0, "a"),),
    "other seed": ((0, "b"),),
    "changed at 4": ((0, "a"), (5, "b")),
    "changed at 6": ((0, "a"), (7, "b")),
    "changed twice": ((0, "a"), (5, "b"), (7, "a")),
}
"""First steps and settings of the revisions of each run."""


def history_of(run):
    return RunHistory(tuple(Revision(start, {"config": name, "data": "d"}) for start, name in RUNS[run]))


def value_of(run, step):
    """The weight of a run after some steps: another one for other settings at any step."""
    value = ord(RUNS[run][0][1])
    for taken in range(1, step + 1):
        settings = [name for start, name in RUNS[run] if start <= taken][-1]
        value = (31 * value + ord(settings)) % 1_000_003
    return value


def state_of(value=0):
    return {"a/000/kernel": keras.Variable(np.full((3,), value, np.int64))}


def open_store(run, folder, **settings):
    return CheckpointStore(folder, best="metric/x", history=history_of(run), **settings)


def save(store, run, step):
    value = value_of(run, step)
    store.save(state_of(value), step, {"metric/x": value / 1e6})
    store.wait()


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The folder of all runs."""
    root = tmp_path_factory.mktemp("originals")
    for run in RUNS:
        store = open_store(run, root / run, max_to_keep=len(STEPS))
        for step in STEPS:
            save(store, run, step)
    return root


@pytest.fixture
def runs(originals, tmp_path):
    """A copy of all runs that a test may change."""
    return shutil.copytree(originals, tmp_path / "runs")


def folder_of(root, run, step):
    return root / run / f"step-{step:08d}"


def content_of(folder):
    """The content of a checkpoint, or None for anything but a folder without links."""
    if folder.is_symlink() or not folder.is_dir() or any(path.is_symlink() for path in folder.iterdir()):
        return None
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rename(rng, source, target):
    if source.exists() and not target.exists():
        source.rename(target)


def exchange(rng, source, target):
    if source.exists() and target.exists() and source != target:
        source.rename(source.with_name("aside"))
        target.rename(source)
        source.with_name("aside").rename(target)


def copy(rng, source, target):
    if source.exists() and source != target and not target.is_symlink():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


def copy_file(rng, source, target):
    if source.exists() and target.exists() and source.resolve() != target.resolve():
        name = rng.choice(sorted(path.name for path in source.iterdir()))
        if not (source / name).is_symlink() and not (target / name).is_symlink():
            shutil.copy(source / name, target / name)


def remove_manifest(rng, source, target):
    if not target.is_symlink():
        (target / MANIFEST).unlink(missing_ok=True)


def link(rng, source, target):
    if source.exists() and not source.is_symlink() and source != target and not target.is_symlink():
        shutil.rmtree(target, ignore_errors=True)
        target.symlink_to(source)


def link_file(rng, source, target):
    if content_of(source) and content_of(target) and source != target:
        name = rng.choice(sorted(content_of(source)))
        (target / name).unlink(missing_ok=True)
        (target / name).symlink_to(source / name)


MOVES = [rename, exchange, copy, copy_file, remove_manifest]


def shuffle(root, rng, moves):
    """Makes one to four random moves between checkpoints of all runs, some of them to new steps."""
    for _ in range(rng.randint(1, 4)):
        source = folder_of(root, rng.choice([*RUNS]), rng.choice(STEPS))
        target = folder_of(root, rng.choice([*RUNS]), rng.choice([*STEPS, 7, 10, 12]))
        rng.choice(moves)(rng, source, target)


def files_of(root, run):
    """The content of all files of a run that are not links and not in linked folders."""
    return {path: path.read_bytes() for path in (root / run).rglob("*") if path.is_file() and not path.is_symlink()}


def check(root, originals, run, make_store):
    """Asserts that a run finds only its own checkpoints, and all of them."""
    valid = [
        step
        for step in STEPS
        if content_of(folder_of(root, run, step)) == content_of(folder_of(originals, run, step)) is not None
    ]
    state = state_of()
    for step in (*STEPS, 7, 10, 12):
        if step in valid:
            assert make_store().find(step)[0].step == step
        elif (folder_of(root, run, step) / MANIFEST).exists():
            check_refusal(lambda step=step: make_store().find(step), CheckpointError, f"step-{step:08d}")
    best = make_store().find_best()[0]
    if not valid:
        assert best is None
        if any((root / run).glob(f"*/{MANIFEST}")):
            check_refusal(lambda: make_store().restore(state), CheckpointError, "step-")
        return 0
    assert best.step == min(valid, key=lambda step: value_of(run, step))
    assert make_store().restore(state).step == valid[-1]
    assert state["a/000/kernel"].numpy().tolist() == [value_of(run, valid[-1])] * 3
    return valid[-1]


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 20))])
def test_only_the_checkpoints_of_a_run_are_taken(originals, runs, seed):
    rng = random.Random(seed)
    for number in range(10):
        root = shutil.copytree(originals, runs.with_name(f"moved-{number}"))
        shuffle(root, rng, [*MOVES, link, link_file])
        for run in RUNS:
            check(root, originals, run, lambda folder=root / run, run=run: open_store(run, folder))
        run = rng.choice([*RUNS])
        before = {other: files_of(root, other) for other in RUNS if other != run}
        save(open_store(run, root / run, max_to_keep=1), run, 14)
        assert {other: files_of(root, other) for other in RUNS if other != run} == before
        state = state_of()
        assert open_store(run, root / run).restore(state).step == 14
        assert state["a/000/kernel"].numpy()[0] == value_of(run, 14)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 40))])
def test_only_the_checkpoints_of_a_run_in_a_bucket_are_taken(originals, runs, tmp_path, bucket, seed):
    rng = random.Random(f"bucket {seed}")
    for number in range(5):
        root = shutil.copytree(originals, runs.with_name(f"moved-{number}"))
        shuffle(root, rng, MOVES)
        run = rng.choice([*RUNS])
        remote = locate(f"{bucket}/{number}")
        remote.upload(root / run, [entry.name for entry in locate(root / run).entries()])
        copies = iter(range(100))

        def make_store(run=run, remote=remote, copies=copies, number=number, **settings):
            return open_store(run, tmp_path / f"copy-{number}-{next(copies)}", remote=remote, **settings)

        check(root, originals, run, make_store)
        save(make_store(max_to_keep=1), run, 14)
        assert make_store().restore(state_of()).step == 14


def test_a_linked_checkpoint_is_named_and_its_target_stays(runs):
    target = folder_of(runs, "twin", 8)
    for step in (8, 10):
        link(None, target, folder_of(runs, "run", step))
    store = open_store("run", runs / "run", max_to_keep=1)
    before = tree(target)
    assert store.restore(state_of()).step == 6
    assert len(store.rejected) == 2 and "step-00000010" in store.rejected[0] and "link" in store.rejected[0]
    for step in (8, 9, 10, 11):
        save(store, "run", step)
        assert tree(target) == before and store.find()[0].step == step


@pytest.mark.parametrize("place", ["step-00000010", ".step-00000010.partial"])
@pytest.mark.parametrize("obstacle", ["file", "link", "broken link", "full folder"])
def test_nothing_in_the_place_of_a_checkpoint_blocks_it(runs, place, obstacle):
    path, target = runs / "run" / place, folder_of(runs, "twin", 8)
    if obstacle == "file":
        path.write_text("something")
    elif obstacle == "full folder":
        (path / "a/b").mkdir(parents=True)
        (path / "a/b/c").write_text("something")
    else:
        path.symlink_to(target if obstacle == "link" else runs / "nowhere")
    before = tree(target)
    store = open_store("run", runs / "run")
    assert store.restore(state_of()).step == 8
    save(store, "run", 10)
    assert open_store("run", runs / "run").restore(state_of()).step == 10
    assert tree(target) == before and not (runs / "run/.step-00000010.partial").exists()


def test_leftovers_of_interrupted_commits_are_removed_and_nothing_else(runs):
    folder = runs / "run"
    for name in (".step-00000003.partial", ".step-00000009.partial"):
        (folder / name).mkdir()
    others = [".step-x.partial", ".step-²²²²²²²².partial", "step-²", "step-00000020 (1)", "step-1", "step--0000001"]
    for name in others:
        (folder / name).mkdir()
    (folder / "step-00000099").write_text("a file")
    (folder / "notes.txt").write_text("notes")
    store = open_store("run", folder, max_to_keep=1)
    assert store.restore(state_of()).step == 8
    assert "step-00000099" in store.rejected[0]
    save(store, "run", 10)
    best = min((*STEPS, 10), key=lambda step: value_of("run", step))
    own = {f"step-{step:08d}" for step in (best, 10)}
    assert {path.name for path in folder.iterdir()} == {*own, *others, "step-00000099", "notes.txt"}


@pytest.mark.parametrize(
    "change",
    [{"fingerprints": {}}, {"fingerprints": {"config": "a"}}, {"step": 6}, {"step": True}, {"format_version": 3}],
    ids=str,
)
def test_a_manifest_that_does_not_fit_is_passed_over(runs, change):
    path = folder_of(runs, "run", 8) / MANIFEST
    fields = vars(CheckpointManifest.from_bytes(path.read_bytes()))
    path.write_bytes(CheckpointManifest(**fields | change).to_bytes())
    store = open_store("run", runs / "run")
    assert store.restore(state_of()).step == 6 and "step-00000008" in store.rejected[0]


@pytest.mark.parametrize("content", [{"format_version": 3}, {"format_version": 99, "step": "8", "parts": [1]}])
@pytest.mark.parametrize("is_remote", [False, True])
def test_a_manifest_of_a_newer_version_is_called_so_and_stays(runs, is_remote, content, tmp_path):
    path = folder_of(runs, "run", 8) / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | content))
    before, folder = path.read_bytes(), runs / "run"
    settings = {"remote": locate(folder)} if is_remote else {}
    store = open_store("run", tmp_path / "local" if is_remote else folder, max_to_keep=1, **settings)
    assert store.restore(state_of()).step == 6
    assert str(content["format_version"]) in store.rejected[0] and "damaged" not in store.rejected[0]
    save(store, "run", 7)
    assert path.read_bytes() == before
    check_refusal(lambda: store.find(8), CheckpointError, str(folder), str(content["format_version"]))


@pytest.mark.parametrize("kind", ["folder", "link", "huge", "link to a device"])
def test_a_manifest_that_is_no_small_file_is_passed_over(runs, kind):
    path = folder_of(runs, "run", 8) / MANIFEST
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "huge":
        path.write_bytes(content + b" " * 2**21)
    else:
        (runs / "manifest").write_bytes(content)
        path.symlink_to(runs / "manifest" if kind == "link" else "/dev/zero")
    assert open_store("run", runs / "run").restore(state_of()).step == 6


@pytest.mark.parametrize("step", [4, 9])
def test_a_chosen_checkpoint_that_is_not_valid_is_named_with_the_others(runs, step):
    shutil.rmtree(folder_of(runs, "run", 4))
    shutil.copytree(folder_of(runs, "run", 2), folder_of(runs, "run", step))
    store = open_store("run", runs / "run")
    check_refusal(lambda: store.find(step), CheckpointError, f"step {step}", "step 2", "8, 6, 2", "choose")
    assert store.find()[0].step == 8
