"""Datasets and data loaders of other libraries are read into memory, or refused by name."""

import functools

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from refusals import check_refusal

from trainer import ConditionalGAN, CycleGAN
from trainer.data.field_names import LABEL_NAMES
from trainer.errors import ConfigError, DataError
from trainer.models import in_memory
from trainer.models.arrays import as_images
from trainer.models.in_memory import read_pair
from trainer.models.training_inputs import count_steps

IMAGES = np.arange(10 * 4 * 5 * 3, dtype=np.uint8).reshape(10, 4, 5, 3)
LABELS = np.arange(10) % 3
FLAT = IMAGES.reshape(10, -1)


class Batches(keras.utils.PyDataset):
    """Batches of three examples, the last one smaller; forever if `endless`."""

    def __init__(self, *arrays, endless=False):
        super().__init__()
        self.arrays, self.endless = arrays, endless

    @property
    def num_batches(self):
        return None if self.endless else 4

    def __getitem__(self, index):
        parts = [array[3 * index : 3 * index + 3] for array in self.arrays]
        return tuple(parts) if len(parts) > 1 else parts[0]


class Lengthy(keras.utils.PyDataset):
    """The older form of a dataset of Keras."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return IMAGES[5 * index : 5 * index + 5], LABELS[5 * index : 5 * index + 5]


class Negative(keras.utils.PyDataset):
    def __len__(self):
        return -1

    def __getitem__(self, index):
        raise IndexError


class Rows:
    """A table as Hugging Face's datasets are: a length, and a dict per example."""

    def __init__(self, **columns):
        self.columns = columns

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index):
        return {name: column[index] for name, column in self.columns.items()}


class Items:
    """A list of examples, as the map-style datasets of PyTorch are."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Frame:
    """An object that NumPy converts, as those of pandas."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __array__(self, dtype=None, copy=None):
        return self.array

    def __len__(self):
        return len(self.array)

    def __getitem__(self, name):
        raise KeyError(name)


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0])


PICTURES = [Image.fromarray(image) for image in IMAGES]
FILES = [tf.io.encode_png(image).numpy() for image in IMAGES]


@pytest.mark.parametrize(
    ("x", "y", "labels"),
    [
        pytest.param(dataset(IMAGES), None, None, id="Dataset"),
        pytest.param(dataset(IMAGES, LABELS), None, LABELS, id="Dataset of pairs"),
        pytest.param(dataset(IMAGES, LABELS).batch(4), None, LABELS, id="batches"),
        pytest.param(dataset(IMAGES).batch(4), LABELS, LABELS, id="batches beside y"),
        pytest.param(dataset(IMAGES, LABELS).batch(5, drop_remainder=True), None, LABELS, id="full batches"),
        pytest.param(dataset(IMAGES, np.eye(3)[LABELS]), None, np.eye(3)[LABELS], id="one-hot"),
        pytest.param(dataset(IMAGES[:5], LABELS[:5]).repeat(2).take(5), None, LABELS[:5], id="repeated"),
        pytest.param(
            dataset(IMAGES, LABELS).map(lambda x, y: {"image": x, "label": y}).batch(3), None, LABELS, id="dicts"
        ),
        pytest.param(
            dataset(IMAGES).filter(lambda x: True).apply(tf.data.experimental.assert_cardinality(10)),
            *(None, None),
            id="asserted length",
        ),
        pytest.param(dataset(FILES).map(tf.io.decode_png), None, None, id="decoded files"),
        pytest.param(
            dataset(FILES, LABELS).map(lambda x, y: (tf.io.decode_png(x), y)).batch(3),
            None,
            LABELS,
            id="decoded batches",
        ),
        pytest.param(memoryview(IMAGES), LABELS, LABELS, id="memoryview"),
        pytest.param(Batches(IMAGES), None, None, id="PyDataset"),
        pytest.param(Batches(IMAGES, LABELS), None, LABELS, id="PyDataset of pairs"),
        pytest.param(Lengthy(), None, LABELS, id="PyDataset with a length"),
        pytest.param(Items(*zip(PICTURES, LABELS.tolist(), strict=True)), None, LABELS, id="torchvision"),
        pytest.param(Rows(image=PICTURES, label=LABELS), None, LABELS, id="Hugging Face"),
        pytest.param(Rows(img=PICTURES, fine_label=LABELS), None, None, id="other names"),
        pytest.param((IMAGES, LABELS), None, LABELS, id="pair"),
        pytest.param((IMAGES, IMAGES), None, IMAGES, id="pair of domains"),
        pytest.param((Frame(IMAGES), Frame(LABELS)), None, LABELS, id="pair of frames"),
        *(
            pytest.param({image: IMAGES, label: LABELS}, None, LABELS, id=f"dict of {image} and {label}")
            for image, label in (*(("image", name) for name in LABEL_NAMES), ("imgs", "label"), ("pixel_values", "y"))
        ),
        pytest.param((dataset(IMAGES), dataset(LABELS)), None, LABELS, id="pair of Datasets"),
        pytest.param(dataset(IMAGES), dataset(IMAGES).batch(3), IMAGES, id="two domains"),
        pytest.param(list(IMAGES), LABELS, LABELS, id="list"),
        pytest.param(PICTURES, LABELS, LABELS, id="list of pictures"),
    ],
)
def test_examples_are_read_in_their_order(x, y, labels):
    for rank in (3, None):
        images, read_labels, _ = read_pair(x, y, rank)
        images = np.asarray(images)
        np.testing.assert_array_equal(images, IMAGES[: len(images)])
        assert len(images) == (10 if labels is None else len(labels))
        np.testing.assert_array_equal(*((read_labels, labels) if labels is not None else (read_labels is None, True)))


@pytest.mark.parametrize("x", [dataset(FLAT), dataset(FLAT).batch(4), Batches(FLAT), Items(*FLAT), Frame(FLAT)])
def test_flat_images_are_read(x):
    np.testing.assert_array_equal(np.asarray(read_pair(x, None, 1)[0]), FLAT)


def test_modules_whose_names_begin_like_a_library_are_not_the_library():
    images = np.zeros((2, 3, 8, 8), np.uint8)
    x = type("OwnFrame", (Frame,), {"__module__": "torch_frames"})(images)
    assert read_pair(x, None, 3)[0] is x


def test_a_tuple_of_images_is_no_pair():
    x = tuple(IMAGES[:2])
    assert read_pair(x, None, 3) == (x, None, None)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (IMAGES, None, None),
        (dataset(IMAGES), None, None),
        (Rows(image=PICTURES, label=LABELS), None, None),
        (dataset(IMAGES, LABELS).batch(4), None, 4),
        (dataset(IMAGES, LABELS).batch(5, drop_remainder=True), None, 5),
        (Batches(IMAGES, LABELS), None, 3),
        (Lengthy(), None, 5),
        (dataset(IMAGES).batch(4), dataset(IMAGES).batch(3), 4),
        (IMAGES, dataset(IMAGES).batch(3), 3),
        ((dataset(IMAGES).batch(4), dataset(LABELS).batch(4)), None, 4),
    ],
)
def test_batches_of_an_object_have_a_size(x, y, expected):
    assert read_pair(x, y, 3)[2] == expected


def ragged():
    return Items(IMAGES[0], IMAGES[1, :2])


@pytest.mark.parametrize(
    ("x", "y", "mentions"),
    [
        pytest.param(dataset(IMAGES).repeat(), None, ("x", "repeat"), id="endless Dataset"),
        pytest.param(dataset(IMAGES).filter(lambda x: True), None, ("x", "assert_cardinality"), id="unknown length"),
        pytest.param(
            tf.data.Dataset.from_generator(lambda: IMAGES, output_signature=tf.TensorSpec((4, 5, 3), tf.uint8)),
            *(None, ("x", "length")),
            id="from_generator",
        ),
        pytest.param(Batches(IMAGES, endless=True), None, ("x", "Batches"), id="endless PyDataset"),
        pytest.param((image for image in IMAGES), None, ("x", "generator"), id="generator"),
        pytest.param(iter(IMAGES), None, ("x", "iterator"), id="iterator"),
        pytest.param(zip(IMAGES, LABELS, strict=True), None, ("x", "zip"), id="zip"),
        pytest.param(dataset(IMAGES, LABELS), LABELS, ("x", "y"), id="labels twice"),
        pytest.param(IMAGES, dataset(IMAGES, LABELS), ("y",), id="pairs as y"),
        pytest.param(dataset(IMAGES, LABELS, LABELS), None, ("x", "3"), id="weights"),
        pytest.param(dataset(IMAGES).map(lambda x: {"photo": x}), None, ("x", "photo", "image"), id="other keys"),
        pytest.param({"x": IMAGES, "image": IMAGES}, None, ("x", "image"), id="two images"),
        pytest.param(dataset(IMAGES[:0]), None, ("x",), id="empty Dataset"),
        pytest.param(Items(), None, ("x",), id="empty items"),
        pytest.param(ragged(), None, ("x", "(4, 5, 3)", "(2, 5, 3)"), id="ragged items"),
        pytest.param(IMAGES, {"label": LABELS}, ("y", "label"), id="dict as y"),
        pytest.param(dataset(IMAGES).window(4), None, ("x", "batch"), id="window"),
        pytest.param(dataset(({"image": IMAGES}, LABELS)), None, ("x", "dict", "map"), id="dict in a pair"),
        pytest.param(dataset(((IMAGES,), LABELS)), None, ("x", "tuple", "map"), id="tuple in a pair"),
        pytest.param(Negative(), None, ("x", "Negative"), id="negative length"),
        pytest.param(
            dataset(IMAGES).apply(tf.data.experimental.assert_cardinality(50)),
            None,
            ("x", "10", "50"),
            id="cardinality",
        ),
        pytest.param(Batches(np.tile(IMAGES, (2, 1, 1, 1))[:12], LABELS), None, ("x", "labels"), id="few labels"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(x, y, mentions):
    check_refusal(functools.partial(read_pair, x, y, 3), DataError, *mentions)


class Large:
    """A dataset larger than any memory, of which no more than one example may be read."""

    num_read = 0

    def __len__(self):
        return 2**40

    def __getitem__(self, index):
        self.num_read += 1
        return IMAGES[0]


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr"])
@pytest.mark.parametrize("make", [list, lambda pictures: Rows(image=pictures)], ids=["list", "Hugging Face"])
def test_pictures_whose_values_are_no_pixels_are_refused(make, mode):
    pictures = [Image.fromarray(image).convert(mode) for image in IMAGES]
    check_refusal(lambda: as_images(read_pair(make(pictures), None, 3)[0]), DataError, "x", mode)


@pytest.mark.parametrize("make", [Large, lambda: dataset(IMAGES).repeat(2**40), lambda: Batches(*[IMAGES])])
def test_more_than_a_part_of_the_memory_is_refused_at_once(make, monkeypatch):
    x = make()
    if isinstance(x, Batches):
        monkeypatch.setattr(in_memory, "machine_memory_mib", lambda: 4 * 300 / 2**20)
    check_refusal(functools.partial(read_pair, x, None, 3), DataError, "x", type(x).__name__, "GiB", "prepare")
    assert getattr(x, "num_read", 1) == 1


def test_a_large_array_in_a_file_is_refused_before_it_is_read(tmp_path):
    with h5py.File(tmp_path / "images.h5", "w") as file:
        large = file.create_dataset("large", (2**40, 4, 5, 3), "uint8")
        check_refusal(functools.partial(read_pair, large, None, 3), DataError, "x", "Dataset", "GiB")
        small = file.create_dataset("small", data=IMAGES)
        assert read_pair(small, None, 3)[0] is small


class Tiny(ConditionalGAN):
    """A conditional GAN of 4×5×3 images in 0..255."""

    def get_generator(self):
        return keras.Sequential([keras.Input((5,)), keras.layers.Dense(60), keras.layers.Reshape((4, 5, 3))])

    def get_discriminator(self):
        return keras.Sequential([keras.Input((4, 5, 6)), keras.layers.Flatten(), keras.layers.Dense(1)])


@pytest.fixture(scope="module")
def gan():
    model = Tiny(2, 3)
    model.compile(optimizer="adam", jit_compile=False)
    return model


def test_fit_trains_on_what_keras_reads_from_a_folder(tmp_path, gan):
    for label in range(3):
        (tmp_path / f"class {label}").mkdir()
        for number, image in enumerate(IMAGES[label::3]):
            Image.fromarray(image * 1 if number else image * 0 + 255).save(
                tmp_path / f"class {label}" / f"{number}.png"
            )
    folder = keras.utils.image_dataset_from_directory(tmp_path, image_size=(4, 5), batch_size=4, verbose=False)
    gan.fit(folder, batch_size=5, epochs=1, verbose=0)
    assert gan.step == 2 and gan.image_range == (0.0, 255.0)


@pytest.mark.parametrize(
    ("x", "settings", "steps_per_epoch"),
    [
        pytest.param(dataset(IMAGES, LABELS).batch(5), {}, 2, id="Dataset"),
        pytest.param(Batches(IMAGES, LABELS), {}, 3, id="PyDataset"),
        pytest.param(Batches(IMAGES, LABELS), {"batch_size": 5}, 2, id="stated size"),
        pytest.param(dataset(np.tile(IMAGES, (7, 1, 1, 1)), np.tile(LABELS, 7)), {}, 2, id="no batches"),
    ],
)
def test_batches_of_fit_are_those_of_the_data_unless_their_size_is_stated(gan, x, settings, steps_per_epoch):
    params = {}
    callback = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: params.update(callback.params))
    gan.fit(x, steps=0, verbose=0, callbacks=callback, **settings)
    assert params["steps"] == steps_per_epoch


def test_fit_takes_the_number_of_steps_that_its_arguments_say(gan):
    before = gan.step
    for settings in ({"epochs": 0}, {"steps": 0}):
        assert gan.fit(IMAGES, LABELS, batch_size=5, verbose=0, **settings) is not None
        assert gan.step == before


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"),
    [(0, None, 0), (1, None, 7), (2.5, None, 18), (1e-9, None, 1), (None, 3, 3), (9, 0, 0)],
)
def test_steps_of_epochs(epochs, steps, expected):
    assert count_steps(epochs, steps, 7) == expected


@pytest.mark.parametrize(
    ("epochs", "steps", "name"),
    [
        *((value, None, "epochs") for value in (None, -1, "3", float("nan"), float("inf"), [1], True, 1e308)),
        *((1, value, "steps") for value in (-1, 3.7, "3", float("nan"), True)),
    ],
)
def test_numbers_of_epochs_and_steps_that_are_none_are_refused(epochs, steps, name):
    check_refusal(lambda: count_steps(epochs, steps, 7), ConfigError, name, repr(epochs if name == "epochs" else steps))


@pytest.mark.parametrize(
    ("use", "mentions"),
    [
        *((lambda gan, n=n: gan.sample(n), ("num_images", repr(n))) for n in (0, -1, 2.5, "4", None, 10**9)),
        *((lambda gan, n=n: gan.fit(IMAGES, LABELS, batch_size=n), ("batch_size", repr(n))) for n in (0, 2.5, "32")),
        (lambda gan: gan.sample_grid(2, 0), ("0",)),
    ],
)
def test_numbers_of_images_that_are_none_are_refused(gan, use, mentions):
    check_refusal(lambda: use(gan), ConfigError, *mentions)


def test_a_refused_fit_changes_no_range(gan):
    gan.fit(IMAGES.astype("float32"), LABELS, batch_size=5, steps=gan.step + 1, verbose=0)
    before = gan.image_range
    floats = np.linspace(-1, 1, IMAGES.size, dtype="float32").reshape(IMAGES.shape)
    check_refusal(lambda: gan.fit(floats, LABELS, batch_size=5, verbose=0), DataError, "x", "-1..1", "0..255")
    check_refusal(lambda: gan.fit(floats, LABELS, batch_size=50, verbose=0), ConfigError, "batch_size", "50")
    assert gan.image_range == before


def test_translations_stay_in_the_range_of_the_training_images():
    class Translator(CycleGAN):
        def get_generator(self):
            return keras.Sequential([keras.Input((4, 5, 3)), keras.layers.Conv2D(3, 3, padding="same")])

        get_discriminator = get_generator

    model = Translator()
    model.compile(optimizer="adam", loss=lambda target, output: target - output)
    check_refusal(lambda: model.sample(0), ConfigError, "num_images", "0")
    check_refusal(lambda: model.translate(IMAGES.astype("float32"), "b"), DataError, "images", "-1..1")
    np.testing.assert_array_equal(model.translate(list(IMAGES), "b"), model.translate(IMAGES, "b"))
