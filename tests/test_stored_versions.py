"""This version reads the runs and prepared datasets of earlier versions, which are stored in tests/fixtures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from fixtures.make import NUM_SAMPLES, SEED, TRAIN_FLAGS, array_digest, weight_digests
from refusals import check_command_refusal

from trainer import __version__, data
from trainer.__main__ import main
from trainer.data.loading import load
from trainer.training import restore

FIXTURES = Path(__file__).parent / "fixtures"
NETWORKS = ("generator", "discriminator")
VERSIONS = sorted(path.parent.name for path in FIXTURES.glob("*/facts.json"))


def train(flags):
    return main(["trainer", "train", *flags])


@pytest.fixture(params=VERSIONS)
def stored(request, tmp_path):
    """A copy of the folder of a version, and the facts about its files."""
    shutil.copytree(FIXTURES / request.param, tmp_path / "stored")
    return tmp_path / "stored", json.loads((tmp_path / "stored/facts.json").read_text())


def test_a_version_is_stored():
    assert VERSIONS and VERSIONS[0] <= __version__


def test_a_stored_run_is_restored_with_the_same_weights_and_samples(stored):
    folder, facts = stored
    _, gan, manifest = restore.restore(str(folder / "run"))
    assert (manifest.step, gan.step) == (facts["step"], facts["step"])
    assert weight_digests(gan).items() >= facts["weights"].items()
    images, labels = gan.sample(NUM_SAMPLES, seed=SEED)
    samples = np.load(folder / "samples.npz")
    np.testing.assert_array_equal(labels, samples["y"])
    # Other processors may round a pixel differently.
    np.testing.assert_allclose(images.astype(int), samples["x"].astype(int), atol=1)


def rates_of(folder, step):
    """The learning rates in a checkpoint, by name."""
    reader = tf.train.load_checkpoint(str(folder / f"checkpoints/step-{step:08d}/state"))
    return {name: float(reader.get_tensor(name)) for name in (f"{part}_optimizer/001" for part in NETWORKS)}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [[], ["--generator_learning_rate=0.5", "--allow_config_change"]], ids=str)
def test_a_stored_run_resumes(stored, changes):
    """A changed learning rate takes effect, although the manifest does not contain the earlier one."""
    folder, facts = stored
    run = folder / "run"
    step = facts["step"] + 2
    assert train([*TRAIN_FLAGS, f"--job_dir={run}", f"--steps={step}", *changes]) == 0
    _, gan, manifest = restore.restore(str(run), "latest")
    assert (manifest.step, gan.step) == (step, step)
    before, after = rates_of(run, facts["step"]), rates_of(run, step)
    assert after == before | ({"generator_optimizer/001": 0.5} if changes else {})
    assert restore.restore(str(run), str(facts["step"]))[2].step == facts["step"]  # earlier checkpoints remain valid
    assert train([*TRAIN_FLAGS, f"--job_dir={run}", f"--steps={step + 1}", *changes[:1]]) == 0


@pytest.mark.parametrize("command", ["generate", "export"])
def test_a_stored_run_whose_config_belongs_to_another_run_is_refused(stored, command, capsys):
    folder, _ = stored
    config = folder / "run/config.json"
    config.write_text(config.read_text().replace('"seed": 0', '"seed": 1'))
    argv = ["trainer", command, f"--job_dir={folder / 'run'}", f"--out={folder / 'out.png'}"]
    check_command_refusal(main, argv, capsys, 1, "step-00000004", "config")


def test_a_stored_dataset_is_described_and_loaded(stored):
    folder, facts = stored
    info = data.describe(str(folder / "prepared"))
    arrays = load(str(folder / "prepared"))
    assert list(info.class_names) == facts["class_names"]
    assert info.num_examples == len(arrays.images)
    assert array_digest(arrays.images) == facts["images"]
    assert array_digest(arrays.labels) == facts["labels"]
