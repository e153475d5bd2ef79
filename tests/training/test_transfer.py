"""A run that begins with the weights of another one: which weights, what is recorded, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from bucket_runs import TINY, prepared, run, state_of
from conftest import TINY_DCGAN, values_of
from refusals import check_command_refusal
from trainer import __main__ as commands
from trainer.data.tfrecord_writer import write_prepared
from trainer.storage import locate
from trainer.training import restore
from trainer.training.checkpoint.manifest import MANIFEST

FIXTURES = Path(__file__).parents[1] / "fixtures"
TEXTS = {"source": "", "license": "", "attribution": ""}
NETWORKS = json.dumps(TINY_DCGAN)
COMMON = [*TINY, "--architecture=dcgan", f"--architecture_options={NETWORKS}", "--strategy=one_device"]


def write_set(folder, size=8, channels=3, num_classes=2, seed=0):
    """Writes a prepared data set of 24 images, and returns its path."""
    images = np.random.default_rng(seed).integers(0, 256, (24, size, size, channels), np.uint8)
    labels = (np.arange(24) % num_classes).astype(np.int32)
    write_prepared(folder, images, labels, [f"c{i}" for i in range(num_classes)], num_shards=1, name="set", **TEXTS)
    return str(folder)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with data sets, and a run `source` with an EMA and checkpoints of the steps 4 and 8."""
    folder = tmp_path_factory.mktemp("transfer")
    write_set(folder / "a")
    write_set(folder / "b", seed=1)
    assert train(folder / "a", folder / "source", "--steps=8", "--ema_half_life_images=8") == 0
    return folder


def train(data, job_dir, *flags):
    return run("train", *COMMON, f"--dataset={data}", f"--job_dir={job_dir}", *flags)


def weights_at(job_dir, step):
    """The tensors in a checkpoint, by name."""
    reader = tf.train.load_checkpoint(str(Path(job_dir) / f"checkpoints/step-{step:08d}/state"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def config_of(job_dir):
    return json.loads((Path(job_dir) / "config.json").read_text())


def test_a_run_begins_with_the_weights_of_another_one(work, tmp_path):
    job_dir = tmp_path / "new"
    flags = [
        f"--init_from={work}/source@4",
        "--seed=3",
        "--generator_learning_rate=0",
        "--discriminator_learning_rate=0",
    ]
    assert train(work / "b", job_dir, *flags, "--steps=1", "--ema_half_life_images=9") == 0
    source, new = weights_at(work / "source", 4), weights_at(job_dir, 1)
    for name, value in new.items():
        part, _, rest = name.partition("/")
        if part.endswith("generator") and "moving" not in name:
            np.testing.assert_array_equal(value, source[f"ema_generator/{rest}"], err_msg=name)
