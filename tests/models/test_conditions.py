"""Conditions: vectors of numbers instead of classes, from a CSV file to the inputs of an exported generator."""

import functools
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_ARCHITECTURES, tiny_config
from PIL import Image
from refusals import check_command_refusal, check_refusal

from trainer import ACGAN, ConditionalGAN, InfoGAN, __main__ as commands, task
from trainer.config.choices import ModelFormat
from trainer.data import describe
from trainer.data.conditions import parse_vector, vector_text, vectors_of
from trainer.data.loading import load, load_training_data
from trainer.data.prepare.sources import conditions
from trainer.errors import ConfigError, DataError, NetworkError
from trainer.models import from_config
from trainer.report import model_card
from trainer.sampling.samples import Samples, images_of, labels_of
from trainer.serving import formats, saved_model
from trainer.training.rng import StepRng

RNG = np.random.default_rng(0)
VECTORS = np.array([[1, 0, -0.5], [0, 1, 0.1], [1, 1, 0.123456789]], np.float32)
NAMES = ("smiling", "glasses", "age")
COUNTS = (6, 1, 3)


def write_files(root, rows=None):
    """Writes ten images, and the CSV file with their conditions: those of `VECTORS` as often as `COUNTS` states."""
    vectors = np.repeat(VECTORS, COUNTS, axis=0)
    (root / "files/inner").mkdir(parents=True)
    for number in range(10):
        pixels = RNG.integers(0, 256, (12, 12), np.uint8)
        pixels[0, 0] = 20 * number
        Image.fromarray(pixels).save(root / f"files/inner/{number}.png")
    if rows is None:
        rows = [f"{number}.png,{vector_text(vector)}" for number, vector in enumerate(vectors)]
    (root / "table.csv").write_text("\n".join([f"file_name,{','.join(NAMES)}", *rows]))
    return ["trainer", "prepare", f"--source={root / 'files'}", f"--conditions={root / 'table.csv'}", "--num_workers=1"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("conditions")
    assert commands.main([*write_files(root), f"--out={root / 'set'}"]) == 0
    return root / "set"


def conditional(architecture="mlp", **settings):
    options = {name: value for name, value in TINY_ARCHITECTURES[architecture].items() if name != "dropout"}
    config = tiny_config(architecture, model="conditional", architecture_options=options, **settings)
    return from_config(config, (28, 28, 1), 3, conditions=VECTORS, class_counts=COUNTS)


@pytest.fixture(scope="module")
def gan():
    return conditional()


def test_every_image_gets_the_conditions_of_its_line(prepared):
    arrays = load(str(prepared))
    assert arrays.info.condition_names == NAMES
    vectors = arrays.info.conditions[arrays.labels]
    expected = np.repeat(VECTORS, COUNTS, axis=0)[arrays.images[:, 0, 0, 0] // 20]
    np.testing.assert_array_equal(vectors, expected)
    assert sorted(arrays.info.class_counts) == sorted(COUNTS)


def test_inspect_describes_conditions(prepared, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert commands.main(["trainer", "inspect", f"--dataset={prepared}", f"--contact_sheet={sheet}"]) == 0
    description = json.loads(capsys.readouterr().out)
    assert description["conditions"]["smiling"] == {"min": 0, "max": 1, "mean": 0.9}
    assert description["num_vectors"] == 3
    with Image.open(sheet) as image:
        assert image.height == 16


def test_changed_conditions_are_another_dataset(prepared, tmp_path):
    copy = shutil.copytree(prepared, tmp_path / "copy")
    text = (copy / "dataset.json").read_text()
    (copy / "dataset.json").write_text(text.replace('"0,1,', '"1,1,', 1))
    data = [load_training_data(tiny_config(dataset=str(path), num_chunks=1)) for path in (prepared, copy)]
    assert data[0].fingerprints["data"] == data[1].fingerprints["data"]
    assert data[0].fingerprints != data[1].fingerprints


@pytest.mark.parametrize("architecture", ["mlp", "dcgan", "r3gan"])
def test_networks_take_the_vector_of_a_label_in_place_of_one_hot(architecture):
    gan = conditional(architecture)
    assert gan.label_size == 3
    latents, labels = tf.random.stateless_normal([4, 8], [0, 1]), np.array([0, 1, 2, 1], np.int32)
    images = tf.random.stateless_normal([4, 28, 28, 1], [0, 2])
    by_label, by_vector = (
        (gan.generate(latents, value, gan.generator, False), gan.discriminate(images, value))
        for value in (tf.constant(labels), tf.constant(VECTORS[labels]))
    )
    for first, second in zip(by_label, by_vector, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)
    other = gan.discriminate(images, tf.constant(VECTORS[labels] + 0.5))
    assert np.abs(by_label[1] - other).max() > 0 or architecture == "r3gan"  # whose embeddings begin small


def test_r3gan_embeds_conditions_linearly():
    gan = conditional("r3gan")
    images = tf.random.stateless_normal([2, 28, 28, 1], [0, 2])
    zero, one, two = (gan.discriminate(images, tf.constant([[0.0, scale, 0]] * 2)) for scale in (0.0, 1.0, 2.0))
    assert np.abs(one - zero).max() > 1e-4
    np.testing.assert_allclose(two - zero, 2 * (one - zero), rtol=1e-3, atol=1e-5)


def test_stylegan2_trains_with_conditions():
    config = tiny_config("stylegan2", model="stylegan2_conditional", global_batch_size=4)
    gan = from_config(config, (12, 12, 1), 3, conditions=VECTORS, class_counts=COUNTS)
    images = RNG.integers(0, 256, (8, 12, 12, 1), np.uint8)
    gan.fit(images, np.arange(8) % 3, batch_size=4, steps=1, verbose=0)
    by_label, labels = gan.sample(3, labels=[0, 1, 2], seed=1)
    np.testing.assert_array_equal(gan.sample(3, labels=VECTORS[labels], seed=1)[0], by_label)


@pytest.mark.parametrize("architecture", ["mlp", "dcgan", "r3gan"])
def test_a_single_condition_has_an_effect(architecture):
    options = {name: value for name, value in TINY_ARCHITECTURES[architecture].items() if name != "dropout"}
    config = tiny_config(architecture, model="conditional", architecture_options=options)
    gan = from_config(config, (28, 28, 1), 3, conditions=[[-1.0], [0.0], [1.0]])
    images = gan.sample(2, labels=[0, 2], seed=1)[0], gan.sample(2, labels=[[0.3], [1.0]], seed=1)[0]
    assert (images[0][0] != images[1][0]).any() and (images[0][1] == images[1][1]).all()
    real_images = tf.random.stateless_normal([1, 28, 28, 1], [0, 2])
    logits = [gan.discriminate(real_images, tf.constant([[value]])) for value in (-1.0, 1.0)]
    assert (logits[0] != logits[1]).numpy().all()


def test_networks_that_take_numbers_of_classes_are_refused():
    class OfClasses(ConditionalGAN):
        def get_generator(self):
            latents, label = keras.Input((4,)), keras.Input((1,), name="label")
            flat = keras.layers.Dense(9)(keras.layers.Concatenate()([latents, label]))
            return keras.Model([latents, label], keras.layers.Reshape((3, 3, 1))(flat))

        def get_discriminator(self):
            return keras.Sequential([keras.Input((3, 3, 4)), keras.layers.Flatten(), keras.layers.Dense(1)])

    gan = OfClasses(4, conditions=VECTORS, image_range="-1..1")
    gan.compile()
    images = np.zeros((8, 3, 3, 1), np.float32)
    check_refusal(lambda: gan.fit(images, [0] * 8, batch_size=4, verbose=0), NetworkError, "generator", "(1,)", "(3,)")


def test_conditions_are_drawn_in_the_proportions_of_the_data(gan):
    drawn = gan.sample_labels(StepRng(0, 0, 4000)).numpy()
    np.testing.assert_allclose(np.bincount(drawn) / 4000, np.array(COUNTS) / 10, atol=0.03)
    parts = [gan.sample_labels(StepRng(0, 0, 2000, replica)).numpy() for replica in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(parts), drawn)
    np.testing.assert_allclose(
        np.bincount(gan.default_labels(np.arange(1000))) / 1000, np.array(COUNTS) / 10, atol=0.01
    )


@pytest.mark.parametrize(("loss", "has_pairs"), [("relativistic", True), ("non_saturating", False)])
def test_a_loss_of_pairs_compares_images_with_the_same_label(loss, has_pairs):
    gan, outputs = conditional(loss=loss), []
    gan.add_losses = lambda loss_output, latents: outputs.append(loss_output)
    labels = tf.constant(RNG.integers(0, 3, 16), tf.int32)
    gan.forward(tf.zeros([16, 28, 28, 1]), labels, StepRng(0, 0, 16), ("discriminator", "generator"))
    assert (outputs[0].real.labels.numpy() == labels.numpy()).all()
    assert (outputs[0].fake.labels.numpy() == labels.numpy()).all() == has_pairs


def test_data_with_one_class_are_refused():
    act = functools.partial(from_config, tiny_config(model="conditional"), (28, 28, 1), 1)
    check_refusal(act, ConfigError, "model=conditional", "one class", "subfolder")


def test_a_label_of_no_image_is_never_drawn():
    gan = from_config(tiny_config(model="conditional"), (28, 28, 1), 3, conditions=VECTORS, class_counts=(0, 5, 0))
    assert set(gan.sample_labels(StepRng(0, 0, 100)).numpy()) == {1}
    assert set(gan.default_labels(np.arange(50)).numpy()) == {1}


def test_samples_take_labels_or_vectors(gan):
    by_label, labels = gan.sample(4, labels=[0, 1, 2, 1], seed=3)
    by_vector, vectors = gan.sample(4, labels=VECTORS[labels], seed=3)
    np.testing.assert_array_equal(by_label, by_vector)
    np.testing.assert_array_equal(vectors, VECTORS[labels])
    assert (gan.sample(4, labels=VECTORS[labels] + 2, seed=3)[0] != by_label).any()
    np.testing.assert_array_equal(labels_of(gan, np.arange(9), None), gan.sample(9)[1])
    np.testing.assert_array_equal(labels_of(gan, np.arange(3), [(0, 0, 0), (1, 1, 1)]), [[0] * 3, [1] * 3, [0] * 3])
    latents = np.zeros((2, 8), np.float32)
    np.testing.assert_array_equal(gan((latents, VECTORS[:2])), gan((latents, np.array([0, 1]))))
    assert gan.sample_grid(2, 3).shape == (3 * 30 + 2, 3 * 30 + 2, 1)


def test_an_exported_generator_takes_vectors(gan, tmp_path):
    saved_model.save(gan, tmp_path / "model", 1)
    model = tf.saved_model.load(str(tmp_path / "model"))
    latents = RNG.normal(size=(3, 8)).astype(np.float32)
    images = model.signatures["serving_default"](latents=tf.constant(latents), labels=tf.constant(VECTORS))["images"]
    assert np.abs(images.numpy().astype(int) - gan.images_from(latents, VECTORS)).max() <= 1
    assert saved_model.inputs_of(gan) == {"latents": (8,), "labels": (3,)}
    sample = model.signatures["sample"]
    pngs = sample(seed=tf.constant([1], tf.int64), number=tf.constant([4]), label=tf.constant([-1]))["png_bytes"]
    assert tf.io.decode_png(pngs[0]).shape == (62, 62, 1)
    seeds = np.arange(6)
    unlabeled = {"truncation": tf.fill([6], -1.0), "label": tf.fill([6], -1)}
    pngs = model.signatures["image"](seed=tf.constant(seeds, tf.int64), **unlabeled)["png_bytes"].numpy()
    expected = np.concatenate(list(images_of(gan, Samples(seeds, labels_of(gan, seeds, None), None, None))))
    for content, image in zip(pngs, expected, strict=True):
        assert np.abs(tf.io.decode_png(content).numpy().astype(int) - image).max() <= 1
    usage = "".join(model_card._usage({}, "savedmodel", saved_model.inputs_of(gan), 0))
    assert "np.zeros((16, 3), np.float32)" in usage


def test_a_vector_is_read_as_it_was_written():
    for vector in (*VECTORS, np.float32([-0.0, 1e-30, 3.4e38])):
        text = vector_text(vector)
        np.testing.assert_array_equal(np.float32(parse_vector(text, NAMES, "x")), vector + 0.0)
    assert vector_text([1.0, -0.0, 0.25]) == "1,0,0.25"


@pytest.mark.slow
def test_a_run_with_conditions_is_trained_resumed_and_sampled(tmp_path, prepared, capsys):
    options = json.dumps(TINY_ARCHITECTURES["mlp"])
    flags = [f"--dataset={prepared}", "--recipe=cgan", f"--architecture_options={options}", "--global_batch_size=4"]
    flags += ["--strategy=one_device", "--precision=float32", "--metrics=none"]
    states = []
    for name, steps in (("cut", (2, 4)), ("whole", (4,))):
        for number in steps:
            assert task.main(["task", f"--job_dir={tmp_path / name}", *flags, f"--steps={number}"]) == 0
        manifest = json.loads((tmp_path / name / "checkpoints/step-00000004/MANIFEST.json").read_text())
        states.append(manifest["state_sha256"])
    assert states[0] == states[1]
    for flag, count in (("--labels=0,1,0.3", 4), ("--conditions=1,0,-0.5;0,0,1", 4), ("--seed=1", 4)):
        out = tmp_path / "samples.npz"
        argv = ["trainer", "generate", f"--job_dir={tmp_path / 'cut'}", f"--out={out}", "--num_images=4", flag]
        assert commands.main(argv) == 0
        with np.load(out) as arrays:
            assert arrays["x"].shape == (count, 12, 12, 1)
    capsys.readouterr()
    argv = ["trainer", "generate", f"--job_dir={tmp_path / 'cut'}", f"--out={tmp_path}/folder/", "--labels=1,2"]
    check_command_refusal(commands.main, argv, capsys, 1, "labels", "1,2", "smiling")


ROWS = [f"{number}.png,1,0,0.{number}" for number in range(10)]
TABLES = {
    "no line": (ROWS[:9], (), 1, ("9.png", "table.csv", "max_bad_images=0")),
    "two lines": ([*ROWS, ROWS[3]], (), 1, ("line 12", "3.png")),
    "text": ([*ROWS[:9], "9.png,yes,0,1"], (), 1, ("line 11", "yes", "smiling")),
    "infinite": ([*ROWS[:9], "9.png,inf,0,1"], (), 1, ("line 11", "inf")),
    "too large": ([*ROWS[:9], "9.png,1e39,0,1"], (), 1, ("line 11", "1e39")),
    "empty value": ([*ROWS[:9], "9.png,,0,1"], (), 1, ("line 11",)),
    "few values": ([*ROWS[:9], "9.png,0,1"], (), 1, ("line 11", "3", "4")),
    "no table": (None, ("--conditions=missing.csv",), 1, ("missing.csv",)),
    "pairs": (ROWS, ("--paired",), 2, ("conditions", "paired")),
    "classes": (ROWS, ("--classes=a",), 2, ("conditions", "classes")),
    "labels": (ROWS, ("--label_field=x",), 2, ("conditions", "label_field")),
    "two domains": (ROWS, ("--source_b=x",), 2, ("conditions", "source_b")),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_do_not_fit_are_refused(tmp_path, capsys, name):
    rows, flags, code, mentions = TABLES[name]
    argv = [*write_files(tmp_path, rows), f"--out={tmp_path / 'set'}", *flags]
    check_command_refusal(commands.main, argv, capsys, code, *mentions)


@pytest.mark.parametrize("header", ["", "file_name", "name,smiling", "file_name,a,a", "file_name,,b"])
def test_headers_without_conditions_are_refused(tmp_path, capsys, header):
    argv = [*write_files(tmp_path), f"--out={tmp_path / 'set'}"]
    (tmp_path / "table.csv").write_text(f"{header}\n0.png,1,1\n")
    check_command_refusal(commands.main, argv, capsys, 1, "table.csv", "file_name")


def test_more_vectors_than_can_be_stored_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(conditions, "_MAX_BYTES", 10 * (conditions._BYTES_PER_VECTOR + len("1,0,0.1")) - 2)
    argv = [*write_files(tmp_path, ROWS), f"--out={tmp_path / 'set'}"]
    check_command_refusal(commands.main, argv, capsys, 1, "table.csv", "10", "3")


def test_images_without_conditions_are_left_out_if_allowed(tmp_path):
    argv = [*write_files(tmp_path, ROWS[2:]), f"--out={tmp_path / 'set'}", "--max_bad_images=2"]
    assert commands.main(argv) == 0
    assert describe(str(tmp_path / "set")).num_examples == 8


MODELS = {
    "no table": (lambda: ConditionalGAN(8, conditions=[1, 2]), ConfigError, ("conditions", "[2]")),
    "not finite": (lambda: ConditionalGAN(8, conditions=[[np.nan], [1]]), ConfigError, ("conditions",)),
    "another number": (lambda: ConditionalGAN(8, 4, conditions=VECTORS), ConfigError, ("conditions", "4")),
    "one label": (lambda: ConditionalGAN(8, conditions=VECTORS[:1]), ConfigError, ("num_classes", "1")),
    "counts": (lambda: ConditionalGAN(8, conditions=VECTORS, class_counts=[1]), ConfigError, ("class_counts", "1")),
    "no count": (lambda: ConditionalGAN(8, conditions=VECTORS, class_counts=[0] * 3), ConfigError, ("class_counts",)),
    "infinite count": (
        lambda: ConditionalGAN(8, 3, class_counts=[np.inf, 1, 1]),
        ConfigError,
        ("class_counts", "inf"),
    ),
    "counts of text": (lambda: ConditionalGAN(8, 3, class_counts="abc"), ConfigError, ("class_counts", "abc")),
    "ragged": (lambda: ConditionalGAN(8, conditions=[[1, 2], [3]]), ConfigError, ("conditions", "[3]")),
    "acgan": (lambda: ACGAN(8, conditions=VECTORS), ConfigError, ("ACGAN", "conditions")),
    "infogan": (lambda: InfoGAN(8, 3, conditions=VECTORS), ConfigError, ("InfoGAN", "conditions")),
    "acgan of a config": (
        lambda: from_config(tiny_config(model="acgan"), (28, 28, 1), 3, conditions=VECTORS, class_counts=COUNTS),
        ConfigError,
        ("ACGAN", "conditions"),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_conditions_that_do_not_fit_a_model_are_refused(name):
    act, error, mentions = MODELS[name]
    check_refusal(act, error, *mentions)


@pytest.mark.parametrize("labels", [VECTORS[:2], VECTORS[:, :2], [[np.inf] * 3] * 3, [9, 0, 0]], ids=str)
def test_labels_that_are_no_conditions_are_refused(gan, labels):
    check_refusal(lambda: gan.sample(3, labels=labels), DataError, "labels")


def test_the_vectors_of_a_dataset_are_those_of_its_class_names(prepared):
    info = describe(str(prepared))
    expected = np.array([parse_vector(name, NAMES, "x") for name in info.class_names], np.float32)
    np.testing.assert_array_equal(info.conditions, expected)
    assert info.conditions.dtype == np.float32 and info.conditions is info.conditions


@pytest.mark.parametrize("damaged", ["0,1", "0,1,2,3", "0,1,", "0,1,x", "0,1,nan", "0,1,1e39", ""])
def test_a_class_name_that_is_no_vector_is_named(damaged):
    check_refusal(
        lambda: vectors_of(["0,1,2", damaged, "3,4,5"], NAMES, "the set"), DataError, "the set", repr(damaged)
    )


def test_damaged_vectors_of_a_dataset_are_refused(prepared, tmp_path):
    copy = shutil.copytree(prepared, tmp_path / "copy")
    text = (copy / "dataset.json").read_text()
    (copy / "dataset.json").write_text(text.replace('"0,1,', '"0,', 1))
    check_refusal(lambda: describe(str(copy)), DataError, "class_names", "dataset.json")


def test_a_keras_generator_takes_vectors(gan, tmp_path):
    formats.write(gan, ModelFormat.KERAS, tmp_path / "model", 0)
    model = keras.saving.load_model(tmp_path / "model/generator.keras", compile=False)
    assert model({"latents": np.zeros((3, 8), np.float32), "labels": VECTORS}).shape == (3, 28, 28, 1)
