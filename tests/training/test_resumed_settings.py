"""A setting that may change when a run resumes takes effect, or the change is refused. None is ignored."""

import dataclasses
import json
import shutil

import keras
import pytest
from bucket_runs import run
from conftest import TINY_MLP, tiny_config, uncompiled_gan, values_of
from hostile import tree
from refusals import check_refusal

from trainer.callbacks import Checkpoint
from trainer.config import TrainConfig
from trainer.data.tfrecord_writer import write_prepared
from trainer.errors import CheckpointError
from trainer.models import from_config
from trainer.training.checkpoint.manifest import MANIFEST
from trainer.training.checkpoint.run_history import RunHistory
from trainer.training.checkpoint.store import CheckpointStore

# Through the API: the state that a checkpoint restores.


def gan_with(optimizer, **settings):
    gan = uncompiled_gan()
    gan.compile(optimizer=optimizer, ema_half_life_images=100.0, **settings)
    return gan


def begin(gan, folder, fingerprints=None):
    """Restores the newest checkpoint as `fit` does, and returns the callback."""
    checkpoint = Checkpoint(folder, every_steps=0, fingerprints=fingerprints)
    checkpoint.set_model(gan)
    checkpoint.restore(gan)
    return checkpoint


def end(checkpoint, num_steps=1):
    """Commits a checkpoint of a later step."""
    checkpoint.model.step += num_steps
    checkpoint.on_train_end()


def rates(gan):
    return [round(float(optimizer.learning_rate.numpy()), 9) for optimizer in gan.optimizers.values()]


def adams(generator_rate, discriminator_rate):
    return {
        "generator": keras.optimizers.Adam(generator_rate),
        "discriminator": keras.optimizers.RMSprop(discriminator_rate),
    }


@pytest.mark.parametrize("fingerprints", [None, {"data": "a"}])
def test_checkpoints_of_another_seed_are_refused(fingerprints, tmp_path):
    end(begin(gan_with("adam", seed=3), tmp_path, fingerprints), 4)
    before, other = tree(tmp_path), gan_with("adam", seed=4)
    check_refusal(lambda: begin(other, tmp_path, fingerprints), CheckpointError, "step-00000004", "seed")
    other.step = 4  # as many steps as the checkpoint
    check_refusal(lambda: begin(other, tmp_path, fingerprints), CheckpointError, "step-00000004", "seed")
    assert tree(tmp_path) == before
    assert begin(gan_with("adam", seed=3), tmp_path, fingerprints).model.step == 4


def test_of_checkpoints_of_two_seeds_each_run_takes_its_own(tmp_path):
    for seed, step in ((3, 4), (4, 6)):
        end(begin(gan_with("adam", seed=seed), tmp_path / str(seed)), step)
    shutil.copytree(tmp_path / "4", tmp_path / "3", dirs_exist_ok=True)
    assert [begin(gan_with("adam", seed=seed), tmp_path / "3").model.step for seed in (3, 4)] == [4, 6]


def test_a_checkpoint_without_a_seed_is_taken(tmp_path):
    gan = gan_with("adam", seed=3)
    store = CheckpointStore(tmp_path, history=RunHistory.start({"config": "a"}))
    store.save(gan.state, 4)
    store.wait()
    assert begin(gan_with("adam", seed=4), tmp_path).model.step == 4


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (keras.optimizers.Adam(1e-3), keras.optimizers.Adam(1e-5), [1e-5, 1e-5]),
        (keras.optimizers.Adam(1e-3), keras.optimizers.Adam(1e-3), [5e-4, 1e-3]),
        (keras.optimizers.Adam(1e-3), keras.optimizers.Adam(5e-4), [5e-4, 5e-4]),
        (keras.optimizers.Adam(1e-3), keras.optimizers.Adam(0.0), [0.0, 0.0]),
        (keras.optimizers.Adam(1e-3), keras.optimizers.AdamW(1e-5, weight_decay=0.1), [1e-5, 1e-5]),
        (keras.optimizers.RMSprop(1e-3), keras.optimizers.RMSprop(1e-4), [1e-4, 1e-4]),
        (keras.optimizers.SGD(1e-3, momentum=0.9), keras.optimizers.SGD(1e-4, momentum=0.5), [1e-4, 1e-4]),
        (adams(1e-3, 2e-3), adams(1e-3, 1e-4), [5e-4, 1e-4]),
        (adams(1e-3, 2e-3), adams(1e-4, 2e-3), [1e-4, 2e-3]),
    ],
)
def test_a_changed_learning_rate_is_used_and_an_equal_one_restored(tmp_path, before, after, expected):
    first = gan_with(before)
    checkpoint = begin(first, tmp_path)
    first.optimizers["generator"].learning_rate = 5e-4  # as ReduceLROnPlateau sets it
    end(checkpoint)
    names = list(first.optimizers)
    second = gan_with(after)
    checkpoint = begin(second, tmp_path)
    assert dict(zip(names, rates(second), strict=True)) == dict(
        zip(("generator", "discriminator"), expected, strict=True)
    )
    end(checkpoint)
    third = gan_with(after)
    begin(third, tmp_path)
    assert rates(third) == rates(second) and third.step == 2


def test_a_learning_rate_that_is_set_before_or_between_fits_is_used(tmp_path):
    first = gan_with(keras.optimizers.Adam(1e-3))
    end(begin(first, tmp_path))
    second = gan_with(keras.optimizers.Adam(1e-3))
    second.optimizers["generator"].learning_rate = 1e-5
    checkpoint = begin(second, tmp_path)
    assert sorted(rates(second)) == [1e-5, 1e-3]
    end(checkpoint)
    second.optimizers["generator"].learning_rate = 2e-5
    end(begin(second, tmp_path))
    assert sorted(rates(second)) == [2e-5, 1e-3]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (keras.optimizers.Adam(), keras.optimizers.RMSprop()),
        (keras.optimizers.RMSprop(), keras.optimizers.Adam()),
        (keras.optimizers.RMSprop(), keras.optimizers.SGD(momentum=0.9)),
        (keras.optimizers.SGD(momentum=0.9), keras.optimizers.Lion()),
        (keras.optimizers.Adam(), keras.optimizers.Adamax()),
        (keras.optimizers.Adam(), keras.optimizers.Adam(amsgrad=True)),
        (keras.optimizers.SGD(momentum=0.9), keras.optimizers.SGD()),
        (keras.optimizers.Adam(), keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 10))),
        (keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 10)), keras.optimizers.Adam()),
        (adams(1e-3, 1e-3), keras.optimizers.Adam()),
    ],
)
def test_another_optimizer_is_refused_as_such(tmp_path, before, after):
    end(begin(gan_with(before), tmp_path))
    gan = gan_with(after)
    values = {name: value.tolist() for name, value in values_of(gan).items()}
    check_refusal(lambda: begin(gan, tmp_path), CheckpointError, "optimizer of the ", "step")
    assert {name: value.tolist() for name, value in values_of(gan).items()} == values


@pytest.mark.parametrize(
    ("before", "after", "mention"),
    [
        ({}, {"latent_dim": 9}, "generator"),
        ({}, {"architecture_options": TINY_MLP | {"discriminator_units": [8]}}, "the discriminator"),
        ({}, {"ema_half_life_images": 100.0}, "the EMA of the generator"),
        ({}, {"augment": "diffaugment", "augment_probability": None}, "augmenter"),
        ({"ema_half_life_images": 100.0}, {}, None),
        ({"augment": "diffaugment", "augment_probability": None}, {"augment": "diffaugment"}, None),
    ],
)
def test_the_part_that_differs_is_named(tmp_path, before, after, mention):
    def make(**changes):
        return from_config(tiny_config(**changes), (28, 28, 1), 10)

    end(begin(make(**before), tmp_path))
    if mention is None:
        begin(make(**after), tmp_path)
    else:
        check_refusal(lambda: begin(make(**after), tmp_path), CheckpointError, mention, "step-00000001")


# Through the command: every field of the config.

FLAGS = {
    "recipe": "vanilla",
    "dataset": "digits",
    "metrics": "none",
    "noexport_model": None,
    "jit_compile": "off",
    "precision": "float32",
    "strategy": "one_device",
    "architecture_options": {"generator_units": [16], "discriminator_units": [16], "dropout": 0.3},
    "latent_dim": 8,
    "loss": "non_saturating",
    "optimizer": "adam",
    "update_order": "alternating",
    "global_batch_size": 4,
    "ema_half_life_images": 20,
    "steps_per_execution": 1,
    "checkpoint_every_steps": 2,
    "sample_every_steps": 2,
}
SCHEDULED = {
    "schedule_images": 64,
    "penalties": "r1",
    "augment": "diffaugment",
    "augment_probability": 0.5,
    "learning_rate_decay": "linear",
    "learning_rate_end": 0.1,
    "learning_rate_decay_begin": 0.01,
    "beta_2_end": 0.9,
    "penalty_weight_end": 1.0,
    "augment_probability_end": 0.1,
    "ema_schedule": "cosine",
}
CHANGES_SCHEDULED = {"schedule_images", "penalty_weight", "penalty_every_steps", "augment_probability", *SCHEDULED} - {
    *("penalties", "augment", "learning_rate_decay")
}
"""The fields that have an effect in the scheduled run only."""
BASES = {"constant": {}, "scheduled": SCHEDULED}

REFUSED = {
    "size": "small",
    "dataset_b": "digits",
    "padding": 2,
    "num_chunks": 2,
    "model": "conditional",
    "model_options": {"num_codes": 3},
    "architecture": "dcgan",
    "latent_dim": 9,
    "optimizer": "rmsprop",
    "learning_rate_decay": "cosine",
    "resume": "never",
    "init_from": "nowhere@2",
    "freeze_discriminator_layers": 1,
    "inception_weights": "nowhere/weights.pb",  # of another suite
    "num_virtual_devices": 2,  # of the strategy one_device
}
"""Another value of each field with which a run cannot resume."""

EFFECTIVE = {
    "dataset": "inverted:digits",
    "classes": "0,1,2",
    "recipe": "gan_rmsprop",  # with other defaults
    "balance_classes": True,
    "horizontal_flips": True,
    "image_range": "0..1",
    "architecture_options": FLAGS["architecture_options"] | {"dropout": 0.5},
    "latent_distribution": "uniform",
    "loss": "hinge",
    "update_order": "simultaneous",
    "discriminator_updates": "separate",
    "discriminator_repeats": 2,
    "generator_learning_rate": 1e-5,
    "discriminator_learning_rate": 1e-5,
    "learning_rate_end": 0.9,
    "learning_rate_decay_begin": 0.9,
    "beta_1": 0.1,
    "beta_2": 0.5,
    "beta_2_end": 0.5,
    "epsilon": 0.1,
    "schedule_images": 32,
    "penalties": "r1",
    "penalty_weight": 1.0,
    "penalty_weight_end": 5.0,
    "penalty_every_steps": 2,
    "augment": "diffaugment",
    "augment_probability": 1.0,
    "augment_probability_end": 0.9,
    "ema_half_life_images": 0.1,
    "ema_schedule": "early",
    "global_batch_size": 8,
    "accumulate_steps": 2,
    "seed": 1,
    "strategy": "mirrored",
    "jit_compile": "on",
    "precision": "bfloat16",
}
"""Another value of each field that changes the numbers of the next steps."""

SAME_NUMBERS = {
    "data_memory_mib": 100,
    "cache_mib": 1,
    "worker_timeout_secs": 5,
    "steps_per_execution": 3,
    "sample_every_steps": 3,
    "sample_every_epochs": 0.0024,  # 3 steps of 4 of 5,000 images
    "checkpoint_every_steps": 3,
    "checkpoint_every_epochs": 0.0024,
    "evaluate_every_steps": 3,
    "max_to_keep": 1,
    "max_weights": 10**6,
    "metrics": "digits",
    "num_metric_samples": 100,
    "inception_score": True,
    "stop_on_collapse": True,
    "track": "mlflow",
    "export_model": True,
}
"""Another value of each field that changes what a run writes or which devices it uses, and no number."""

EVALUATED = {
    "stop_on_collapse": {"metrics": "digits"},
    "evaluate_every_steps": {"metrics": "digits"},
    "num_metric_samples": {"metrics": "digits"},
    "inception_score": {"metrics": "photos", "num_metric_samples": 100},
}
"""Settings of the runs in which those fields have an effect."""

EXEMPT = {
    "job_dir": "names the run itself",
    "steps": "every resume in this module changes it",
    "epochs": "replaces steps",
    "allow_config_change": "every resume in this module has it",
}


def test_every_setting_is_classified():
    """A new setting belongs to one of the tables above."""
    tables = [REFUSED, EFFECTIVE, SAME_NUMBERS, EXEMPT]
    fields = [field.name for field in dataclasses.fields(TrainConfig)]
    assert sorted(name for table in tables for name in table) == sorted(fields)
    resumable = {field.name for field in dataclasses.fields(TrainConfig) if field.metadata["resumable"]}
    assert resumable - {"resume", "strategy", "num_virtual_devices", "inception_weights"} <= {*SAME_NUMBERS, *EXEMPT}


def train(job_dir, settings):
    flags = []
    for name, value in settings.items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        flags.append(f"--{name}" if value is None or value is True else f"--{name}={text}")
    return run("train", *flags, f"--job_dir={job_dir}")


def numbers_of(job_dir, step=4):
    """The SHA-256 of all state after some steps."""
    return json.loads((job_dir / f"checkpoints/step-{step:08d}" / MANIFEST).read_text())["state_sha256"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Runs of two steps, and the numbers of the same runs after four steps."""
    runs = {}
    for name, changes in BASES.items():
        job_dir = tmp_path_factory.mktemp("bases") / "run"
        assert train(job_dir, FLAGS | changes | {"steps": 2}) == 0
        reference = shutil.copytree(job_dir, job_dir.with_name("reference"))
        assert train(reference, FLAGS | changes | {"steps": 4}) == 0
        runs[name] = job_dir, numbers_of(reference)
    return runs


def resume(bases, folder, name, value):
    """Resumes a run with another value. Returns the exit code, the directory, and the numbers without the change."""
    base = "scheduled" if name in CHANGES_SCHEDULED else "constant"
    job_dir, reference = bases[base]
    job_dir = shutil.copytree(job_dir, folder / "run")
    settings = FLAGS | BASES[base] | {name: value}
    if name == "export_model":
        del settings["noexport_model"]
    if name.endswith("_epochs"):
        settings.pop(name.replace("epochs", "steps"), None)
    settings |= EVALUATED.get(name, {})
    return train(job_dir, settings | {"steps": 4, "allow_config_change": True}), job_dir, reference


def test_another_spelling_of_a_path_is_the_same_setting(tmp_path, monkeypatch, digits, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    texts = {"source": "", "license": "", "attribution": ""}
    for name, part in (("set", slice(16)), ("other", slice(16, 32))):
        names = [str(number) for number in range(10)]
        write_prepared(tmp_path / name, digits.images[part], digits.labels[part], names, name=name, **texts)
    (tmp_path / "link").symlink_to("set")
    settings = {name: value for name, value in FLAGS.items() if name != "dataset"}
    assert train(tmp_path / "source", settings | {"dataset": "inverted:set", "steps": 1}) == 0
    begin = settings | {"dataset": "inverted:set", "init_from": "source"}
    assert train(tmp_path / "run", begin | {"steps": 1}) == 0
    spellings = ("set/", "./set", str(tmp_path / "set"), "~/set", "link")
    for steps, path in enumerate(spellings, start=2):
        changes = {"dataset": f"inverted:{path}", "init_from": path.replace("set", "source").replace("link", "source/")}
        assert train(tmp_path / "run", settings | changes | {"steps": steps}) == 0
    stored = json.loads((tmp_path / "run/config.json").read_text())
    assert (stored["dataset"], stored["init_from"], stored["steps"]) == ("inverted:set", "source@1", 6)
    assert [revision["from_step"] for revision in stored["fingerprints"]] == [0]
    capsys.readouterr()
    for changes in ({"dataset": "set"}, {"dataset": "inverted:other"}, {"dataset": "digits"}):
        assert train(tmp_path / "run", begin | changes | {"steps": 9}) == 1
        assert "dataset=" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", EFFECTIVE)
def test_a_changed_setting_changes_the_next_steps(bases, tmp_path, name):
    code, job_dir, reference = resume(bases, tmp_path, name, EFFECTIVE[name])
    assert code == 0
    assert numbers_of(job_dir) != reference
    stored = json.loads((job_dir / "config.json").read_text())
    assert TrainConfig.from_dict({k: v for k, v in stored.items() if k != "fingerprints"}).steps == 4
    assert [revision["from_step"] for revision in stored["fingerprints"]] == ([0] if name == "strategy" else [0, 3])


def test_a_run_without_a_checkpoint_begins_again_with_other_settings(tmp_path, capsys):
    job_dir = tmp_path / "run"
    settings = FLAGS | {"precision": "auto", "steps": 1}
    assert train(job_dir, settings) == 0
    path = job_dir / "config.json"
    path.write_text(path.read_text().replace('"precision": "float32"', '"precision": "bfloat16"'))
    assert train(job_dir, settings | {"global_batch_size": 8}) == 1
    assert "global_batch_size=8" in capsys.readouterr().err
    shutil.rmtree(job_dir / "checkpoints")
    assert train(job_dir, settings | {"global_batch_size": 8}) == 0
    assert train(tmp_path / "new", settings | {"global_batch_size": 8}) == 0
    configs = [json.loads((folder / "config.json").read_text()) for folder in (job_dir, tmp_path / "new")]
    assert configs[0] == configs[1] | {"job_dir": str(job_dir)}
    assert numbers_of(job_dir, 1) == numbers_of(tmp_path / "new", 1)
    lines = [json.loads(line) for line in (job_dir / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["images_seen"]) for line in lines] == [(1, 8)]


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_that_cannot_change_is_refused(bases, tmp_path, name, capsys):
    job_dir = bases["constant"][0]
    before = {path.relative_to(job_dir): content for path, content in tree(job_dir).items()}
    capsys.readouterr()
    code, job_dir, _ = resume(bases, tmp_path, name, REFUSED[name])
    error = capsys.readouterr().err.splitlines()[-1]
    assert code in (1, 2) and error.startswith("error: ")
    assert {path.relative_to(job_dir): content for path, content in tree(job_dir).items()} == before


@pytest.mark.slow
def test_a_run_works_as_before_after_all_refusals(bases, tmp_path):
    source, reference = bases["constant"]
    job_dir = shutil.copytree(source, tmp_path / "run")
    for name, value in REFUSED.items():
        assert train(job_dir, FLAGS | {name: value, "steps": 4, "allow_config_change": True}) in (1, 2)
    assert run("generate", f"--job_dir={job_dir}", "--num_images=1", f"--out={tmp_path}/grid.png") == 0
    assert run("evaluate", f"--job_dir={job_dir}", "--metrics=digits", "--num_metric_samples=100") == 0
    assert train(job_dir, FLAGS | {"steps": 4}) == 0
    assert numbers_of(job_dir) == reference


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME_NUMBERS)
def test_a_setting_of_what_is_written_changes_no_number(bases, tmp_path, name, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code, job_dir, reference = resume(bases, tmp_path, name, SAME_NUMBERS[name])
    assert code == 0
    assert numbers_of(job_dir) == reference
    checkpoints = {int(path.name[5:]) for path in (job_dir / "checkpoints").iterdir()}
    samples = {int(path.stem[5:]) for path in (job_dir / "samples").glob("step-*.png")}
    metrics = (job_dir / "metrics.jsonl").read_text()
    has_checkpoint_3 = name in ("checkpoint_every_steps", "checkpoint_every_epochs", "evaluate_every_steps")
    assert (2 in checkpoints, 3 in checkpoints) == (name != "max_to_keep", has_checkpoint_3)
    assert (3 in samples) == name.startswith("sample_every")
    assert ("metric/" in metrics) == (name == "metrics" or name in EVALUATED)
    assert ("_digits_100" in metrics, "inception_score" in metrics) == (
        name == "num_metric_samples",
        name == "inception_score",
    )
    assert (job_dir / "model/saved_model.pb").exists() == (name == "export_model")
