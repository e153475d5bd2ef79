"""Runs on images of any kind are evaluated: suite, real images, statistics, weights, and the end at a collapse."""

import hashlib
import json
import pathlib
import re

import numpy as np
import pytest
from bucket_runs import run
from hostile import tree
from PIL import Image
from refusals import check_command_refusal

from benchmarks.inception_graph import InceptionGraph, random_constants
from trainer import __main__ as commands, metrics, task
from trainer.config import TrainConfig
from trainer.data.tfrecord_writer import write_prepared
from trainer.metrics import inception_weights, real_statistics
from trainer.metrics.image_metrics import ImageMetrics
from trainer.training import restore
from trainer.training.distributed import strategy
from trainer.training.metric_suite import statistics_folders

FLAGS = [
    "--recipe=vanilla",
    '--architecture_options={"generator_units": [16], "discriminator_units": [16]}',
    *("--latent_dim=8", "--global_batch_size=4", "--jit_compile=off", "--strategy=one_device", "--noexport_model"),
    *("--steps=2", "--steps_per_execution=1", "--sample_every_steps=0", "--num_metric_samples=20"),
]
TEXTS = {"name": "photos", "source": "", "license": "", "attribution": ""}


class Colors:
    """An extractor whose features are the mean colors of an image."""

    name, frechet_name, feature_size, sha256 = "photos", "frechet", 3, "a1" * 32

    def __call__(self, images):
        import tensorflow as tf

        colors = tf.reduce_mean(tf.cast(images, tf.float32), axis=(1, 2))
        return colors, colors


@pytest.fixture(autouse=True)
def extractor(monkeypatch, tmp_path):
    """The extractor of the suite `photos`, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    colors = Colors()
    original = metrics.get_extractor

    def get(name, weights=None):
        return colors if name == "photos" else original(name, weights)

    monkeypatch.setattr(metrics, "get_extractor", get)
    return colors


@pytest.fixture
def num_computed(monkeypatch):
    """A list with one entry for each time that statistics of real images are computed."""
    computed, original = [], real_statistics._compute

    def counted(*arguments):
        computed.append(1)
        return original(*arguments)

    monkeypatch.setattr(real_statistics, "_compute", counted)
    return computed


def write(folder, num_images=24, num_shards=3):
    images = np.random.default_rng(0).integers(0, 256, (num_images, 8, 8, 3), np.uint8)
    write_prepared(folder, images, np.arange(num_images) % 2, list("ab"), num_shards=num_shards, **TEXTS)
    return folder


@pytest.fixture
def photos(tmp_path):
    return write(tmp_path / "photos")


def train(photos, job_dir, *flags):
    return run("train", *FLAGS, f"--dataset={photos}", f"--job_dir={job_dir}", *flags)


def config_of(job_dir):
    return json.loads((job_dir / "config.json").read_text())


def values_of(job_dir, name):
    """The values of a metric by step."""
    lines = [json.loads(line) for line in (job_dir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def test_a_run_on_photographs_is_evaluated_and_keeps_its_best_checkpoint(photos, tmp_path, extractor, num_computed):
    job_dir = tmp_path / "run"
    assert train(photos, job_dir, "--evaluate_every_steps=1", "--max_to_keep=1") == 0
    config = config_of(job_dir)
    assert (config["metrics"], config["num_metric_samples"]) == ("photos", 20)
    assert config["fingerprints"][0]["photos_weights"] == extractor.sha256
    values = values_of(job_dir, "metric/frechet_photos_20")
    assert values.keys() == {0, 1, 2}
    best = min((step for step in values if step), key=values.__getitem__)
    assert (job_dir / f"checkpoints/step-{best:08d}").is_dir()
    assert len(num_computed) == 1


@pytest.mark.slow
def test_statistics_are_computed_once_for_all_runs_on_the_same_images(photos, tmp_path, num_computed):
    before = tree(photos)
    assert train(photos, tmp_path / "first") == 0
    (file,) = (photos / "statistics").iterdir()
    assert train(photos, tmp_path / "second", "--num_chunks=2", "--seed=5") == 0
    assert train(photos, tmp_path / "third", "--balance_classes") == 0
    assert len(num_computed) == 1
    names = ["metric/frechet_photos_20", "metric/recall_photos_20"]
    first, second = ([values_of(tmp_path / run, name)[0] for name in names] for run in ("first", "second"))
    assert np.isfinite(first + second).all()
    assert train(photos, tmp_path / "classes", "--classes=a") == 0
    assert train(photos, tmp_path / "padded", "--padding=1") == 0
    assert train(photos, tmp_path / "count", "--num_metric_samples=21") == 0
    assert len(num_computed) == 4 and len(list((photos / "statistics").iterdir())) == 4
    assert {path: content for path, content in tree(photos).items() if path in before} == before
    assert run("inspect", f"--dataset={photos}", "--verify") == 0
    file.write_bytes(b"damaged")
    assert train(photos, tmp_path / "again") == 0
    assert len(num_computed) == 5


def test_statistics_belong_beside_prepared_sets_or_in_the_cache(photos, tmp_path):
    cache = tmp_path / "cache/gan-trainer/statistics"
    beside = [str(photos / "statistics"), str(cache)]
    folders = {name: [str(cache)] for name in ("digits", "cifar10", "tinted:digits", "stacked:mnist")}
    folders |= dict.fromkeys((str(photos), f"inverted:{photos}"), beside)
    assert {name: [str(folder) for folder in statistics_folders(name)] for name in folders} == folders


@pytest.mark.slow
def test_other_weights_are_refused_before_anything_is_written(photos, tmp_path, extractor, capsys):
    job_dir = tmp_path / "run"
    assert train(photos, job_dir) == 0
    before, sha256 = tree(job_dir), extractor.sha256
    extractor.sha256 = "b2" * 32
    more = [*FLAGS, f"--dataset={photos}", f"--job_dir={job_dir}", "--steps=3"]
    check_command_refusal(
        task.main, ["task", *more], capsys, 1, "photos_weights", str(job_dir), "--allow_config_change"
    )
    assert tree(job_dir) == before
    extractor.sha256 = sha256
    assert train(photos, job_dir, "--steps=3") == 0
    extractor.sha256 = "b2" * 32
    assert train(photos, job_dir, "--steps=4", "--metrics=none") == 0
    assert train(photos, job_dir, "--steps=5", "--allow_config_change", "--metrics=photos") == 0
    assert config_of(job_dir)["fingerprints"][-1]["photos_weights"] == "b2" * 32


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--num_metric_samples=12"]])
def test_a_resumed_run_keeps_suite_and_number(photos, tmp_path, more):
    job_dir = tmp_path / "run"
    assert train(photos, job_dir, *more) == 0
    flags = [flag for flag in FLAGS if not flag.startswith("--num_metric_samples")]
    assert run("train", *flags, f"--dataset={photos}", f"--job_dir={job_dir}", "--steps=3") == 0
    number = 12 if more else 20
    assert config_of(job_dir)["num_metric_samples"] == number
    assert values_of(job_dir, f"metric/frechet_photos_{number}").keys() == {0, 2, 3}


def test_too_few_images_are_not_evaluated_unless_asked_for(tmp_path, capsys):
    few = write(tmp_path / "few", num_images=8, num_shards=1)
    assert train(few, tmp_path / "run") == 0
    assert config_of(tmp_path / "run")["metrics"] == "none"
    assert not values_of(tmp_path / "run", "metric/frechet_photos_20")
    argv = ["task", *FLAGS, f"--dataset={few}", f"--job_dir={tmp_path / 'other'}", "--metrics=photos"]
    check_command_refusal(task.main, argv, capsys, 1, "8", "12", "metrics=none")
    assert not (tmp_path / "other/config.json").exists()


@pytest.mark.parametrize(
    ("flags", "code", "mentions"),
    [
        (["--metrics=inception"], 2, ("Inception", "--inception_weights", "curl")),
        (["--metrics=inception", "--inception_weights=nowhere.pb"], 1, ("nowhere.pb",)),
        (["--inception_weights=."], 2, ("inception_weights",)),
    ],
)
def test_missing_weights_are_reported_before_data_and_devices(
    photos, tmp_path, capsys, monkeypatch, flags, code, mentions
):
    for shard in photos.glob("*.tfrecord"):
        shard.write_bytes(b"damaged")
    monkeypatch.setattr(strategy, "create", lambda *arguments: pytest.fail("the strategy was created"))
    argv = ["task", *FLAGS, f"--dataset={photos}", f"--job_dir={tmp_path / 'run'}", *flags]
    check_command_refusal(task.main, argv, capsys, code, *mentions)
    assert not (tmp_path / "run/config.json").exists()


@pytest.mark.parametrize("stored", [True, False])
def test_evaluate_reports_missing_weights_before_the_run_is_restored(tmp_path, capsys, monkeypatch, stored):
    config = TrainConfig(recipe="vanilla", steps=2, metrics="inception" if stored else "none", num_chunks=1)
    (tmp_path / "config.json").write_text(config.to_json())
    monkeypatch.setattr(restore, "restore", lambda *arguments: pytest.fail("the run was restored"))
    argv = ["trainer", "evaluate", f"--job_dir={tmp_path}", *([] if stored else ["--metrics=inception"])]
    check_command_refusal(commands.main, argv, capsys, 2, "Inception", "--inception_weights")


@pytest.mark.parametrize("cache", [None, "gs://bucket/cache", "s3://cache", "/dev/null"])
def test_runs_on_local_data_need_no_cache(cache, photos, tmp_path, monkeypatch):
    def no_home():
        raise RuntimeError("no home directory")

    if cache is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(pathlib.Path, "home", no_home)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
    assert train(photos, tmp_path / "run") == 0
    assert config_of(tmp_path / "run")["metrics"] == "photos"
    assert len(list((photos / "statistics").iterdir())) == 1


@pytest.mark.slow
def test_a_run_with_inception_weights_continues_with_those_in_the_cache(photos, tmp_path, monkeypatch, capsys):
    graphs = [
        InceptionGraph(random_constants(seed), divisor=16, image_size=139, num_classes=10).graph.SerializeToString()
        for seed in (0, 1)
    ]

    def publish(graph):
        digest = hashlib.md5(graph, usedforsecurity=False).hexdigest()
        monkeypatch.setattr(inception_weights, "PUBLISHED", inception_weights.PublishedFile(len(graph), digest, 0))

    publish(graphs[0])
    (tmp_path / "weights.pb").write_bytes(graphs[0])
    job_dir = tmp_path / "run"
    assert train(photos, job_dir, f"--inception_weights={tmp_path / 'weights.pb'}") == 0
    config = config_of(job_dir)
    assert (config["metrics"], config["num_metric_samples"]) == ("inception", 20)
    assert config["fingerprints"][0]["inception_weights"] == hashlib.sha256(graphs[0]).hexdigest()
    assert values_of(job_dir, "metric/fid_inception_20").keys() == {0, 2}
    assert train(photos, job_dir, "--steps=3") == 0
    assert values_of(job_dir, "metric/fid_inception_20").keys() == {0, 2, 3}
    assert train(photos, tmp_path / "auto") == 0
    assert config_of(tmp_path / "auto")["metrics"] == "inception"
    before = tree(job_dir)
    publish(graphs[1])
    (tmp_path / "others.pb").write_bytes(graphs[1])
    argv = ["task", *FLAGS, f"--dataset={photos}", f"--job_dir={job_dir}", "--steps=4"]
    argv += [f"--inception_weights={tmp_path / 'others.pb'}"]
    check_command_refusal(task.main, argv, capsys, 1, "inception_weights", "--allow_config_change")
    assert tree(job_dir) == before


def test_a_dry_run_shows_what_this_machine_chooses(photos, tmp_path, capsys):
    flags = [flag for flag in FLAGS if not flag.startswith("--num_metric_samples")]
    assert run("train", *flags, f"--dataset={photos}", "--dry_run") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["metrics"], printed["num_metric_samples"], printed["num_chunks"]) == ("photos", 5000, 1)
    few = write(tmp_path / "few", num_images=8, num_shards=1)
    assert run("train", *flags, f"--dataset={few}", "--dry_run") == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == "none"


@pytest.fixture
def collapse(monkeypatch):
    """Makes the generator collapse after the second step."""
    values = {0: 9.0, 1: 3.0, 2: 2.0, 3: 8.0, 4: 8.0}

    def measure(self, model):
        return {"frechet_photos_20": values.get(int(model.step), 8.0), "recall_photos_20": 0.5}

    monkeypatch.setattr(ImageMetrics, "measure", measure)


@pytest.mark.slow
def test_a_run_that_collapses_ends_with_its_best_model(photos, tmp_path, collapse, capsys):
    job_dir = tmp_path / "run"
    flags = ["--steps=7", "--evaluate_every_steps=1", "--stop_on_collapse", "--export_model"]
    assert train(photos, job_dir, *flags) == 0
    assert max(values_of(job_dir, "metric/frechet_photos_20")) == 4
    about = json.loads((job_dir / "model/assets.extra/run.json").read_text())
    assert about["step"] == 2
    before = tree(job_dir)
    capsys.readouterr()
    assert train(photos, job_dir, *flags) == 0
    printed = "".join(capsys.readouterr())
    assert "collapse" in printed and "--nostop_on_collapse" in printed and "Traceback" not in printed
    assert tree(job_dir) == before
    assert train(photos, job_dir, *flags, "--nostop_on_collapse") == 0
    assert max(values_of(job_dir, "metric/frechet_photos_20")) == 7


@pytest.mark.slow
def test_a_collapse_alone_does_not_end_a_run(photos, tmp_path, collapse):
    assert train(photos, tmp_path / "run", "--steps=6", "--evaluate_every_steps=1") == 0
    assert values_of(tmp_path / "run", "event/collapse").keys() == {4}
    assert max(values_of(tmp_path / "run", "metric/frechet_photos_20")) == 6


# The command `prepare`.


@pytest.fixture
def pictures(tmp_path):
    """A folder with 24 small PNG files."""
    (tmp_path / "pictures").mkdir()
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 255, (12, 9, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"pictures/{number}.png")
    return tmp_path / "pictures"


def prepare(pictures, out, *flags):
    return run("prepare", f"--source={pictures}", f"--out={out}", "--image_size=8", "--num_workers=1", *flags)


@pytest.mark.parametrize("flag", ["--statistics", "--statistics=photos", "--statistics=true"])
def test_prepare_computes_statistics_that_runs_use(pictures, tmp_path, num_computed, flag):
    assert prepare(pictures, tmp_path / "set", flag, "--num_metric_samples=20") == 0
    (file,) = (tmp_path / "set/statistics").iterdir()
    assert re.fullmatch(r"photos_[0-9a-f]{64}\.npz", file.name) and len(num_computed) == 1
    assert train(tmp_path / "set", tmp_path / "run") == 0
    assert len(num_computed) == 1


@pytest.mark.parametrize("flags", [[], ["--nostatistics"], ["--statistics", "--dry_run"]])
def test_prepare_computes_no_statistics_unless_asked_for(pictures, tmp_path, num_computed, flags):
    assert prepare(pictures, tmp_path / "set", *flags) == 0
    assert not num_computed and not (tmp_path / "set/statistics").exists()


def test_statistics_of_too_few_images_are_refused_and_the_set_is_kept(pictures, tmp_path, capsys):
    for number in range(11, 24):
        (pictures / f"{number}.png").unlink()
    argv = ["trainer", "prepare", f"--source={pictures}", f"--out={tmp_path / 'set'}", "--image_size=8", "--statistics"]
    assert commands.main([*argv, "--num_workers=1"]) == 1
    error = capsys.readouterr().err
    assert all(mention in error for mention in (str(tmp_path / "set"), "11", "12", "--statistics")), error
    assert run("inspect", f"--dataset={tmp_path / 'set'}", "--verify") == 0


@pytest.mark.parametrize(
    ("flags", "mentions"),
    [
        (["--statistics=digits"], ("statistics", "digits", "photos")),
        (["--statistics=inception"], ("Inception", "--inception_weights")),
        (["--statistics", "--inception_weights=."], ("inception_weights",)),
        (["--statistics", "--num_metric_samples=3"], ("num_metric_samples=3", "12")),
        (["--statistics", "--source_b=others"], ("statistics", "source_b")),
    ],
)
def test_statistics_that_cannot_be_computed_are_refused_before_images_are_read(
    pictures, tmp_path, capsys, flags, mentions
):
    argv = ["trainer", "prepare", f"--source={pictures}", f"--out={tmp_path / 'set'}", "--image_size=8", *flags]
    check_command_refusal(commands.main, argv, capsys, 2, *mentions)
    assert not (tmp_path / "set").exists()
