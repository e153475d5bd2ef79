"""Helpers for runs whose data and run directory are in a bucket."""

import json

import numpy as np
import pytest
from PIL import Image

from trainer import __main__ as commands
from trainer.storage import locate
from trainer.training.checkpoint.manifest import MANIFEST

TINY = [
    "--recipe=vanilla",
    *("--metrics=none", "--noexport_model", "--jit_compile=off"),
    '--architecture_options={"generator_units": [16], "discriminator_units": [16], "dropout": 0.3}',
    *("--global_batch_size=4", "--steps_per_execution=2", "--checkpoint_every_steps=4", "--sample_every_steps=4"),
]
"""Flags of a run that takes seconds."""


@pytest.fixture
def pictures(tmp_path):
    """A folder with 24 small PNG files of two classes."""
    for number in range(24):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (12, 9, 3), np.uint8)).save(path)
    return tmp_path / "pictures"


def run(command, *arguments):
    """Runs a command in this process and returns its exit code."""
    return commands.main(["trainer", command, *arguments])


def prepared(pictures, bucket):
    """Uploads pictures, prepares them as a dataset in the bucket, and returns the URL of the set."""
    (locate(bucket) / "pictures").upload(
        pictures, [path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png")]
    )
    flags = [
        f"--source={bucket}/pictures",
        f"--out={bucket}/set",
        "--image_size=8",
        "--num_workers=1",
        "--shard_mib=0.001",
    ]
    assert run("prepare", *flags) == 0
    return f"{bucket}/set"


def train(data, job_dir, *flags):
    """Trains on a dataset with tiny networks and returns the exit code."""
    return run("train", *TINY, f"--dataset={data}", f"--job_dir={job_dir}", *flags)


def files(folder):
    """Returns all files below a folder, by name."""
    return {entry.name: entry for entry in locate(folder).entries()}


def state_of(job_dir, step):
    """Returns the SHA-256 of the state in the checkpoint of a step."""
    return json.loads((locate(job_dir) / f"checkpoints/step-{step:08d}/{MANIFEST}").read_bytes())["state_sha256"]
