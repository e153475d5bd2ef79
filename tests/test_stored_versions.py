"""This version reads the runs and prepared data sets of earlier versions, which are stored in tests/fixtures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fixtures.make import NUM_SAMPLES, SEED, array_digest, weight_digests

from trainer import __version__, data
from trainer.data.loading import load
from trainer.training import restore

FIXTURES = Path(__file__).parent / "fixtures"
VERSIONS = sorted(path.parent.name for path in FIXTURES.glob("*/facts.json"))


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


def test_a_stored_data_set_is_described_and_loaded(stored):
    folder, facts = stored
    info = data.describe(str(folder / "prepared"))
    arrays = load(str(folder / "prepared"))
    assert list(info.class_names) == facts["class_names"]
    assert info.num_examples == len(arrays.images)
    assert array_digest(arrays.images) == facts["images"]
    assert array_digest(arrays.labels) == facts["labels"]
