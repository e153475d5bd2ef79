"""A compiled step is used again by the next `fit`, with the same bits, unless something that it depends on changed."""

import gc
import types
import weakref

import keras
import numpy as np
import pytest
from conftest import tiny_gan, values_of

from trainer.callbacks import Checkpoint
from trainer.models.compiled_step import CompiledStep
from trainer.training.distributed import consensus


def counted(**settings):
    """A GAN, and a list that grows whenever its step is traced."""
    gan, traces = tiny_gan(**settings), []
    forward = type(gan).forward

    def counting(*arguments):
        traces.append(1)
        return forward(gan, *arguments)

    gan.forward = counting
    return gan, traces


def fit(gan, images, **settings):
    gan.fit(images, **({"batch_size": 16, "verbose": 0} | settings))


CHANGES_NOTHING = {
    "more steps": lambda gan, images, path: fit(gan, images[:32], steps=4),
    "epochs": lambda gan, images, path: fit(gan, images[:32], epochs=3),
    "other images": lambda gan, images, path: fit(gan, images[32:64], steps=4),
    "other callbacks": lambda gan, images, path: fit(gan, images[:32], steps=4, callbacks=[Checkpoint(path)]),
    "other executions": lambda gan, images, path: fit(gan, images[:32], steps=4, steps_per_execution=1),
    "samples": lambda gan, images, path: (gan.sample(3), gan.sample_grid(2, 2), fit(gan, images[:32], steps=4)),
    "predictions": lambda gan, images, path: (
        gan.predict(np.zeros((2, 8), "f"), verbose=0),
        gan.summary(print_fn=lambda text: None),
        fit(gan, images[:32], steps=4),
    ),
    "saved weights": lambda gan, images, path: (
        gan.save_weights(path / "a.weights.h5"),
        gan.load_weights(path / "a.weights.h5"),
        fit(gan, images[:32], steps=4),
    ),
    "another learning rate": lambda gan, images, path: (
        setattr(gan.optimizer, "learning_rate", 0.1),
        fit(gan, images[:32], steps=4),
    ),
}

CHANGES_THE_STEP = {
    "batch size": lambda gan, images: fit(gan, images[:32], steps=4, batch_size=8),
    "number of images": lambda gan, images: fit(gan, images[:64], steps=4),
    "type of images": lambda gan, images: fit(gan, images[:32].astype("float32") / 127.5 - 1, steps=4),
    "flips": lambda gan, images: fit(gan, images[:32], steps=4, horizontal_flips=True),
    "layer": lambda gan, images: (
        [setattr(layer, "rate", 0.9) for layer in gan.discriminator.layers if hasattr(layer, "rate")],
        fit(gan, images[:32], steps=4),
    ),
    "frozen layer": lambda gan, images: (
        setattr(gan.generator.layers[0], "trainable", False),
        fit(gan, images[:32], steps=4),
    ),
    "frozen weight": lambda gan, images: (
        setattr(gan.generator.weights[0], "trainable", False),
        fit(gan, images[:32], steps=4),
    ),
    "constraint": lambda gan, images: (
        setattr(gan.generator.weights[0], "constraint", keras.constraints.MaxNorm(0.1)),
        fit(gan, images[:32], steps=4),
    ),
    "regularizer": lambda gan, images: (
        setattr(gan.generator.weights[0], "regularizer", keras.regularizers.L2(0.1)),
        fit(gan, images[:32], steps=4),
    ),
    "method": lambda gan, images: (
        setattr(gan, "add_losses", lambda loss_output, latents: None),
        fit(gan, images[:32], steps=4),
    ),
    "method of a layer": lambda gan, images: (
        setattr(gan.generator.layers[0], "call", gan.generator.layers[0].call),
        fit(gan, images[:32], steps=4),
    ),
    "optimizer": lambda gan, images: (
        setattr(gan.optimizers["generator"], "beta_1", 0.1),
        fit(gan, images[:32], steps=4),
    ),
    "schedule": lambda gan, images: (
        setattr(gan.optimizers["generator"], "learning_rate", keras.optimizers.schedules.CosineDecay(0.1, 10)),
        fit(gan, images[:32], steps=4),
    ),
    "augmentation": lambda gan, images: (
        setattr(gan.objective, "augmenter", None),
        fit(gan, images[:32], steps=4),
    ),
    "attribute": lambda gan, images: (setattr(gan, "latent_distribution", "uniform"), fit(gan, images[:32], steps=4)),
}


class Part:
    """A part of a GAN that is no Keras layer, with settings in all places where users put them."""

    rate = 0.5

    def __init__(self):
        self.weights = np.ones(3)
        self.options = {"a": 1.0}
        self.terms = [1.0]
        self.names = {"a"}
        self.inner = {"deep": [{"b": (1, np.zeros(2))}]}
        self.loss = keras.losses.Huber()
        self._step = self.history = self._called = 1

    def scale(self, loss):
        return loss


class OwnPart(Part):
    pass


CHANGED_PARTS = {
    "array in place": lambda part: part.weights.__setitem__(0, 5.0),
    "nested array in place": lambda part: part.inner["deep"][0]["b"][1].__setitem__(0, 5.0),
    "array replaced": lambda part: setattr(part, "weights", np.zeros(3)),
    "class attribute overridden": lambda part: setattr(part, "rate", 0.1),
    "class attribute": lambda part: setattr(OwnPart, "rate", 0.1),
    "method overridden": lambda part: setattr(part, "scale", lambda loss: 2 * loss),
    "method of the class": lambda part: setattr(OwnPart, "scale", lambda self, loss: 2 * loss),
    "key added": lambda part: part.options.update(b=1.0),
    "key removed": lambda part: part.options.clear(),
    "value changed": lambda part: part.options.update(a=2.0),
    "list longer": lambda part: part.terms.append(2.0),
    "list shorter": lambda part: part.terms.pop(),
    "set changed": lambda part: part.names.add("b"),
    "type changed": lambda part: part.options.update(a=1),
    "loss replaced": lambda part: setattr(part, "loss", keras.losses.Huber(delta=0.5)),
    "name of an attribute of a GAN": lambda part: setattr(part, "_step", 2),
    "name of a public attribute of a GAN": lambda part: setattr(part, "history", 2),
    "name of an attribute of a Keras layer": lambda part: setattr(part, "_called", 2),
    "attribute of a loss": lambda part: setattr(part.loss, "name", "other"),
}


@pytest.mark.parametrize("name", CHANGED_PARTS)
def test_every_change_of_a_part_is_noticed(name):
    gan = types.SimpleNamespace(part=OwnPart())
    step = CompiledStep(gan, (), None)
    assert step.fits(gan, ()) and not step.fits(gan, (1,))
    try:
        CHANGED_PARTS[name](gan.part)
        assert not step.fits(gan, ())
    finally:
        for attribute in {"rate", "scale"} & vars(OwnPart).keys():
            delattr(OwnPart, attribute)


@pytest.mark.parametrize("module", ["tensorflow_gan", "keras_gan", "numpy_gan"])
@pytest.mark.parametrize("name", ["value changed", "class attribute"])
def test_changes_in_modules_named_like_a_library_are_noticed(module, name, monkeypatch):
    monkeypatch.setattr(OwnPart, "__module__", module)
    monkeypatch.setattr(Part, "__module__", module)
    test_every_change_of_a_part_is_noticed(name)


@pytest.mark.parametrize(
    "change",
    [
        lambda gan: setattr(gan, "forward", lambda *arguments: type(gan).forward(gan, *arguments)),
        lambda gan: setattr(gan, "latent_distribution", "uniform"),
        lambda gan: setattr(gan, "sample_labels", lambda rng: None),
        lambda gan: setattr(gan, "labels_are_codes", True),
        lambda gan: setattr(gan.objective.loss, "mine", 1) or setattr(type(gan), "mine", 1),
    ],
    ids=["forward", "attribute", "inherited method", "inherited attribute", "added attributes"],
)
def test_a_changed_method_or_attribute_of_a_gan_is_noticed(change, request):
    class OwnGAN(type(tiny_gan())):
        mine = 0

    gan = tiny_gan()
    gan.__class__ = OwnGAN
    step = CompiledStep(gan, (), None)
    assert step.fits(gan, ())
    change(gan)
    assert not step.fits(gan, ())


@pytest.mark.parametrize("name", CHANGES_NOTHING)
def test_a_step_is_traced_once(digits, tmp_path, name):
    gan, traces = counted()
    fit(gan, digits.images[:32], steps=2)
    before = len(traces)
    CHANGES_NOTHING[name](gan, digits.images, tmp_path)
    assert gan.step >= 4 and len(traces) == before > 0


@pytest.mark.parametrize("name", CHANGES_THE_STEP)
def test_a_step_is_traced_again_for_what_it_depends_on(digits, name):
    gan, traces = counted(augment="diffaugment")
    fit(gan, digits.images[:32], steps=2)
    before = len(traces)
    CHANGES_THE_STEP[name](gan, digits.images)
    assert gan.step == 4 and len(traces) > before


def test_several_fits_give_the_bits_of_one(digits):
    whole, parts = tiny_gan(ema_half_life_images=64.0), tiny_gan(ema_half_life_images=64.0)
    fit(whole, digits.images[:32], steps=6)
    for steps in (1, 2, 5, 6):
        fit(parts, digits.images[:32], steps=steps)
    expected = values_of(whole)
    assert all((value == expected[name]).all() for name, value in values_of(parts).items())


def test_new_data_replaces_the_data_of_an_earlier_fit(digits):
    first, second = tiny_gan(), tiny_gan()
    fit(first, digits.images[:32], steps=2)
    fit(first, digits.images[32:64], steps=3)
    fit(second, digits.images[:32], steps=3)
    assert any((value != values_of(second)[name]).any() for name, value in values_of(first).items())


def test_fit_keeps_no_reference_to_its_data(digits):
    gan, images = tiny_gan(model="conditional"), digits.images[:32].copy()
    images = images.view(type("Watched", (np.ndarray,), {}))
    gone = weakref.ref(images)
    fit(gan, images, y=digits.labels[:32], steps=2, balance_classes=True)
    del images
    gc.collect()
    assert gone() is None


def test_numbers_of_the_machines_are_gathered_without_a_second_trace(two_replicas):
    assert [consensus.gather_per_replica(two_replicas, number) for number in (3, 4)] == [[3, 3], [4, 4]]
    assert consensus._gather_function(two_replicas).experimental_get_tracing_count() == 1
