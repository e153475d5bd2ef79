"""Promises of `Pix2Pix` beyond those of every model: pairs stay together, and dropout is the only noise."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_config, tiny_model
from PIL import Image
from refusals import check_refusal

from trainer import Pix2Pix, __main__ as commands, task
from trainer.config import compatibility, recipes
from trainer.config.compatibility import check_metrics
from trainer.data.loading import load
from trainer.errors import ConfigError, DataError
from trainer.image_io import as_color, over_checkerboard, tile
from trainer.metrics.paired import PairedMetrics
from trainer.models import augment, from_config, traits
from trainer.models.augmenter import Augmenter
from trainer.models.factory import create_gan
from trainer.models.pix2pix import enlarge_and_crop
from trainer.models.weight_limit import without_weights
from trainer.networks import build
from trainer.sampling.animation import write_animation
from trainer.serving import saved_model
from trainer.storage import locate
from trainer.training.rng import StepRng

RNG = np.random.default_rng(0)
INPUTS, IMAGES = RNG.integers(0, 256, (2, 20, 12, 12, 1), np.uint8)
JOINED, LABELS = np.concatenate([INPUTS, IMAGES], axis=-1), np.arange(20) % 5


@pytest.fixture(scope="module")
def gan():
    """A trained model."""
    gan = tiny_model("pix2pix")
    gan.fit(INPUTS, IMAGES, batch_size=4, steps=1, verbose=0)
    return gan


def pairs_of_equal_halves(num_images=6, size=16, channels=1):
    half = RNG.uniform(-1, 1, (num_images, size, size, channels)).astype(np.float32)
    return tf.constant(np.concatenate([half, half], axis=-1))


def test_predictions_of_8_bit_images_are_their_translations_without_dropout(gan):
    floats = INPUTS / np.float32(127.5) - 1
    expected = gan.predict(floats, verbose=0)
    np.testing.assert_allclose(gan.predict(INPUTS, verbose=0), expected, atol=1e-5)
    np.testing.assert_allclose(gan.predict_on_batch(INPUTS), gan.predict_on_batch(floats), atol=1e-5)
    check_refusal(lambda: gan.predict(floats * 9, verbose=0), DataError, "images", "-1..1")
    with pytest.raises(DataError, match="uint8"):
        gan(INPUTS)


def test_grid_images_do_not_keep_the_data_in_memory():
    gan, floats = Pix2Pix(), INPUTS.astype(np.float32) / 255
    for x in (INPUTS, floats):
        gan.set_grid_images(x, IMAGES)
        assert all(images.base is None for images in gan.grid_images)


def test_jitter_cuts_the_same_part_out_of_both_halves():
    pairs = pairs_of_equal_halves(200)
    jittered = enlarge_and_crop(pairs, 4, StepRng(0, 1, 200)).numpy()
    np.testing.assert_array_equal(jittered[..., 0], jittered[..., 1])
    enlarged = tf.image.resize(pairs, (20, 20)).numpy()
    offsets = set()
    for before, after in zip(enlarged, jittered, strict=True):
        fitting = [(y, x) for y in range(5) for x in range(5) if (before[y : y + 16, x : x + 16] == after).all()]
        offsets.update(fitting)
        assert len(fitting) == 1
    assert len(offsets) == 25  # all parts are reached


def test_jitter_does_not_depend_on_the_number_of_replicas():
    pairs = pairs_of_equal_halves(6)
    whole = enlarge_and_crop(pairs, 3, StepRng(0, 5, 6))
    parts = [enlarge_and_crop(pairs[3 * i : 3 * i + 3], 3, StepRng(0, 5, 3, i)) for i in (0, 1)]
    np.testing.assert_array_equal(whole, tf.concat(parts, axis=0))


@pytest.mark.parametrize("name", ["diffaugment", "ada"])
def test_both_halves_are_augmented_alike(name):
    augmenter = Augmenter(name, 1.0)
    pairs = pairs_of_equal_halves(channels=3)
    augmented = augmenter.augment(pairs, StepRng(0, 1, 6), (-1.0, 1.0), (3, 3)).numpy()
    np.testing.assert_array_equal(augmented[..., :3], augmented[..., 3:])
    assert (augmented != pairs.numpy()).any()


def test_the_generator_learns_from_its_discriminator_and_100_times_the_l1():
    gans = [tiny_model("pix2pix", model_options={"l1_weight": weight}) for weight in (0.0, 100.0)]
    without, with_l1 = (gan.fit(INPUTS, IMAGES, batch_size=4, steps=1, verbose=0).history for gan in gans)
    expected = without["loss/generator"][0] + 100.0 * with_l1["loss/l1"][0]
    assert with_l1["loss/generator"][0] == pytest.approx(expected, rel=1e-5)
    assert without["loss/discriminator"] == with_l1["loss/discriminator"]


def test_the_discriminator_sees_the_input_before_the_image(monkeypatch):
    gan, seen = tiny_model("pix2pix", model_options={}), []
    monkeypatch.setattr(gan, "discriminate", lambda images, labels: seen.append(images) or tf.zeros([len(images), 1]))
    pairs = np.concatenate([INPUTS, IMAGES], -1).astype(np.float32) / 127.5 - 1
    gan.forward(tf.constant(pairs[:4]), None, StepRng(0, 0, 4), ("discriminator",))
    real, fake = (images.numpy() for images in seen)
    np.testing.assert_array_equal(real, pairs[:4])
    np.testing.assert_array_equal(fake[..., 0], pairs[:4, ..., 0])
    assert (fake[..., 1] != pairs[:4, ..., 1]).any()


def test_pairs_and_their_two_sides_are_the_same_data(digits):
    pairs = np.concatenate([INPUTS, IMAGES], axis=-1)
    chunks = [tiny_model("pix2pix").make_chunk(*data) for data in ((INPUTS, IMAGES), (pairs, None), (pairs, [0] * 20))]
    for chunk in chunks:
        np.testing.assert_array_equal(chunk.images, pairs)
        assert chunk.targets is None


def test_dropout_is_noise_of_samples_and_not_of_exported_models(gan, tmp_path):
    first, again, other = (gan.translate(INPUTS[:5], seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(gan.sample(5, seed=1)[0], first)
    np.testing.assert_array_equal(gan.sample(20, seed=1)[0][:5], first)
    floats = tf.constant(INPUTS[:5] / np.float32(127.5) - 1)
    np.testing.assert_array_equal(gan(floats), gan(floats))


def test_a_grid_has_rows_of_inputs_outputs_and_images(gan):
    grid = gan.sample_grid(6, 8)
    rows = grid[2:].reshape(6, 14, -1)[:, :12, 2:].reshape(6, 12, 8, 14)[..., :12].transpose(0, 2, 1, 3)
    outputs = gan.translate(INPUTS[:16])[..., 0]
    for block, start in ((rows[:3], 0), (rows[3:], 8)):
        for row, expected in zip(block, (INPUTS[..., 0], outputs, IMAGES[..., 0]), strict=True):
            np.testing.assert_array_equal(row, expected[start : start + 8])
    assert gan.sample_grid(2, 30).shape[1] == 20 * 14 + 2  # as many columns as there are pairs


def test_masks_of_0_and_1_are_translated_and_shown():
    gan, masks = tiny_model("pix2pix"), INPUTS % 2
    gan.make_chunk(np.concatenate([masks, IMAGES], axis=-1), None)
    assert gan.sample(3)[0].shape == gan.translate(np.zeros_like(masks[:3])).shape == (3, 12, 12, 1)
    assert gan.sample_grid(3, 4).shape == (44, 58, 1)


@pytest.mark.parametrize(
    ("shape", "channels", "sizes"), [((256, 256, 3), 3, (54.4, 2.77)), ((64, 64, 3), 1, (29.2, 2.77))], ids=str
)
def test_networks_have_the_published_numbers_of_weights(shape, channels, sizes):
    """54.4 M and 2.77 M at 256×256."""
    context = recipes.RecipeContext(image_shape=shape, num_images=400, size="large")
    options = recipes.get("pix2pix", context).architecture_options | {"input_channels": channels}
    with without_weights():
        networks = build("unet_translator", shape, 1, 0, "tanh", options)
        counts = [networks[name]().count_params() / 1e6 for name in ("generator", "discriminator")]
    assert counts == pytest.approx(sizes, rel=0.01)


# Metrics.


class Constant:
    """A model whose outputs are fixed."""

    def __init__(self, outputs):
        self.outputs = outputs

    def translate(self, inputs):
        return self.outputs


def test_metrics_of_pairs_are_those_of_their_definitions():
    images = RNG.integers(0, 200, (3, 16, 16, 3), np.uint8)
    suite = PairedMetrics(images[..., :1], images)
    assert suite.measure(Constant(images)) == suite.real_vs_real()
    shifts = np.array([3, 6, 9], np.uint8).reshape(3, 1, 1, 1)
    measured = suite.measure(Constant(images + shifts))
    assert measured["paired_l1"] == pytest.approx(6 / 255)
    assert measured["paired_psnr"] == pytest.approx(np.mean(20 * np.log10(255 / shifts.ravel())), rel=1e-5)
    assert 0.9 < measured["paired_ssim"] < 1
    noise = RNG.integers(0, 256, images.shape, np.uint8)
    assert suite.measure(Constant(noise))["paired_ssim"] < 0.2


@pytest.mark.parametrize("size", [(16, 16), (3, 40), (1, 1)])
def test_metrics_are_defined_for_small_images(size):
    images = RNG.integers(0, 256, (2, *size, 1), np.uint8)
    assert PairedMetrics(images, images).measure(Constant(images))["paired_ssim"] == pytest.approx(1)


# Alpha.


def test_alpha_is_shown_over_a_checkerboard():
    images = np.zeros((2, 8, 8, 4), np.uint8)
    images[0] = (10, 20, 30, 255)
    opaque, clear = over_checkerboard(images)
    assert (opaque == (10, 20, 30)).all()
    assert set(np.unique(clear)) == {204, 255}
    grid = tile(images, 2)
    assert grid.shape[-1] == 3
    np.testing.assert_array_equal(grid[2:10, 12:20], clear)
    np.testing.assert_array_equal(as_color(images), [opaque, clear])


@pytest.mark.parametrize("name", ["diffaugment", "ada"])
def test_augmentations_change_the_colors_of_images_with_alpha_and_move_all_channels(name):
    augmentation, seed = augment.get(name), StepRng(0, 1, 6)
    images = tf.constant(RNG.uniform(-1, 1, (6, 16, 16, 4)).astype(np.float32))
    recolored = augmentation(images, seed, policy=["color"]).numpy()
    np.testing.assert_array_equal(recolored[..., 3], images[..., 3])
    np.testing.assert_allclose(recolored[..., :3], augmentation(images[..., :3], seed, policy=["color"]), atol=1e-6)
    geometry = {"diffaugment": "translation", "ada": "blit"}[name]
    alike = tf.repeat(images[..., :1], 4, axis=-1)
    moved = augmentation(alike, seed, policy=[geometry]).numpy()
    np.testing.assert_array_equal(moved[..., 3], moved[..., 0])


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_animations_of_images_with_alpha_show_a_checkerboard(tmp_path, suffix):
    frames = np.zeros((1, 2, 16, 16, 4), np.uint8)
    write_animation(locate(tmp_path / f"walk.{suffix}"), iter(frames))
    with Image.open(tmp_path / f"walk.{suffix}") as image:
        assert set(np.unique(np.asarray(image.convert("RGB")))) == {204, 255}


def test_grids_of_exported_models_show_alpha_as_other_grids_do():
    images = RNG.integers(0, 256, (3, 6, 10, 4), np.uint8)
    np.testing.assert_array_equal(saved_model._make_grid(tf.constant(images)), tile(images, 2))


# Recipe.


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"image_shape": (256, 256, 3), "size": "large"}, {"depth": 8, "batch": 1, "jitter": 30, "steps": 80_000}),
        ({"image_shape": (64, 96, 3), "size": "large", "num_devices": 2}, {"depth": 5, "batch": 8, "jitter": 8}),
        ({"image_shape": (8, 8, 3), "size": "small"}, {"depth": 3, "batch": 4, "jitter": 1}),
        ({"image_shape": (1024, 512, 3), "size": "medium"}, {"depth": 8, "batch": 1, "jitter": 60}),
    ],
    ids=str,
)
def test_the_recipe_follows_the_images(facts, expected):
    config = recipes.get("pix2pix", recipes.RecipeContext(num_images=400, **facts))
    chosen = {"depth": config.architecture_options["depth"], "batch": config.global_batch_size, "steps": config.steps}
    chosen |= {"jitter": config.model_options["jitter"]}
    assert {name: chosen[name] for name in expected} == expected
    with without_weights():
        create_gan(config, facts["image_shape"], 1, 3).get_networks()
    assert config.suite == "paired"


# Refusals.

PAIRS = {"model": "pix2pix", "architecture": "unet_translator", "architecture_options": {"depth": 2}}


def create(shape=(12, 12, 1), input_channels=1, **changes):
    config = tiny_config(**(PAIRS | changes))
    compatibility.check(config, traits(config))
    return create_gan(config, shape, 10, input_channels)


REFUSALS = {
    "no pairs": (lambda: create(input_channels=0), ConfigError, ("pix2pix", "digits", "paired")),
    "another model": (
        lambda: create(model="gan", architecture="mlp", architecture_options={}),
        ConfigError,
        ("model=gan", "pix2pix"),
    ),
    "two domains": (lambda: create(model="cyclegan", dataset_b="digits"), ConfigError, ("model=cyclegan", "pairs")),
    "channels of inputs": (
        lambda: create(architecture_options={"input_channels": 3}),
        ConfigError,
        ("input_channels", "3"),
    ),
    "latents": (lambda: create(architecture="mlp", architecture_options={}), ConfigError, ("pix2pix", "mlp")),
    "cycle": (lambda: create(metrics="cycle"), ConfigError, ("metrics=cycle", "pix2pix", "paired")),
    "photos": (lambda: create(metrics="photos"), ConfigError, ("metrics=photos", "pix2pix", "paired")),
    "suite of another model": (
        lambda: check_metrics(tiny_config(metrics="paired"), traits(tiny_config())),
        ConfigError,
        ("metrics=paired", "gan"),
    ),
    "number of samples": (
        lambda: create(metrics="paired", num_metric_samples=99),
        ConfigError,
        ("num_metric_samples=99", "paired"),
    ),
    "negative jitter": (lambda: create(model_options={"jitter": -1}), ConfigError, ("jitter", "-1")),
    "half a pixel": (lambda: create(model_options={"jitter": 0.5}), ConfigError, ("jitter", "0.5")),
    "negative weight": (lambda: create(model_options={"l1_weight": -1}), ConfigError, ("l1_weight", "-1")),
    "odd size": (
        lambda: recipes.get("pix2pix", recipes.RecipeContext(image_shape=(65, 64, 3), num_images=9)),
        ConfigError,
        ("65x64", "image_size=66,64"),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_settings_that_do_not_fit_pairs_are_refused(name):
    act, error, mentions = REFUSALS[name]
    check_refusal(act, error, *mentions)


@pytest.mark.parametrize(
    ("x", "y", "mentions"),
    [
        (INPUTS, IMAGES[:9], ("20", "9")),
        (INPUTS, IMAGES[:, :8], ("12, 12", "8, 12")),
        (INPUTS, IMAGES / np.float32(255), ("uint8", "float32")),
        (INPUTS, np.concatenate([IMAGES, IMAGES], -1), ("(12, 12, 3)", "(12, 12, 2)")),
        (INPUTS, None, ("(12, 12, 1)", "(12, 12, 2)")),
        (JOINED, LABELS, ("labels", "Pix2Pix")),
        (JOINED, np.eye(5)[LABELS], ("labels", "Pix2Pix")),
    ],
    ids=["number", "size", "dtype", "channels", "inputs alone", "labels", "one-hot labels"],
)
def test_data_that_is_no_pairs_is_refused(gan, x, y, mentions):
    check_refusal(lambda: gan.fit(x, y, batch_size=4, steps=2, verbose=0), DataError, *mentions)


def test_images_may_be_a_dataset():
    gan = tiny_model("pix2pix")
    gan.fit(INPUTS, tf.data.Dataset.from_tensor_slices(IMAGES).batch(3), batch_size=4, steps=1, verbose=0)
    assert gan.step == 1


def test_labels_of_pairs_balance_classes():
    gan = tiny_model("pix2pix")
    gan.fit(JOINED, LABELS, batch_size=4, steps=1, balance_classes=True, verbose=0)
    assert gan.step == 1


def test_networks_for_images_of_any_size_train():
    gan = Pix2Pix(
        networks={
            "generator": lambda: keras.Sequential(
                [keras.Input((None, None, 1)), keras.layers.Conv2D(1, 3, padding="same", activation="tanh")]
            ),
            "discriminator": lambda: keras.Sequential([keras.Input((None, None, 2)), keras.layers.Conv2D(1, 3, 2)]),
        }
    )
    gan.compile("adam")
    gan.fit(INPUTS, IMAGES, batch_size=4, steps=1, verbose=0)
    assert gan.sample(3)[0].shape == (3, 12, 12, 1)


# End to end.


@pytest.mark.slow
def test_pairs_are_prepared_trained_resumed_evaluated_translated_and_exported(tmp_path, capsys):
    for folder, channels in (("input", 1), ("target", 4)):
        (tmp_path / "files" / folder).mkdir(parents=True)
        for number in range(8):
            pixels = RNG.integers(0, 256, (16, 16, channels), np.uint8)
            Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(tmp_path / f"files/{folder}/{number}.png")

    def run(*argv, main=commands.main):
        capsys.readouterr()
        assert main(["trainer", *argv]) == 0
        return capsys.readouterr().out

    run("prepare", f"--source={tmp_path / 'files'}", f"--out={tmp_path / 'set'}", "--paired", "--channels=4")
    options = {
        "generator_filters": 4,
        "depth": 3,
        "dropout": 0.5,
        "discriminator_filters": 4,
        "discriminator_layers": 1,
    }
    flags = ["--recipe=pix2pix", f"--dataset={tmp_path / 'set'}", f"--dataset_b={tmp_path / 'set'}"]
    flags += [f"--architecture_options={json.dumps(options)}", "--global_batch_size=4", "--strategy=one_device"]
    flags += ["--precision=float32"]
    states = []
    for name, steps in (("cut", (2, 4)), ("whole", (4,))):
        for number in steps:
            run(f"--job_dir={tmp_path / name}", *flags, f"--steps={number}", main=task.main)
        manifest = json.loads((tmp_path / name / "checkpoints/step-00000004/MANIFEST.json").read_text())
        states.append(manifest["state_sha256"])
    assert states[0] == states[1]
    job = f"--job_dir={tmp_path / 'cut'}"
    metrics = json.loads(run("evaluate", job))["metrics"]
    assert set(metrics) == {"paired_l1", "paired_psnr", "paired_ssim"}
    run("generate", job, f"--images={tmp_path / 'files/input'}", f"--out={tmp_path / 'outputs'}/")
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == [f"{number}.png" for number in range(8)]
    with Image.open(tmp_path / "outputs/3.png") as image:
        assert (image.size, image.mode) == ((16, 16), "RGBA")
    run("generate", job, f"--out={tmp_path / 'grid.png'}")
    with Image.open(tmp_path / "grid.png") as image:
        assert image.mode == "RGB"
    model = tf.saved_model.load(str(tmp_path / "cut/model")).signatures["serving_default"]
    inputs = load(str(tmp_path / "set")).images[:2, ..., :1]
    assert model(images=tf.constant(inputs))["images"].shape == (2, 16, 16, 4)


def test_a_model_without_dropout_exports_what_it_samples():
    options = {"generator_filters": 4, "discriminator_filters": 4, "depth": 2, "discriminator_layers": 1}
    gan = from_config(tiny_config(**(PAIRS | {"architecture_options": options})), (12, 12, 1), 10, input_channels=1)
    floats = tf.constant(INPUTS[:3] / np.float32(127.5) - 1)
    outputs = np.round((gan(floats).numpy() + 1) * 127.5)
    assert np.abs(outputs - gan.translate(INPUTS[:3])).max() <= 1
