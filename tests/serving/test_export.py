"""The SavedModel of a run serves the samples of the run, by seed, number and label."""

import io
import json
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
from bucket_runs import files
from conftest import TINY_MLP, tiny_model
from PIL import Image
from refusals import check_command_refusal

from trainer import __main__ as commands, metrics, task
from trainer.callbacks import Animation, Checkpoint
from trainer.image_io import tile
from trainer.models.inference import MAX_SAMPLE_INDEX
from trainer.serving import formats, saved_model
from trainer.storage import RunDirectory, locate
from trainer.training import restore
from trainer.training.checkpoint.store import CheckpointStore

FLAGS = [
    f"--architecture_options={json.dumps(TINY_MLP)}",
    *("--latent_dim=8", "--global_batch_size=16", "--jit_compile=off", "--strategy=one_device", "--metrics=none"),
    *("--steps=4", "--sample_every_steps=0", "--ema_half_life_images=20"),
]


CGAN = ["--recipe=cgan", "--architecture=mlp", *FLAGS]


@pytest.fixture(scope="module")
def job_dir(tmp_path_factory):
    job_dir = tmp_path_factory.mktemp("runs") / "tiny"
    assert task.main(["task", *CGAN, f"--job_dir={job_dir}"]) == 0
    return job_dir


@pytest.fixture(scope="module")
def signatures(job_dir):
    model = tf.saved_model.load(str(job_dir / "model"))
    return {"model": model, **model.signatures}


def sample(signatures, seed, number, label):
    pngs = signatures["sample"](seed=tf.constant(seed, tf.int64), number=tf.constant(number), label=tf.constant(label))[
        "png_bytes"
    ].numpy()
    return [np.asarray(Image.open(io.BytesIO(png))) for png in pngs]


def test_a_run_exports_its_final_ema_generator(job_dir, signatures):
    _, gan, _ = restore.restore(str(job_dir))
    latents, labels = np.random.default_rng(0).normal(size=(5, 8)).astype("f"), np.arange(5, dtype=np.int32)
    images = signatures["serving_default"](latents=latents, labels=labels)["images"].numpy()
    assert images.dtype == np.uint8 and images.shape == (5, 28, 28, 1)
    np.testing.assert_array_equal(images, gan._sampler(gan.image_range, latents, labels))
    raw_sampler = gan._sampler.__class__(lambda z, y: gan.generate(z, y, gan.generator, False))
    assert (images != raw_sampler(gan.image_range, latents, labels)).any()


def test_a_seed_a_number_and_a_label_select_a_grid(signatures):
    grids = sample(signatures, [1, 1, 2, 1, 1], [9, 9, 9, 3, 9], [4, 4, 4, 4, -1])
    assert [grid.shape for grid in grids] == [(92, 92)] * 3 + [(62, 62), (92, 92)]
    np.testing.assert_array_equal(grids[0], grids[1])
    assert (grids[0] != grids[2]).any() and (grids[0] != grids[4]).any()
    np.testing.assert_array_equal(
        grids[0][2:30, 2:30], grids[3][2:30, 2:30]
    )  # the first images do not depend on the number
    np.testing.assert_array_equal(sample(signatures, [1], [64], [4])[0][2:30, 2:30], grids[0][2:30, 2:30])
    for number in (0, 65):
        with pytest.raises(tf.errors.InvalidArgumentError, match="number.*1.*64"):
            sample(signatures, [1], [number], [4])


@pytest.mark.parametrize("label", [-2, 10, 99])
def test_an_unknown_label_is_refused(label, signatures):
    with pytest.raises(tf.errors.InvalidArgumentError, match="label.*-1.*9"):
        sample(signatures, [1, 1], [9, 9], [9, label])


@pytest.mark.parametrize("label", [-1, 10, 99])
def test_an_unknown_label_is_refused_with_latents(label, signatures):
    latents = tf.zeros([2, 8])
    with pytest.raises(tf.errors.InvalidArgumentError, match="label.*0.*9"):
        signatures["serving_default"](latents=latents, labels=tf.constant([9, label]))


def test_a_served_grid_looks_like_a_sample_grid():
    images = np.random.default_rng(0).integers(0, 256, (9, 5, 4, 3), np.uint8)
    np.testing.assert_array_equal(saved_model._make_grid(tf.constant(images)).numpy(), tile(images, 3))
    shown = saved_model._make_grid(tf.constant(images[:7])).numpy()
    np.testing.assert_array_equal(shown, tile(np.concatenate([images[:7], np.full((2, 5, 4, 3), 48, np.uint8)]), 3))


def test_a_job_writes_its_model_to_the_folder_of_vertex_ai(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("AIP_MODEL_DIR", f"{bucket}/elsewhere/")
    assert task.main(["task", *CGAN, f"--job_dir={tmp_path / 'run'}"]) == 0
    local_names = [entry.name for entry in locate(tmp_path / "run/model").entries()]
    assert "saved_model.pb" in local_names
    assert local_names == [entry.name for entry in locate(f"{bucket}/elsewhere").entries()]


@pytest.mark.parametrize(("callback", "moment"), [(Checkpoint, "on_train_batch_end"), (Animation, "on_train_end")])
def test_sigterm_after_the_last_step_leaves_a_run_with_its_model(callback, moment, tmp_path, monkeypatch):
    plain = getattr(callback, moment)

    def signalled(self, *arguments, **logs):
        if self.model.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            while not self.model.preempted:
                time.sleep(0.001)
        plain(self, *arguments, **logs)

    monkeypatch.setattr(callback, moment, signalled)
    assert task.main(["task", *CGAN, f"--job_dir={tmp_path / 'run'}"]) == 0
    assert (tmp_path / "run/model/saved_model.pb").exists()


def interrupted(*arguments, **options):
    raise KeyboardInterrupt


def files_of_training(job_dir):
    """Returns files that a run writes before its model."""
    return {name: (job_dir / name).read_bytes() for name in ("metrics.jsonl", "samples/progression.gif")}


def test_a_run_killed_in_its_export_writes_the_model_later(tmp_path, monkeypatch):
    command = ["task", *CGAN, f"--job_dir={tmp_path / 'run'}"]
    with monkeypatch.context() as killed:
        killed.setattr(saved_model, "save", interrupted)
        assert task.main(command) == 130
    assert not (tmp_path / "run/model").exists()
    before = files_of_training(tmp_path / "run")
    assert task.main(command) == 0
    assert files_of_training(tmp_path / "run") == before
    assert tf.saved_model.load(str(tmp_path / "run/model")).signatures
    assert saved_model.read_metadata(locate(tmp_path / "run/model")) == {"step": 4, "exported_at_step": 4}
    monkeypatch.setattr(saved_model, "save", interrupted)
    assert task.main(command) == 0  # the model exists and is not saved again


def test_a_resumed_run_killed_in_its_export_replaces_the_old_model(tmp_path, monkeypatch):
    command = ["task", *CGAN, f"--job_dir={tmp_path / 'run'}"]
    assert task.main(command) == 0
    assert saved_model.read_metadata(locate(tmp_path / "run/model")) == {"step": 4, "exported_at_step": 4}
    with monkeypatch.context() as killed:
        killed.setattr(saved_model, "save", interrupted)
        assert task.main([*command, "--steps=6"]) == 130
    assert saved_model.read_metadata(locate(tmp_path / "run/model")) == {"step": 4, "exported_at_step": 4}
    assert task.main([*command, "--steps=6"]) == 0
    assert saved_model.read_metadata(locate(tmp_path / "run/model")) == {"step": 6, "exported_at_step": 6}


def test_a_finished_run_exports_a_model_when_it_is_requested(tmp_path):
    command = ["task", *CGAN, f"--job_dir={tmp_path / 'run'}"]
    assert task.main([*command, "--noexport_model"]) == 0
    assert task.main([*command, "--steps=3", "--metrics=digits"]) == 0
    assert (tmp_path / "run/model/saved_model.pb").exists()
    assert saved_model.read_metadata(locate(tmp_path / "run/model"))["step"] == 4


@pytest.mark.parametrize(("run", "refused"), [("{bucket}/run", "run/model/"), ("{folder}/run", "elsewhere/")])
def test_a_partly_uploaded_model_counts_as_missing(run, refused, bucket, proxy, tmp_path, monkeypatch, capsys):
    command = ["task", *CGAN, f"--job_dir={run.format(bucket=bucket, folder=tmp_path)}"]
    monkeypatch.setenv("AIP_MODEL_DIR", f"{bucket}/elsewhere/")
    proxy.policy = lambda request: 403 if request.object_name.startswith(f"{refused}variables") else None
    assert task.main(command) == 1
    assert f"{refused}variables" in capsys.readouterr().err
    assert not (locate(bucket) / f"{refused}saved_model.pb").exists()
    proxy.policy = lambda request: None
    assert task.main(command) == 0
    assert (locate(bucket) / f"{refused}saved_model.pb").exists() and len(files(f"{bucket}/elsewhere")) == 7
    monkeypatch.setattr(saved_model, "save", interrupted)
    assert task.main(command) == 0  # the model exists and is not saved again


def test_saved_model_pb_is_uploaded_last_and_deleted_first(job_dir, bucket, proxy):
    for _ in range(2):
        proxy.requests.clear()
        saved_model.publish(job_dir / "model", locate(f"{bucket}/model"))
        assert proxy.requests[-1].object_name == "model/saved_model.pb"
    assert (proxy.requests[1].method, proxy.requests[1].object_name) == ("DELETE", "model/saved_model.pb")


def test_saved_model_pb_is_deleted_first_from_a_folder(tmp_path, monkeypatch):
    (tmp_path / "model/variables").mkdir(parents=True)
    (tmp_path / "model/saved_model.pb").touch()
    plain = shutil.rmtree
    monkeypatch.setattr(
        shutil, "rmtree", lambda path, **how: interrupted() if path.name == "model" else plain(path, **how)
    )
    with pytest.raises(KeyboardInterrupt):
        saved_model.save(tiny_model("gan"), tmp_path / "model", 1)
    assert (tmp_path / "model/variables").exists() and not (tmp_path / "model/saved_model.pb").exists()


def test_a_job_without_job_dir_runs_in_its_output_folder(bucket, monkeypatch):
    for name, folder in (("CHECKPOINT_DIR", "checkpoints"), ("MODEL_DIR", "model"), ("TENSORBOARD_LOG_DIR", "logs")):
        monkeypatch.setenv(f"AIP_{name}", f"{bucket}/job/7/{folder}/")
    assert task.main(["task", *CGAN]) == 0
    there = {entry.name.partition("/")[0] for entry in locate(f"{bucket}/job/7").entries()}
    assert there == {
        *("config.json", "metrics.jsonl", "events.jsonl", "report.html"),
        *("checkpoints", "logs", "samples", "model"),
    }


def skipped_steps(log):
    """Returns the steps of the checkpoints that warnings mention, in order, and clears the log."""
    messages = [record.getMessage() for record in log.records if record.levelname == "WARNING"]
    log.clear()
    return [int(match[1]) for message in messages if (match := re.search(r"step-(\d{8})", message))]


@pytest.mark.parametrize(("damaged", "taken"), [((2,), 1), ((2, 1), 3)], ids=["next-best", "newest"])
def test_a_damaged_best_checkpoint_is_skipped_with_a_warning(job_dir, tmp_path, trainer_log, damaged, taken):
    copy, monitor = tmp_path / "run", f"metric/{metrics.monitor_name('digits')}"
    shutil.copytree(job_dir, copy)
    shutil.rmtree(copy / "checkpoints")
    config = json.loads((copy / "config.json").read_text()) | {"metrics": "digits"}
    (copy / "config.json").write_text(json.dumps(config))
    _, gan, _ = restore.restore(str(job_dir))
    _, history = restore.stored_run(RunDirectory(copy))
    store = CheckpointStore(copy / "checkpoints", best=monitor, history=history)
    for step, values in ((1, {monitor: 2.0}), (2, {monitor: 1.0}), (3, {})):
        store.save(gan.state, step, values)
    store.wait()
    for step in damaged:
        next(store.folder(step).glob("state.data-*")).write_bytes(b"")
    assert restore.restore(str(copy), "best")[2].step == taken
    assert skipped_steps(trainer_log) == list(damaged)
    assert task.main(["task", *CGAN, "--steps=3", "--metrics=digits", f"--job_dir={copy}"]) == 0
    assert saved_model.read_metadata(locate(copy / "model"))["step"] == taken


def test_every_input_has_a_batch_dimension(signatures):
    for name in ("serving_default", "sample"):
        inputs = signatures[name].structured_input_signature[1]
        assert {spec.shape[0] for spec in inputs.values()} == {None}
    assert set(signatures["sample"].structured_outputs) == {
        "png_bytes"
    }  # TensorFlow Serving encodes names with this suffix as base64


def test_the_command_exports_to_a_bucket_and_never_overwrites_a_model(job_dir, bucket, capsys):
    flags = [f"--job_dir={job_dir}", f"--out={bucket}/model", "--checkpoint=latest"]
    assert commands.main(["trainer", "export", *flags]) == 0
    printed = capsys.readouterr().out
    assert "4" in printed and f"{bucket}/model" in printed
    there = {entry.name for entry in locate(f"{bucket}/model").entries()}
    assert {"saved_model.pb", "variables/variables.index"} <= there
    argv = ["trainer", "export", *flags]
    check_command_refusal(commands.main, argv, capsys, 2, "out", f"{bucket}/model")


def test_a_model_holds_the_generator_and_nothing_else_of_a_run(job_dir):
    names = [name for name, _ in tf.train.list_variables(str(job_dir / "model/variables/variables"))]
    assert names and not [name for name in names if "discriminator" in name or "optimizer" in name]
    restored = restore.restore(str(job_dir))[1]
    num_bytes = sum(4 * np.prod(variable.shape) for variable in restored.ema_generator.variables)
    assert (job_dir / "model/variables/variables.data-00000-of-00001").stat().st_size < 1.1 * num_bytes + 4000


def test_a_model_of_some_classes_accepts_only_these_labels(tmp_path):
    gan = tiny_model("conditional", classes=(3, 7))
    saved_model.save(gan, tmp_path / "model", 1)
    sample = tf.saved_model.load(str(tmp_path / "model")).signatures["sample"]
    ask = {"seed": tf.constant([1], tf.int64), "number": tf.constant([2])}
    in_turn, *alone = (sample(label=tf.constant([label]), **ask)["png_bytes"].numpy()[0] for label in (-1, 3, 7))
    assert in_turn not in alone
    for label in (-2, 4, 9):
        with pytest.raises(tf.errors.InvalidArgumentError, match="label.*-1, 3, 7"):
            sample(label=tf.constant([label]), **ask)


def test_a_model_refuses_seeds_that_generate_refuses(tmp_path):
    saved_model.save(tiny_model("gan"), tmp_path / "model", 1)
    image = tf.saved_model.load(str(tmp_path / "model")).signatures["image"]
    ask = lambda seed: image(seed=tf.constant([0, seed], tf.int64), truncation=tf.constant([-1.0, -1.0]))  # noqa: E731
    assert ask(MAX_SAMPLE_INDEX)["png_bytes"].shape == (2,)
    for seed in (-1, MAX_SAMPLE_INDEX + 1, 2**32):  # the generator counts samples in 32 bits
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"seed.*{MAX_SAMPLE_INDEX}"):
            ask(seed)


def test_a_model_is_saved_from_two_replicas(two_replicas, tmp_path):
    gan = tiny_model("conditional", two_replicas, ema_half_life_images=100.0)
    saved_model.save(gan, tmp_path / "model", 1)
    serve = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    latents, labels = np.ones((2, 8), "f"), np.array([1, 2], np.int32)
    images = serve(latents=tf.constant(latents), labels=tf.constant(labels))["images"].numpy()
    np.testing.assert_array_equal(images, gan._sampler(gan.image_range, latents, labels))


@pytest.mark.parametrize("model", ["gan", "acgan", "infogan"])
def test_every_sampling_model_can_be_served(model, tmp_path):
    gan = tiny_model(model)
    saved_model.save(gan, tmp_path / "model", 1)
    sample = tf.saved_model.load(str(tmp_path / "model")).signatures["sample"]
    label = {"label": tf.constant([-1])} if gan.num_classes else {}
    (png,) = sample(seed=tf.constant([3], tf.int64), number=tf.constant([2]), **label)["png_bytes"].numpy()
    with Image.open(io.BytesIO(png)) as grid:
        assert grid.size == (30, 16)


def test_a_cyclegan_is_served_as_a_translator(digits, tmp_path):
    gan = tiny_model("cyclegan")
    saved_model.save(gan, tmp_path / "model", 1)
    translate = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    images = digits.images[:3, 8:20, 8:20]
    np.testing.assert_array_equal(translate(images=images)["images"].numpy(), gan.translate(images, "b"))


def exported(job_dir, out, *flags):
    return commands.main(["trainer", "export", f"--job_dir={job_dir}", f"--out={out}", *flags])


def run_usage(card, folder, monkeypatch):
    """Runs the Python code of a card in the folder of its model. Returns the images."""
    monkeypatch.chdir(folder)
    values = {}
    exec(card.partition("```python\n")[2].partition("```")[0], values)
    return values["images"]


@pytest.mark.parametrize(
    "model_format",
    [
        "savedmodel",
        "keras",
        pytest.param("onnx", marks=pytest.mark.slow),
        pytest.param("litert", marks=pytest.mark.slow),
    ],
)
def test_every_format_has_a_card_whose_code_runs(model_format, job_dir, tmp_path, monkeypatch, capsys):
    assert exported(job_dir, tmp_path / "model", f"--format={model_format}") == 0
    assert re.search("[01] of 255", capsys.readouterr().out)
    images = run_usage((tmp_path / "model/MODEL_CARD.md").read_text(), tmp_path / "model", monkeypatch)
    assert images.dtype == np.uint8 and images.shape == (16, 28, 28, 1) and images.std() > 0
    with Image.open(tmp_path / "model/samples.png") as grid:
        assert grid.width >= 8 * 28


def test_a_run_writes_a_card_that_users_may_edit(job_dir, tmp_path, monkeypatch):
    copy = tmp_path / "run"
    shutil.copytree(job_dir, copy)
    card = (copy / "model/MODEL_CARD.md").read_text()
    assert run_usage(card, copy / "model", monkeypatch).shape == (16, 28, 28, 1)
    (copy / "model/MODEL_CARD.md").write_text("license: mit")
    monkeypatch.setattr(saved_model, "save", interrupted)
    assert task.main(["task", *CGAN, f"--job_dir={copy}"]) == 0  # the model is complete, and is not saved again
    assert (copy / "model/MODEL_CARD.md").read_text() == "license: mit"


def test_a_run_whose_scalars_cannot_be_read_exports_its_model_without_a_card(tmp_path, trainer_log):
    (tmp_path / "run/metrics.jsonl").mkdir(parents=True)
    assert task.main(["task", *CGAN, f"--job_dir={tmp_path / 'run'}"]) == 0
    names = {path.name for path in (tmp_path / "run/model").iterdir()}
    assert "saved_model.pb" in names and "MODEL_CARD.md" not in names


def test_a_run_in_bfloat16_is_exported_in_float32(job_dir, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(job_dir, copy)
    config = json.loads((copy / "config.json").read_text()) | {"precision": "bfloat16"}
    (copy / "config.json").write_text(json.dumps(config))
    assert exported(copy, tmp_path / "model", "--format=keras") == 0
    model = tf.keras.models.load_model(tmp_path / "model/generator.keras")
    assert {layer.compute_dtype for layer in model.layers if layer.weights} == {"float32"}


@pytest.mark.parametrize(
    ("flags", "mentions"),
    [
        (["--format=h5"], ("format", "h5", "onnx")),
        (["--format=ONNX"], ("format", "ONNX", "onnx")),
        (["--format="], ("format", "onnx")),
        (["--format=tflite"], ("format", "tflite", "litert")),
    ],
)
def test_an_unknown_format_is_refused_with_the_choices(flags, mentions, job_dir, tmp_path, capsys):
    argv = ["trainer", "export", f"--job_dir={job_dir}", f"--out={tmp_path / 'model'}", *flags]
    check_command_refusal(commands.main, argv, capsys, 2, *mentions)


def test_a_model_that_differs_is_not_left_behind(job_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(formats, "MAX_DIFFERENCE", -1)
    argv = ["trainer", "export", f"--job_dir={job_dir}", f"--out={tmp_path / 'model'}", "--format=keras"]
    check_command_refusal(commands.main, argv, capsys, 1, "keras", "255")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("model_format", ["savedmodel", "keras"])
def test_every_format_goes_to_a_bucket(model_format, job_dir, bucket):
    assert exported(job_dir, f"{bucket}/{model_format}", f"--format={model_format}") == 0
    names = {entry.name for entry in locate(f"{bucket}/{model_format}").entries()}
    assert {"MODEL_CARD.md", "samples.png"} < names and {"saved_model.pb", "generator.keras"} & names
