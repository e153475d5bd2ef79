"""A bounded run of `benchmarks.fuzz`: no exception but `TrainerError`, no hang, and bounded memory."""

import pytest

from benchmarks import fuzz
from benchmarks.fuzz_targets import Target, make_targets
from trainer.errors import DataError

TOTAL_SECS = 60.0
NAMES = (
    *(
        "images PNG",
        "images JPEG",
        "images WEBP",
        "images AVIF",
        "images BMP",
        "images GIF",
        "images TIFF",
        "images PPM",
    ),
    *("sources x.zip", "sources x.tar", "sources x.tar.gz", "sources x.csv", "sources x.npz", "sources x.npy"),
    *("sources x.h5", "sources x.parquet", "sources x.tfrecord", "sources x.tfrecord.gz", "sources examples"),
    *("labels dataset.json", "labels metadata.csv", "labels metadata.jsonl"),
    *(
        "sources x-idx3-ubyte",
        "sources x-idx3-ubyte.gz",
        "dataset.json",
        "config.json",
        "MANIFEST.json",
        "metrics.jsonl",
        "job files",
    ),
    *("trials.json", "environment TF_CONFIG", "environment CLUSTER_SPEC", "environment AIP_MODEL_DIR"),
    *("environment AIP_CHECKPOINT_DIR", "environment AIP_TENSORBOARD_LOG_DIR", "environment CLOUD_ML_TRIAL_ID"),
    *("environment CLOUD_ML_HP_METRIC_FILE", "shards"),
)


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    return {target.name: target for target in make_targets(tmp_path_factory.mktemp("fuzz"))}


def test_every_target_is_tested(targets):
    assert sorted(targets) == sorted(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_damaged_inputs_are_accepted_or_refused(name, targets):
    for seed in targets[name].seeds:
        if name != "shards" or seed is not targets[name].seeds[-1]:  # a bomb
            targets[name].read(seed)
    result = fuzz.run(targets[name], TOTAL_SECS / len(NAMES))
    assert {description: (count, content[:200]) for description, (count, content) in result.failures.items()} == {}
    assert result.num_refused > 0 or name.startswith(("environment", "metrics.jsonl"))


class TwoLinesError(DataError):
    def __str__(self):
        return "two\nlines"


def test_failures_are_found(monkeypatch):
    def read(content):
        if b"\0" in content:
            raise KeyError("key")
        if b"[" in content:
            raise TwoLinesError
        if content == b"slow":
            while True:
                pass
        raise DataError("refused")

    monkeypatch.setattr(fuzz, "MAX_SECS", 0.2)
    result = fuzz.run(Target("broken", [b"slow", b"seed"], read), 2.0)
    assert result.num_refused and any("KeyError" in description for description in result.failures)
    assert len(result.failures) == 3
