"""A run that begins with the weights of another one: which weights, what is recorded, and what is refused."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from bucket_runs import TINY, run
from fixtures.make import TRAIN_FLAGS
from refusals import check_command_refusal, check_refusal

from trainer import __main__ as commands
from trainer.data.tfrecord_writer import write_prepared
from trainer.errors import CheckpointError, ConfigError
from trainer.storage import RunDirectory, locate
from trainer.training import transfer
from trainer.training.checkpoint.manifest import MANIFEST
from trainer.training.checkpoint.store import CheckpointStore
from trainer.training.stored_run import stored_run

OLD_RUN = Path(__file__).parents[1] / "fixtures/0.1.0/run"
FLAGS = [*TINY, "--strategy=one_device", "--ema_half_life_images=8"]


def write_set(folder, size=8, channels=3, num_classes=2, seed=0):
    """Writes a prepared dataset of 24 images."""
    images = np.random.default_rng(seed).integers(0, 256, (24, size, size, channels), np.uint8)
    labels = (np.arange(24) % num_classes).astype(np.int32)
    texts = {"name": "set", "source": "", "license": "", "attribution": ""}
    write_prepared(folder, images, labels, [f"class{i}" for i in range(num_classes)], num_shards=1, **texts)


def train(data, job_dir, *flags):
    return run("train", *FLAGS, f"--dataset={data}", f"--job_dir={job_dir}", *flags)


def tensors(job_dir, step):
    """The tensors in a checkpoint, by name."""
    reader = tf.train.load_checkpoint(str(Path(job_dir) / f"checkpoints/step-{step:08d}/state"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def read(path):
    return json.loads(Path(path).read_text())


def state_of(job_dir, step):
    return read(Path(job_dir) / f"checkpoints/step-{step:08d}" / MANIFEST)["state_sha256"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with datasets, and a run `source` with checkpoints of the steps 4 and 8."""
    folder = tmp_path_factory.mktemp("transfer")
    write_set(folder / "a")
    write_set(folder / "b", seed=1)
    write_set(folder / "large", size=12)
    write_set(folder / "gray", channels=1)
    write_set(folder / "digits", size=28, channels=1, num_classes=3)
    assert train(folder / "a", folder / "source", "--steps=8") == 0
    return folder


@pytest.fixture(scope="module")
def begun(work):
    """A run of four steps that began with the weights of a run that no longer exists, and its state after eight."""
    source, job_dir = shutil.copytree(work / "source", work / "lost"), work / "begun"
    flags = [f"--init_from={source}@4", "--freeze_discriminator_layers=1", "--seed=3"]
    assert train(work / "b", work / "undisturbed", *flags, "--steps=8") == 0
    assert train(work / "b", job_dir, *flags, "--steps=4") == 0
    shutil.rmtree(source)
    return job_dir, state_of(work / "undisturbed", 8)


def test_a_run_begins_with_the_weights_of_another_one_and_records_which(work, tmp_path):
    job_dir, rates = tmp_path / "new", ["--generator_learning_rate=0", "--discriminator_learning_rate=0"]
    flags = [f"--init_from={work}/source/@0004", "--seed=3", *rates]
    assert train(work / "b", job_dir, *flags, "--steps=1") == 0
    source, new = tensors(work / "source", 4), tensors(job_dir, 1)
    for name, value in new.items():
        part, _, weight = name.partition("/")
        if part.endswith(("generator", "discriminator")):
            origin = name if part == "discriminator" else f"ema_generator/{weight}"
            np.testing.assert_array_equal(value, source[origin], err_msg=name)
    assert int(new["generator_optimizer/000"]) == 1
    assert any((source[f"ema_{name}"] != source[name]).any() for name in source if name.startswith("generator/"))
    config, sha256 = read(job_dir / "config.json"), state_of(work / "source", 4)
    assert config["init_from"] == f"{work}/source@4"
    assert [revision["init_from"] for revision in config["fingerprints"]] == [sha256]
    assert read(job_dir / "checkpoints/step-00000001" / MANIFEST)["fingerprints"]["init_from"] == sha256


@pytest.mark.parametrize("source", ["{}/lost@4", "{}/lost", None])
def test_a_run_with_a_checkpoint_resumes_exactly_without_the_other_run(work, begun, tmp_path, source):
    job_dir = shutil.copytree(begun[0], tmp_path / "run")
    flags = ["--freeze_discriminator_layers=1", "--seed=3", "--steps=8"]
    flags += [] if source is None else [f"--init_from={source.format(work)}"]
    assert train(work / "b", job_dir, *flags) == 0
    assert state_of(job_dir, 8) == begun[1]
    assert read(job_dir / "config.json")["init_from"] == f"{work}/lost@4"
    assert len(read(job_dir / "config.json")["fingerprints"]) == 1


@pytest.mark.parametrize(
    ("flags", "mentions"),
    [
        (["--init_from={}/source@4"], ("source@4", "lost@4")),
        (["--init_from={}/lost@8"], ("lost@8", "lost@4")),
        (["--init_from={}/source@4", "--allow_config_change"], ("source@4", "lost@4")),
        (["--freeze_discriminator_layers=0"], ("freeze_discriminator_layers=1", "freeze_discriminator_layers=0")),
    ],
)
def test_a_run_with_a_checkpoint_keeps_its_source_and_its_frozen_layers(work, begun, tmp_path, capsys, flags, mentions):
    job_dir = shutil.copytree(begun[0], tmp_path / "run")
    flags = ["--freeze_discriminator_layers=1", "--seed=3", "--steps=8", *(flag.format(work) for flag in flags)]
    argv = ["trainer", "train", *FLAGS, f"--dataset={work / 'b'}", f"--job_dir={job_dir}", *flags]
    check_command_refusal(commands.main, argv, capsys, 1, *mentions)
    assert state_of(job_dir, 4) == state_of(begun[0], 4)


def test_the_advice_about_another_source_does_not_lead_into_a_second_refusal(work, begun, tmp_path, capsys):
    job_dir, messages = shutil.copytree(begun[0], tmp_path / "run"), []
    argv = ["trainer", "train", *FLAGS, f"--dataset={work / 'b'}", f"--job_dir={job_dir}", f"--init_from={work}/source"]
    for flags in ([], ["--allow_config_change"]):
        assert commands.main([*argv, "--seed=3", "--steps=8", *flags]) == 1
        messages.append(capsys.readouterr().err)
    assert messages[0] == messages[1]


@pytest.fixture
def killed(work, begun, tmp_path):
    """The directory of a run that was killed before its first checkpoint, and its flags. The other run is back."""
    source, job_dir = shutil.copytree(work / "source", work / "lost"), shutil.copytree(begun[0], tmp_path / "run")
    shutil.rmtree(job_dir / "checkpoints")
    argv = ["trainer", "train", *FLAGS, f"--dataset={work / 'b'}", f"--job_dir={job_dir}", "--seed=3", "--steps=8"]
    yield job_dir, [*argv, "--freeze_discriminator_layers=1", f"--init_from={source}"]
    shutil.rmtree(source)


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again_with_the_same_weights(begun, killed):
    """The other run has a newer checkpoint, which would be its best one now."""
    job_dir, argv = killed
    assert commands.main(argv) == 0
    assert state_of(job_dir, 8) == begun[1]


def test_a_source_that_has_changed_since_the_run_was_started_is_refused(killed, capsys):
    job_dir, argv = killed
    source = Path(argv[-1].partition("=")[2])
    step_4 = source / "checkpoints/step-00000004"
    with RunDirectory(source).open() as directory:
        store = CheckpointStore(directory.checkpoints, history=stored_run(directory).history, max_to_keep=9)
    shutil.rmtree(step_4)
    store.save({name: keras.Variable(value) for name, value in tensors(source, 8).items()}, 4)
    store.wait()
    check_command_refusal(commands.main, argv, capsys, 1, "lost@4", state_of(source, 8))
    shutil.rmtree(step_4)
    check_command_refusal(commands.main, argv, capsys, 1, "lost@4", "4", "8")
    assert not list((job_dir).glob("checkpoints/step-*"))


def test_a_run_with_a_metric_suite_of_another_module_is_a_source(work, tmp_path):
    source = shutil.copytree(work / "source", tmp_path / "source")
    config = read(source / "config.json") | {"metrics": "brightness"}
    (source / "config.json").write_text(json.dumps(config))
    assert transfer.read(f"{source}@4").source == f"{source}@4"
    assert transfer.read(f"{source}@latest").source == f"{source}@8"
    check_refusal(lambda: transfer.read(source), ConfigError, str(source), "brightness", "@")


def test_the_best_checkpoint_is_the_default(work, tmp_path):
    source = shutil.copytree(work / "source", tmp_path / "source")
    config = read(source / "config.json") | {"metrics": "photos", "num_metric_samples": 100}
    (source / "config.json").write_text(json.dumps(config))
    metric = "metric/frechet_photos_100"
    with RunDirectory(source).open() as directory:
        store = CheckpointStore(directory.checkpoints, best=metric, history=stored_run(directory).history)
    store.amend(4, {metric: 1.0}, {}, 4)
    shutil.copytree(work / "source/checkpoints/step-00000008", source / "checkpoints/step-00000008", dirs_exist_ok=True)
    store.amend(8, {metric: 2.0}, {}, 8)
    sources = [transfer.read(f"{source}{suffix}").source for suffix in ("", "@best", "@latest", "@8")]
    assert [Path(name).name for name in sources] == ["source@4", "source@4", "source@8", "source@8"]


MISFITS = [
    ("b", ["--init_from={0}/new"], 2, ("init_from", "job_dir")),
    ("b", ["--freeze_discriminator_layers=1"], 2, ("freeze_discriminator_layers=1", "init_from")),
    ("b", ["--init_from={0}/source", "--freeze_discriminator_layers=2"], 2, ("freeze_discriminator_layers=2", "1")),
    ("b", ["--init_from={0}/source", "--model=conditional"], 2, ("model='gan'", "model='conditional'")),
    ("b", ["--init_from={0}/source", "--architecture=dcgan", "--architecture_options={{}}"], 2, ("'mlp'", "'dcgan'")),
    ("b", ["--init_from={0}/source", "--image_range=0..1"], 2, ("image_range", "0..1", "-1..1")),
    ("b", ["--init_from={0}/source", "--latent_distribution=uniform"], 2, ("latent_distribution", "uniform")),
    ("b", ["--init_from={0}/source", "--latent_dim=9"], 1, ("latent_dim=9", "(9, 16)")),
    ("large", ["--init_from={0}/source"], 1, ("8×8×3", "12×12×3", "generator")),
    ("gray", ["--init_from={0}/source"], 1, ("8×8×3", "8×8×1")),
    ("b", ["--init_from={0}/nowhere"], 1, ("nowhere",)),
    ("b", ["--init_from={0}/a"], 1, ("/a", "config.json")),
    ("b", ["--init_from={0}/source@5"], 1, ("5", "4", "8")),
    ("b", ["--init_from={0}/source@now"], 1, ("source@now", "@STEP")),
    ("b", ["--init_from={0}/damaged"], 1, ("damaged", "state.data")),
    ("b", ["--init_from=~/nowhere"], 1, ("/nowhere",)),
    ("b", ["--init_from=s3://bucket/run"], 2, ("s3://bucket/run",)),
    ("b", ["--init_from=gs://bucket/../run"], 2, ("gs://bucket/../run",)),
    ("b", ["--init_from="], 2, ("empty",)),
]


@pytest.mark.parametrize(("data", "flags", "code", "mentions"), MISFITS, ids=lambda value: str(value)[:60])
def test_a_source_that_does_not_fit_ends_the_command(work, capsys, data, flags, code, mentions):
    if not (work / "damaged").exists():
        shutil.copytree(work / "source/checkpoints/step-00000004", work / "damaged/step-00000004")
        next((work / "damaged").glob("*/state.data*")).write_bytes(b"damaged")
    argv = ["trainer", "train", *FLAGS, "--steps=1", f"--dataset={work / data}", f"--job_dir={work / 'new'}"]
    check_command_refusal(commands.main, [*argv, *(flag.format(work) for flag in flags)], capsys, code, *mentions)
    assert not (work / "new/config.json").exists()


def test_a_dry_run_shows_the_checkpoint_and_writes_nothing(work, capsys):
    capsys.readouterr()
    flags = ["--dry_run", "--steps=1", f"--init_from={work}/source", "--freeze_discriminator_layers=1"]
    assert train(work / "b", work / "planned", *flags) == 0
    config = json.loads(capsys.readouterr().out)
    assert (config["init_from"], config["freeze_discriminator_layers"]) == (f"{work}/source@8", 1)
    assert not (work / "planned").exists()


@pytest.mark.slow
def test_a_run_of_version_0_1_0_is_a_source(work, tmp_path, capsys):
    flags = [*TRAIN_FLAGS, "--steps=1", f"--init_from={OLD_RUN}", "--seed=5"]
    rates = ["--generator_learning_rate=0", "--discriminator_learning_rate=0"]
    assert run("train", *flags, *rates, f"--job_dir={tmp_path}/new") == 0
    old, new = tensors(OLD_RUN, 4), tensors(tmp_path / "new", 1)
    kernels = [name for name in new if name.startswith("discriminator/") and "moving" not in name]
    assert kernels and all((old[name] == new[name]).all() for name in kernels)
    other = ["trainer", "train", *flags, f"--dataset={work / 'digits'}", f"--job_dir={tmp_path}/other"]
    check_command_refusal(commands.main, other, capsys, 1, "10 classes", " 3")


def test_a_run_in_a_bucket_is_a_source_whose_code_is_not_imported(work, bucket, tmp_path):
    copy = shutil.copytree(work / "source", tmp_path / "copy")
    config = read(copy / "config.json") | {"recipe": "no_such_module:recipe"}
    (copy / "config.json").write_text(json.dumps(config))
    locate(f"{bucket}/source").upload(copy, [entry.name for entry in locate(copy).entries()])
    weights = transfer.read(f"{bucket}/source@4")
    assert (weights.source, weights.sha256) == (f"{bucket}/source@4", state_of(work / "source", 4))
    assert transfer.read(f"{bucket}/source/checkpoints").source == f"{bucket}/source/checkpoints@8"
    check_refusal(lambda: transfer.read(f"{bucket}/other"), CheckpointError, f"{bucket}/other")
    check_refusal(lambda: transfer.read(f"{bucket}/source@6"), CheckpointError, "6", "4", "8")
    own = tensors(copy, 4)
    for name, values in weights.networks.items():
        for weight, value in values.items():
            origin = f"ema_{name}/{weight}" if name == "generator" else f"{name}/{weight}"
            np.testing.assert_array_equal(value, own[origin])
