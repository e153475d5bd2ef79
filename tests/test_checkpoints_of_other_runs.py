"""Every command takes only the checkpoints of its run, and none of another seed, step, or past."""

import json
import shutil

import pytest
from bucket_runs import state_of, train
from hostile import run_on, tree

from trainer.storage import locate

pytestmark = pytest.mark.slow
STEPS = (4, 8)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A run, a run with another seed, and what the first one reaches after 12 steps."""
    root = tmp_path_factory.mktemp("originals")
    for name, seed in (("run", 0), ("other", 1)):
        assert train("digits", root / name, "--steps=8", f"--seed={seed}") == 0
    shutil.copytree(root / "run", root / "longer")
    assert train("digits", root / "longer", "--steps=12") == 0
    return root


def folder_of(root, name, step):
    return root / name / f"checkpoints/step-{step:08d}"


def replace(root, source, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def exchange_steps(root):
    first, second = (folder_of(root, "run", step) for step in STEPS)
    first.rename(first.with_name("aside"))
    second.rename(first)
    first.with_name("aside").rename(second)


CHANGES = {
    "exchanged steps": (exchange_steps, None),
    "renamed to a newer step": (lambda root: folder_of(root, "run", 8).rename(folder_of(root, "run", 10)), 4),
    "copied to a newer step": (lambda root: replace(root, folder_of(root, "run", 4), folder_of(root, "run", 10)), 8),
    "of another seed": (lambda root: replace(root, folder_of(root, "other", 8), folder_of(root, "run", 8)), 4),
    "of another seed at a newer step": (
        lambda root: replace(root, folder_of(root, "other", 8), folder_of(root, "run", 12)),
        8,
    ),
    "all of another seed": (lambda root: replace(root, root / "other/checkpoints", root / "run/checkpoints"), None),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("where", ["local", "bucket"])
def test_every_command_takes_the_right_checkpoint_or_none(originals, bucket, where, change, tmp_path, capsys):
    root = shutil.copytree(originals, tmp_path / "runs")
    act, expected = CHANGES[change]
    act(root)
    job_dir = root / "run"
    if where == "bucket":
        location = locate(f"{bucket}/run")
        location.upload(job_dir, [entry.name for entry in locate(job_dir).entries()])
        job_dir = str(location)
    for command in ("generate", "export"):
        capsys.readouterr()
        assert run_on(command, job_dir, tmp_path) == (expected is None)
        captured = capsys.readouterr()
        assert captured.err.count("Traceback") == 0
        if expected is None:
            assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
        else:
            assert f"step {expected}" in captured.out
    code = train("digits", job_dir, "--steps=12")
    assert code == (expected is None)
    if code == 0:
        assert state_of(job_dir, 12) == state_of(originals / "longer", 12)


def test_checkpoints_stay_valid_when_settings_change(originals, tmp_path):
    """A run with another past, but the same settings now, has other checkpoints."""
    root = shutil.copytree(originals, tmp_path / "runs")
    other_rate = ("--generator_learning_rate=0.01",)
    changed = (*other_rate, "--allow_config_change")
    assert train("digits", root / "run", "--steps=12", *changed) == 0
    expected = state_of(root / "run", 12)
    assert run_on("generate", root / "run", tmp_path) == 0
    assert train("digits", root / "from-start", "--steps=12", *other_rate) == 0
    assert state_of(root / "from-start", 12) != expected
    replace(root, folder_of(root, "from-start", 12), folder_of(root, "run", 12))
    assert train("digits", root / "run", "--steps=12", *other_rate) == 0
    assert state_of(root / "run", 12) == expected
    stored = json.loads((root / "run/config.json").read_text())["fingerprints"]
    assert [revision["from_step"] for revision in stored] == [0, 9]
    # The change was at step 8. A run that falls back to an earlier step would have another past.
    shutil.rmtree(folder_of(root, "run", 8))
    shutil.rmtree(folder_of(root, "run", 12))
    before = tree(root / "run")
    assert train("digits", root / "run", "--steps=12", *other_rate) == 1
    assert tree(root / "run") == before
    assert train("digits", root / "run", "--steps=12", *changed) == 0
