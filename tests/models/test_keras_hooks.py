"""Every public hook of Keras works on a GAN or is refused by name. docs/keras.md lists the rows of this table."""

import copy
import inspect
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from broken_updates import break_updates
from conftest import values_of
from keras import callbacks, dtype_policies, layers, optimizers
from keras.optimizers import schedules
from refusals import check_refusal

from trainer import GAN
from trainer.callbacks.base import Priority
from trainer.errors import ConfigError, NetworkError
from trainer.models import losses
from trainer.models.keras_methods import as_callbacks
from trainer.training.optimizers import clone

DOCS = Path(__file__).parent.parent.parent / "docs" / "keras.md"


@dataclass
class Scene:
    """Inputs of a row.

    Attributes:
        gan: A trained GAN, which all rows share.
        images: uint8 [32, 4, 4, 1].
        path: An empty folder.
        capsys: Captured output.
        two_replicas: A mirrored strategy.
    """

    gan: GAN
    images: np.ndarray
    path: Path
    capsys: pytest.CaptureFixture[str]
    two_replicas: tf.distribute.Strategy

    def fit(self, gan=None, steps=2, **settings):
        """Trains for some more steps."""
        gan = gan or self.gan
        settings = {"batch_size": 16, "steps": gan.step + steps, "verbose": 0} | settings
        return gan.fit(self.images, **settings)

    def moved(self, gan, steps=2, **settings):
        """Returns the names of the weights that training changes."""
        before = values_of(gan)
        self.fit(gan, steps, **settings)
        return {name for name, value in values_of(gan).items() if (value != before[name]).any()}


def network(input_shape, *stack):
    return keras.Sequential([keras.Input(input_shape), *stack])


def generator(*extra):
    return network((4,), layers.Dense(8, "relu"), *extra, layers.Dense(16, "tanh"), layers.Reshape((4, 4, 1)))


def discriminator(*extra):
    return network((4, 4, 1), layers.Flatten(), layers.Dense(8, "relu"), *extra, layers.Dense(1))


def compiled(generator=generator, discriminator=discriminator, **settings):
    """A GAN of 4×4 images."""
    gan = GAN(4, networks={"generator": generator, "discriminator": discriminator})
    gan.compile(**({"optimizer": "adam", "jit_compile": False} | settings))
    return gan


def same(first, second):
    expected = values_of(second)
    return all((value == expected[name]).all() for name, value in values_of(first).items())


# Rows: each is a function of the scene. A row that is refused returns what `check_refusal` takes.


@dataclass
class Refused:
    """A row that is refused: the call, the type of its error, and what the message mentions."""

    act: object
    error: type[Exception]
    mentions: tuple[str, ...]


def refused(act, error, *mentions):
    return Refused(act, error, mentions)


WORKS, REFUSED = {}, {}


def works(name):
    return lambda function: WORKS.setdefault(name, function)


# Callbacks.


@works("callbacks.BackupAndRestore")
def _(scene):
    def fit(gan, *more):
        backup = callbacks.BackupAndRestore(scene.path / "backup")
        gan.fit(scene.images, epochs=3, batch_size=16, steps_per_execution=1, verbose=0, callbacks=[backup, *more])

    class Fail(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.step == 3:
                raise InterruptedError

    evaluated = []
    record = callbacks.LambdaCallback(on_train_begin=lambda logs: evaluated.append(resumed.step))
    record.priority = Priority.EVALUATION
    failed, resumed, whole = (compiled(ema_half_life_images=64.0) for _ in range(3))
    with pytest.raises(InterruptedError):
        fit(failed, Fail())
    fit(resumed, record)
    scene.fit(whole, steps=6)
    assert evaluated == [2] and resumed.step == 6 and same(resumed, whole)


@works("callbacks.Callback")
def _(scene):
    seen = set()

    class Reading(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            optimizer = self.model.optimizer
            seen.add((int(optimizer.iterations), float(optimizer.learning_rate), self.model.step))

    first = scene.gan.step
    scene.fit(callbacks=Reading(), steps_per_execution=1)  # one callback without a list
    assert {step for _, _, step in seen} == {first + 1, first + 2}
    assert all(iterations == step and rate > 0 for iterations, rate, step in seen)


@works("callbacks.CallbackList")
def _(scene):
    epochs = []
    record = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epochs.append(epoch))
    scene.fit(callbacks=callbacks.CallbackList([record]))
    scene.fit(callbacks=[[record], (callbacks.History(),)])
    assert len(epochs) == 2


@works("callbacks.CSVLogger")
def _(scene):
    scene.fit(steps=4, callbacks=callbacks.CSVLogger(scene.path / "log.csv"))
    assert len((scene.path / "log.csv").read_text().splitlines()) == 3


@works("callbacks.EarlyStopping")
def _(scene):
    gan, first = scene.gan, scene.gan.step
    scene.fit(steps=20, callbacks=callbacks.EarlyStopping("loss/generator", mode="min", min_delta=100.0))
    assert gan.step == first + 4


REFUSED["EarlyStopping with restore_best_weights"] = lambda scene: refused(
    lambda: scene.fit(callbacks=callbacks.EarlyStopping("loss/generator", restore_best_weights=True)),
    ConfigError,
    *("EarlyStopping", "restore_best_weights", "trainer.callbacks.Checkpoint"),
)


@works("callbacks.History")
def _(scene):
    history = callbacks.History()
    assert scene.fit(callbacks=[history]) is history and history.history["loss/generator"]


@works("callbacks.LambdaCallback")
def _(scene):
    calls = []
    scene.fit(callbacks=callbacks.LambdaCallback(on_train_begin=lambda logs: calls.append(1)))
    assert calls == [1]


@works("callbacks.LearningRateScheduler")
def _(scene):
    gan = scene.gan
    scene.fit(callbacks=callbacks.LearningRateScheduler(lambda epoch, rate: 0.002, verbose=1))
    assert float(gan.optimizer.learning_rate) == pytest.approx(0.002)
    assert [float(one.learning_rate) for one in gan.optimizers.values()] == pytest.approx([0.002, 0.002])


@works("callbacks.ModelCheckpoint")
def _(scene):
    path = scene.path / "{epoch}.weights.h5"
    scene.fit(callbacks=callbacks.ModelCheckpoint(path, save_weights_only=True))
    (file,) = scene.path.glob("*.weights.h5")
    again = compiled()
    again.load_weights(file)
    assert again.step == scene.gan.step
    np.testing.assert_array_equal(again.sample(2)[0], scene.gan.sample(2)[0])


REFUSED["ModelCheckpoint of the whole model"] = lambda scene: refused(
    lambda: scene.fit(callbacks=callbacks.ModelCheckpoint(scene.path / "a.keras")), ConfigError, "save_weights_only"
)


def test_callbacks_of_a_callback_list_are_checked(tmp_path):
    whole_model = callbacks.CallbackList([callbacks.ModelCheckpoint(tmp_path / "a.keras")])
    check_refusal(lambda: as_callbacks(whole_model), ConfigError, "save_weights_only")


REFUSED["callbacks.OrbaxCheckpoint"] = lambda scene: refused(
    lambda: scene.fit(callbacks=callbacks.OrbaxCheckpoint.__new__(callbacks.OrbaxCheckpoint)),
    ConfigError,
    *("OrbaxCheckpoint", "trainer.callbacks.Checkpoint"),
)


@works("callbacks.ProgbarLogger")
def _(scene):
    scene.capsys.readouterr()
    scene.fit(callbacks=callbacks.ProgbarLogger(), verbose=2)
    assert "loss/generator" in scene.capsys.readouterr().out


@works("callbacks.ReduceLROnPlateau")
def _(scene):
    gan = compiled(optimizer=optimizers.SGD(0.1))
    reduce = callbacks.ReduceLROnPlateau("loss/generator", mode="min", factor=0.5, patience=1, min_delta=100.0)
    scene.fit(gan, steps=6, callbacks=reduce)
    assert [float(one.learning_rate) for one in gan.optimizers.values()] == pytest.approx([0.025, 0.025])


@works("callbacks.RemoteMonitor")
def _(scene):
    with pytest.warns(UserWarning, match="RemoteMonitor"):  # nobody listens
        scene.fit(callbacks=callbacks.RemoteMonitor("http://127.0.0.1:9"))


REFUSED["callbacks.SwapEMAWeights"] = lambda scene: refused(
    lambda: scene.fit(callbacks=callbacks.SwapEMAWeights()), ConfigError, "SwapEMAWeights", "ema_half_life_images"
)


@works("callbacks.TensorBoard")
def _(scene):
    board = callbacks.TensorBoard(
        scene.path / "logs",
        histogram_freq=1,
        write_images=True,
        write_steps_per_second=True,
        update_freq=1,
        embeddings_freq=1,
    )
    scene.fit(steps=4, callbacks=board)
    (events,) = (scene.path / "logs").rglob("events.*")
    content = events.read_bytes()
    assert all(tag in content for tag in (b"epoch_steps_per_second", b"learning_rate_generator", b"histogram"))


@works("callbacks.TerminateOnNaN")
def _(scene):
    scene.fit(callbacks=callbacks.TerminateOnNaN())
    gan = break_updates(compiled(), range(1, 4))
    scene.fit(gan, steps=6, callbacks=callbacks.TerminateOnNaN(), steps_per_execution=1)
    assert gan.step == 6 and gan.divergence.num_rollbacks == 0


REFUSED["An object that is no callback"] = lambda scene: refused(
    lambda: scene.fit(callbacks=[callbacks.History]), ConfigError, "callbacks[0]", "History"
)


@works("stop_training")
def _(scene):
    first = scene.gan.step
    stop = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: setattr(scene.gan, "stop_training", True))
    scene.fit(steps=10, steps_per_execution=1, callbacks=stop)
    assert scene.gan.step == first + 1


# Optimizers: the copy that a GAN uses does what the original would do.

OPTIMIZERS = {
    **{
        f"optimizers.{name}": getattr(optimizers, name)
        for name in (
            *("Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb", "Lion", "Muon", "Nadam"),
            *("RMSprop", "SGD", "ScheduleFreeAdamW"),
        )
    },
    "Adam with amsgrad": lambda: optimizers.Adam(amsgrad=True),
    "weight_decay": lambda: optimizers.SGD(0.1, weight_decay=0.1),
    "clipnorm": lambda: optimizers.Adam(0.1, clipnorm=0.1),
    "clipvalue": lambda: optimizers.SGD(0.1, clipvalue=0.1),
    "global_clipnorm": lambda: optimizers.SGD(0.1, global_clipnorm=0.1),
    "gradient_accumulation_steps": lambda: optimizers.Adam(0.1, gradient_accumulation_steps=2),
    "optimizers.MultiOptimizer": lambda: optimizers.MultiOptimizer(
        lambda variable: optimizers.SGD(0.1) if "bias" in variable.name else optimizers.Adam(0.1)
    ),
    "optimizers.OptimizerMap": lambda: optimizers.MultiOptimizer(
        optimizers.OptimizerMap(optimizers.SGD(0.1), {"kernel": optimizers.Adam(0.1)})
    ),
}
SCHEDULES = {
    "CosineDecay": lambda: schedules.CosineDecay(0.1, 10),
    "CosineDecayRestarts": lambda: schedules.CosineDecayRestarts(0.1, 2),
    "ExponentialDecay": lambda: schedules.ExponentialDecay(0.1, 2, 0.5),
    "InverseTimeDecay": lambda: schedules.InverseTimeDecay(0.1, 2, 0.5),
    "PiecewiseConstantDecay": lambda: schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.2, 0.3]),
    "PolynomialDecay": lambda: schedules.PolynomialDecay(0.1, 10),
}


class WithoutConfig(optimizers.Optimizer):
    """An optimizer of a user's own, with a variable of its constructor and no config."""

    def __init__(self, scale, rate=0.1):
        super().__init__(learning_rate=rate)
        self.scale = scale
        self.power = self.add_variable((), "ones", name="power")

    def update_step(self, gradient, variable, learning_rate):
        self.assign_sub(variable, learning_rate * self.scale * self.power * gradient)
        self.assign(self.power, 0.5 * self.power)


def excluding(**excluded):
    optimizer = optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(**excluded)
    return optimizer


def rate_set_later():
    optimizer = optimizers.Adam(0.5)
    optimizer.learning_rate = 0.01
    return optimizer


OPTIMIZERS |= {
    "exclude_from_weight_decay": lambda: excluding(var_names=["bias"]),
    "optimizers.Optimizer": lambda: WithoutConfig(2.0),
    "Optimizer whose learning_rate was set": rate_set_later,
    "optimizers.schedules.LearningRateSchedule": lambda: WithoutConfig(1.0, schedules.ExponentialDecay(0.1, 2, 0.5)),
    **{
        f"optimizers.schedules.{name}": lambda schedule=schedule: optimizers.SGD(schedule())
        for name, schedule in SCHEDULES.items()
    },
}


def updated(optimizer):
    """Returns two variables after three updates."""
    start = np.array([[1.0, -2.0], [3.0, 0.5]], "f"), np.array([0.3, -0.3], "f")
    variables = [keras.Variable(value, name=name) for value, name in zip(start, ("kernel", "bias"), strict=True)]
    optimizer.build(variables)
    for number in range(1, 5):
        optimizer.apply([tf.fill(tf.shape(variable), 0.1 * number) for variable in variables], variables)
    return [variable.numpy() for variable in variables]


def compare_with_copy(make):
    original = make()
    copy = clone(original)
    for value, expected in zip(updated(copy), updated(original), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)
    if not isinstance(original, WithoutConfig):  # the copy of a used optimizer is a new one
        assert len(clone(original).variables) == len(clone(make()).variables)


for _name, _make in OPTIMIZERS.items():
    WORKS[_name] = lambda scene, make=_make: compare_with_copy(make)


@works("A dict of optimizers")
def _(scene):
    gan = compiled(optimizer={"generator": optimizers.SGD(0.1), "discriminator": WithoutConfig(1.0)})
    scene.fit(gan)
    assert [type(one).__name__ for one in gan.optimizers.values()] == ["WithoutConfig", "SGD"]


@works("gradient_accumulation_steps in fit")
def _(scene):
    gan = compiled(optimizer=optimizers.Adam(gradient_accumulation_steps=2))
    assert not [name for name in scene.moved(gan, 1) if "optimizer" not in name]
    assert [name for name in scene.moved(gan, 1) if "optimizer" not in name]


def used():
    optimizer = WithoutConfig(1.0)
    updated(optimizer)
    return optimizer


REFUSED["A used optimizer with variables of its constructor"] = lambda scene: refused(
    lambda: compiled(optimizer=used()), ConfigError, "WithoutConfig", "power"
)
REFUSED["optimizers.LossScaleOptimizer"] = lambda scene: refused(
    lambda: compiled(optimizer=optimizers.LossScaleOptimizer(optimizers.Adam())), ConfigError, "scales the loss"
)
REFUSED["loss_scale_factor"] = lambda scene: refused(
    lambda: compiled(optimizer=optimizers.Adam(loss_scale_factor=2.0)), ConfigError, "scales the loss"
)
REFUSED["use_ema"] = lambda scene: refused(
    lambda: compiled(optimizer=optimizers.Adam(use_ema=True)), ConfigError, "use_ema", "ema_half_life_images"
)
REFUSED["use_ema in a MultiOptimizer"] = lambda scene: refused(
    lambda: compiled(optimizer=optimizers.MultiOptimizer(lambda variable: optimizers.SGD(use_ema=True))),
    ConfigError,
    "use_ema",
)


# `model.optimizer`.


@works("model.optimizer")
def _(scene):
    optimizer = scene.gan.optimizer
    assert optimizer.optimizers == [*scene.gan.optimizers.values()]
    assert optimizer.beta_1 == 0.9 and optimizer.built and set(optimizer.get_config()) == set(scene.gan.optimizers)
    assert len(optimizer.variables) == sum(len(one.variables) for one in optimizer.optimizers)
    compiled(optimizer=optimizers.SGD(lambda: 0.1)).optimizer.learning_rate = lambda: 0.2
    several = compiled(optimizer=OPTIMIZERS["optimizers.OptimizerMap"]()).optimizer
    assert len(several.optimizers) == 4 and float(several.learning_rate) == pytest.approx(0.1)


@works("model.optimizer.learning_rate")
def _(scene):
    scene.gan.optimizer.learning_rate = 0.003
    assert [float(one.learning_rate) for one in scene.gan.optimizers.values()] == pytest.approx([0.003, 0.003])


@works("model.optimizer.learning_rate.assign")
def _(scene):
    rate = scene.gan.optimizer.learning_rate
    for act, expected in ((rate.assign, 0.004), (rate.assign_add, 0.008), (rate.assign_sub, 0.004)):
        act(0.004)
        assert [float(one.learning_rate) for one in scene.gan.optimizers.values()] == pytest.approx([expected] * 2)
        assert float(rate) == float(rate.numpy()) == float(keras.ops.convert_to_numpy(rate)) == float(rate.value)
    check_refusal(lambda: two_rates().learning_rate.assign(0.3), ConfigError, "learning_rate", "0.3", "0.1", "0.2")


@works("Several replicas")
def _(scene):
    with scene.two_replicas.scope():
        optimizer = optimizers.Adam(0.01)
    gan = compiled(optimizer=optimizer, strategy=scene.two_replicas)
    gan.optimizer.learning_rate = 0.02
    scene.fit(gan, callbacks=callbacks.LearningRateScheduler(lambda epoch, rate: float(rate) / 2))
    gan.save_weights(scene.path / "gan.weights.h5")
    gan.load_weights(scene.path / "gan.weights.h5")
    assert gan.step == int(gan.optimizer.iterations.numpy()) == 2
    assert float(gan.optimizer.learning_rate.numpy()) == pytest.approx(0.01)


@works("model.optimizer.iterations")
def _(scene):
    assert int(scene.gan.optimizer.iterations) == scene.gan.step


def two_rates():
    rates = {"generator": optimizers.Adam(0.1, beta_1=0.1), "discriminator": optimizers.Adam(0.2)}
    return compiled(optimizer=rates).optimizer


@works("Copies of model.optimizer")
def _(scene):
    assert copy.copy(scene.gan.optimizer).iterations is scene.gan.optimizer.iterations
    optimizer = scene.gan.optimizers["generator"]
    assert optimizers.deserialize(optimizers.serialize(optimizer)).get_config() == optimizer.get_config()


REFUSED["Setting model.optimizer"] = lambda scene: refused(
    lambda: (setattr(gan := compiled(), "optimizer", optimizers.SGD(0.1)), scene.fit(gan)), NetworkError, "optimizer"
)
for _name, _make in {"generator": generator, "discriminator": discriminator}.items():
    REFUSED[f"Setting {_name}"] = lambda scene, name=_name, make=_make: refused(
        lambda: (setattr(gan := compiled(), name, make()), scene.fit(gan)), NetworkError, name
    )
REFUSED["One learning_rate for optimizers with two"] = lambda scene: refused(
    lambda: setattr(two_rates(), "learning_rate", 0.3), ConfigError, "learning_rate", "0.3", "0.1", "0.2"
)
REFUSED["A setting of model.optimizer that differs"] = lambda scene: refused(
    lambda: two_rates().beta_1, AttributeError, "beta_1", "model.optimizers"
)
REFUSED["Setting another attribute of model.optimizer"] = lambda scene: refused(
    lambda: setattr(scene.gan.optimizer, "beta_1", 0.3), AttributeError, "beta_1", "model.optimizers"
)
REFUSED["Setting a learning_rate that is a schedule"] = lambda scene: refused(
    lambda: setattr(compiled(optimizer=optimizers.Adam(SCHEDULES["CosineDecay"]())).optimizer, "learning_rate", 0.1),
    TypeError,
    "learning_rate",
)


# Arguments of `compile` and `fit`.

ARGUMENTS = {
    "compile": {
        "loss_weights": [1.0],
        "metrics": ["mae"],
        "weighted_metrics": ["mae"],
        "run_eagerly": True,
        "steps_per_execution": 2,
        "auto_scale_loss": False,
    },
    "fit": {
        "validation_split": 0.1,
        "validation_data": (np.zeros(3), np.zeros(3)),
        "validation_steps": 2,
        "validation_batch_size": 3,
        "validation_freq": 2,
        "shuffle": False,
        "class_weight": {0: 1.0},
        "sample_weight": np.ones(32),
        "initial_epoch": 2,
        "steps_per_epoch": 5,
    },
}


def calls(scene):
    return {"compile": compiled, "fit": scene.fit}


for _method, _arguments in ARGUMENTS.items():
    for _name, _value in _arguments.items():
        REFUSED[f"{_method}({_name})"] = lambda scene, method=_method, name=_name, value=_value: refused(
            lambda: calls(scene)[method](**{name: value}),
            ConfigError,
            *(method, name, *([repr(value)] if isinstance(value, (bool, int, float)) else [])),
        )


for _name, _value in {
    **{"run_eagerly": True, "steps_per_execution": 2, "jit_compile": True, "loss": "mse"},
    "dtype_policy": "mixed_bfloat16",
}.items():
    REFUSED[f"Setting {_name}"] = lambda scene, name=_name, value=_value: refused(
        lambda: setattr(scene.gan, name, value), ConfigError, name, repr(value)
    )


@works("Arguments at their defaults")
def _(scene):
    for method, arguments in ARGUMENTS.items():
        parameters = inspect.signature(getattr(keras.Model, method)).parameters
        calls(scene)[method](**{name: parameters[name].default for name in arguments})


REFUSED["Arguments that do not exist"] = lambda scene: refused(
    lambda: scene.fit(batchsize=3), ConfigError, "batchsize", "batch_size"
)


# Methods.


@works("predict")
def _(scene):
    latents = np.ones((4, 4), "f")
    expected = scene.gan.ema_generator(latents).numpy()
    data = tf.data.Dataset.from_tensor_slices(latents).batch(2)
    for images in (
        scene.gan.predict(latents, verbose=0),
        scene.gan.predict(data, verbose=0),
        scene.gan.predict_on_batch(latents),
    ):
        np.testing.assert_allclose(images, expected, atol=1e-6)


@works("summary")
def _(scene):
    lines = []
    scene.gan.summary(print_fn=lambda text: lines.append(text))
    assert "Optimizer params" in "".join(lines)


@works("get_weights and set_weights")
def _(scene):
    weights = scene.gan.get_weights()
    scene.gan.set_weights([np.zeros_like(weight) for weight in weights])
    assert not scene.gan.generator.get_weights()[0].any()
    scene.gan.set_weights(weights)


@works("save_weights and load_weights")
def _(scene):
    scene.gan.save_weights(scene.path / "gan.weights.h5")
    again = compiled()
    again.load_weights(scene.path / "gan.weights.h5")
    assert again.step == scene.gan.step and same(again, scene.gan)
    before = values_of(scene.gan), scene.gan.step
    scene.fit()
    scene.fit(again)
    assert same(again, scene.gan) and before[1] < again.step


@works("load_weights after skipped steps and a rollback")
def _(scene):
    diverged = break_updates(compiled(), [1, 3])
    scene.fit(diverged, steps=5)
    diverged.divergence.rollbacks.assign(2)
    diverged.save_weights(scene.path / "gan.weights.h5")
    again = compiled()
    again.load_weights(scene.path / "gan.weights.h5")
    assert again.step == 5 and same(again, diverged)
    assert again.divergence.skips.numpy().tolist() == [0] * 9 + [2, 4]
    scene.fit(again, steps=6)
    scene.fit(diverged, steps=6)
    assert same(again, diverged)


@works("load_weights of a file without the number of steps")
def _(scene):
    """Earlier versions did not save it."""
    file = scene.path / "gan.weights.h5"
    scene.gan.save_weights(file)
    with h5py.File(file, "r+") as content:
        for name in list(content["vars"]):
            del content["vars"][name]
    again = compiled()
    again.load_weights(file)
    assert again.step == scene.gan.step and same(again, scene.gan)


@works("load_weights into another optimizer")
def _(scene):
    scene.gan.save_weights(scene.path / "gan.weights.h5")
    again = compiled(optimizer="sgd")
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        again.load_weights(scene.path / "gan.weights.h5")
    assert again.step == 0
    np.testing.assert_array_equal(again.sample(2)[0], scene.gan.sample(2)[0])


@works("get_state_tree and set_state_tree")
def _(scene):
    scene.gan.set_state_tree(scene.gan.get_state_tree())


@works("metrics and reset_metrics")
def _(scene):
    scene.gan.reset_metrics()
    assert scene.gan.metrics == scene.gan.metrics_names == []


@works("get_layer and layers")
def _(scene):
    assert scene.gan.get_layer(index=0) in scene.gan.layers


for _name, _arguments, _mentions in (
    ("evaluate", (np.zeros(3),), ("sample", "Evaluation")),
    ("train_on_batch", (np.zeros(3),), ("fit",)),
    ("test_on_batch", (np.zeros(3),), ("fit",)),
    ("quantize", ("int8",), ("ema_generator",)),
    ("export", ("folder",), ("ema_generator.export",)),
    ("save", ("a.keras",), ("save_weights", "Checkpoint")),
    ("get_config", (), ("save_weights",)),
    ("to_json", (), ("networks",)),
    ("add_loss", (0.0,), ("GAN.add_losses",)),
    ("compile_from_config", ({},), ("compile",)),
):
    REFUSED[_name] = lambda scene, name=_name, arguments=_arguments, mentions=_mentions: refused(
        lambda: getattr(scene.gan, name)(*arguments), ConfigError, name, *mentions
    )
REFUSED["keras.saving.save_model"] = lambda scene: refused(
    lambda: keras.saving.save_model(scene.gan, scene.path / "a.keras"), ConfigError, "save_weights"
)
REFUSED["keras.models.clone_model"] = lambda scene: refused(
    lambda: keras.models.clone_model(scene.gan), ConfigError, "save_weights"
)
REFUSED["save_weights before compile"] = lambda scene: refused(
    lambda: GAN(4).save_weights(scene.path / "a.weights.h5"), ConfigError, "compile"
)


def overriding(name):
    return lambda: type("Own", (GAN,), {name: lambda self, *arguments: None})(4)


for _name in ("train_step", "test_step", "compute_loss", "compute_metrics", "make_train_function"):
    REFUSED[_name] = lambda scene, name=_name: refused(
        lambda: getattr(scene.gan, name)(scene.images), ConfigError, name
    )
    REFUSED[f"Overriding {_name}"] = lambda scene, name=_name: refused(
        overriding(name), ConfigError, "Own", name, "forward"
    )


# Layers.


@works("kernel_regularizer")
def _(scene):
    gans = [
        compiled(lambda weight=weight: generator(layers.Dense(4, kernel_regularizer=keras.regularizers.L2(weight))))
        for weight in (0.0, 0.5)
    ]
    for gan in gans:
        scene.fit(gan)
    assert not same(*gans)


class SumOfSquares(keras.regularizers.Regularizer):
    def __call__(self, x):
        return keras.ops.sum(keras.ops.square(x))


REGULARIZERS = {
    "L1": lambda: keras.regularizers.L1(0.5),
    "L1L2": lambda: keras.regularizers.L1L2(0.5, 0.5),
    "L2": lambda: keras.regularizers.L2(0.5),
    "OrthogonalRegularizer": lambda: keras.regularizers.OrthogonalRegularizer(0.5),
    "Regularizer": SumOfSquares,
}


def regularized(regularizer):
    """Returns the weights of the layers of both networks after a step of plain gradient descent."""

    def layer():
        return layers.Dense(4, kernel_initializer="ones", kernel_regularizer=regularizer)

    gan = compiled(lambda: generator(layer()), lambda: discriminator(layer()), optimizer=optimizers.SGD(0.001))
    return gan, [
        network.layers[-3 if network is gan.generator else -2] for network in (gan.generator, gan.discriminator)
    ]


for _name, _make in REGULARIZERS.items():

    @works(f"regularizers.{_name}")
    def _(scene, make=_make):
        """Compares a step with that of a GAN without it: they differ by the gradient of the regularizer."""
        plain, plain_layers = regularized(None)
        gan, own_layers = regularized(make())
        scene.fit(plain, steps=1)
        scene.fit(gan, steps=1)
        kernel = tf.Variable(tf.ones([8, 4]))
        with tf.GradientTape() as tape:
            penalty = make()(kernel)
        expected = 0.001 * tape.gradient(penalty, kernel).numpy()
        for own, other in zip(own_layers, plain_layers, strict=True):
            np.testing.assert_allclose(other.kernel.numpy() - own.kernel.numpy(), expected, rtol=0.02, atol=1e-6)


REFUSED["activity_regularizer and add_loss of a layer"] = lambda scene: refused(
    lambda: scene.fit(compiled(lambda: generator(layers.Dense(4, activity_regularizer="l2")))),
    NetworkError,
    *("activity_regularizer", "add_loss"),
)


@works("SpectralNormalization in a discriminator")
def _(scene):
    gan = compiled(discriminator=lambda: discriminator(layers.SpectralNormalization(layers.Dense(4))))
    first = values_of(gan)
    scene.fit(gan)
    last = values_of(gan)
    moved = {name.rpartition("/")[2] for name, value in first.items() if (value != last[name]).any()}
    assert {"vector_u", "kernel"} <= moved


REFUSED["SpectralNormalization in a generator"] = lambda scene: refused(
    lambda: scene.fit(compiled(lambda: generator(layers.SpectralNormalization(layers.Dense(4))))),
    NetworkError,
    *("SpectralNormalization", "SpectralDense"),
)


@works("kernel_constraint")
def _(scene):
    limit = keras.constraints.MaxNorm(0.1)
    gan = compiled(discriminator=lambda: discriminator(layers.Dense(4, kernel_constraint=limit, name="limited")))
    scene.fit(gan)
    assert np.linalg.norm(gan.discriminator.get_layer("limited").kernel.numpy(), axis=0).max() < 0.1001


class Halving(keras.constraints.Constraint):
    def __call__(self, w):
        return 0.5 * w


CONSTRAINTS = {
    "MaxNorm": (lambda: keras.constraints.MaxNorm(0.1), lambda kernel: np.linalg.norm(kernel, axis=0).max() < 0.101),
    "MinMaxNorm": (
        lambda: keras.constraints.MinMaxNorm(5.0, 6.0),
        lambda kernel: np.linalg.norm(kernel, axis=0).min() > 4.99,
    ),
    "NonNeg": (keras.constraints.NonNeg, lambda kernel: (kernel >= 0).all()),
    "UnitNorm": (keras.constraints.UnitNorm, lambda kernel: np.allclose(np.linalg.norm(kernel, axis=0), 1.0, 1e-3)),
    "Constraint": (Halving, lambda kernel: np.abs(kernel).max() < 0.5),
}
for _name, (_make, _holds) in CONSTRAINTS.items():

    @works(f"constraints.{_name}")
    def _(scene, make=_make, holds=_holds):
        gan = compiled(generator=lambda: generator(layers.Dense(4, kernel_constraint=make(), name="limited")))
        assert not holds(gan.generator.get_layer("limited").kernel.numpy())
        scene.fit(gan)
        assert holds(gan.generator.get_layer("limited").kernel.numpy())


@works("trainable=False of a layer")
def _(scene):
    gan = compiled(ema_half_life_images=64.0)
    first = {f"{name}/{index:03d}" for name in ("generator", "ema_generator") for index in (0, 1)}
    gan.generator.layers[0].trainable = False
    frozen = {name.rpartition("/")[0] for name in scene.moved(gan)}
    gan.generator.layers[0].trainable = True
    thawed = {name.rpartition("/")[0] for name in scene.moved(gan)}
    assert not first & frozen and first <= thawed and "generator/002" in frozen


def frozen(make, *indices):
    def build():
        made = make()
        for layer in [made.layers[index] for index in indices] or [made]:
            layer.trainable = False
        return made

    return build


def with_attribute(gan, network, **attributes):
    for name, value in attributes.items():
        setattr(network(gan), name, value)
    return gan


for _name, _make in {
    "discriminator.trainable = False": lambda: compiled(discriminator=frozen(discriminator)),
    "generator.trainable = False": lambda: compiled(frozen(generator)),
    "trainable = False of a GAN": lambda: with_attribute(compiled(), lambda gan: gan, trainable=False),
}.items():
    REFUSED[_name] = lambda scene, make=_make: refused(lambda: scene.fit(make()), NetworkError, "trainable", "learn")
REFUSED["trainable = True after compile"] = lambda scene: refused(
    lambda: scene.fit(
        with_attribute(compiled(frozen(generator, 0)), lambda gan: gan.generator.layers[0], trainable=True)
    ),
    NetworkError,
    *("trainable", "compile"),
)


def with_lora():
    made = generator()
    made.layers[0].enable_lora(2)
    return made


@works("enable_lora in get_generator")
def _(scene):
    moved = scene.moved(compiled(with_lora, ema_half_life_images=64.0))
    assert {name.rpartition("/")[2] for name in moved} >= {"lora_kernel_a", "lora_kernel_b"}


def after_lora():
    gan = compiled()
    gan.generator.layers[0].enable_lora(2)
    return gan


REFUSED["enable_lora after compile"] = lambda scene: refused(
    lambda: scene.fit(after_lora()), NetworkError, "compile", "lora"
)


def quantized(network):
    for layer in network.layers:
        if isinstance(layer, layers.Dense):
            layer.quantize("int8")
    return network


def after_quantize():
    gan = compiled(ema_half_life_images=64.0)
    quantized(gan.ema_generator)
    return gan


REFUSED["quantize of a layer"] = lambda scene: refused(
    lambda: compiled(lambda: quantized(generator())), NetworkError, "quantized", "int8"
)
REFUSED["quantize of a layer after compile"] = lambda scene: refused(
    lambda: scene.fit(after_quantize()), NetworkError, "quantized", "int8"
)


# Precision and global settings.


def configured(setting, value, act):
    """Returns a function that acts while a global setting of Keras has another value."""

    def call():
        before = getattr(keras.config, setting)()
        getattr(keras.config, f"set_{setting}")(value)
        try:
            return act()
        finally:
            getattr(keras.config, f"set_{setting}")(before)

    return call


@works("dtype_policy mixed_bfloat16")
def _(scene):
    gan = configured("dtype_policy", "mixed_bfloat16", compiled)()
    assert gan.generator.layers[0].compute_dtype == "bfloat16" and scene.moved(gan)
    gan = configured("dtype_policy", "mixed_float16", lambda: compiled(precision="float32"))()  # wins
    assert gan.generator.layers[0].compute_dtype == "float32"


for _name in ("mixed_float16", "float16", "bfloat16", "float64"):
    REFUSED[f"dtype_policy {_name}"] = lambda scene, name=_name: refused(
        configured("dtype_policy", name, compiled), ConfigError, "dtype policy", name, "precision"
    )
REFUSED["floatx"] = lambda scene: refused(
    configured("floatx", "float64", compiled), ConfigError, "floatx", "float64", "float32"
)
REFUSED["image_data_format"] = lambda scene: refused(
    configured("image_data_format", "channels_first", compiled), ConfigError, "image_data_format", "channels_first"
)


@works("dtype of a layer")
def _(scene):
    for dtype in ("float64", "bfloat16"):
        assert scene.moved(compiled(lambda dtype=dtype: generator(layers.Dense(4, dtype=dtype))))


class Wrapper(layers.Layer):
    """A layer of a user's own with another inside, which `keras.Model.layers` does not have."""

    def __init__(self, inner):
        super().__init__()
        self.inner = [inner]

    def build(self, shape):
        self.inner[0].build(shape)

    def call(self, inputs):
        return keras.ops.cast(self.inner[0](inputs), "float32")


WRAPPERS = {"a custom": Wrapper, "a Keras": layers.SpectralNormalization}
POLICIES = {
    "QuantizedDTypePolicy": ("int8", lambda: dtype_policies.QuantizedDTypePolicy("int8", "float32")),
    "QuantizedFloat8DTypePolicy": ("float8", lambda: dtype_policies.QuantizedFloat8DTypePolicy("float8", "float32")),
    "Int4DTypePolicy": ("int4", lambda: dtype_policies.get("int4/-1_from_float32")),
    "GPTQDTypePolicy": ("gptq", lambda: dtype_policies.get("gptq/4/-1_from_float32")),
    "AWQDTypePolicy": ("awq", lambda: dtype_policies.get("awq/4/-1_from_float32")),
}
for _name, (_mode, _make) in POLICIES.items():
    REFUSED[f"dtype_policies.{_name}"] = lambda scene, mode=_mode, make=_make: refused(
        lambda: compiled(lambda: generator(layers.Dense(4, dtype=make()))), NetworkError, "quantized", mode
    )


for _name in ("DTypePolicy", "FloatDTypePolicy"):

    @works(f"dtype_policies.{_name}")
    def _(scene, name=_name):
        policy = getattr(dtype_policies, name)("mixed_bfloat16")
        gan = compiled(discriminator=lambda: discriminator(layers.Dense(4, dtype=policy, name="half")))
        assert gan.discriminator.get_layer("half").compute_dtype == "bfloat16" and scene.moved(gan)


@works("dtype_policies.DTypePolicyMap")
def _(scene):
    policy = dtype_policies.DTypePolicyMap(default_policy="mixed_bfloat16")
    assert scene.moved(compiled(lambda: generator(layers.Dense(4, dtype=policy))))


REFUSED["A DTypePolicyMap as the global policy"] = lambda scene: refused(
    configured("dtype_policy", dtype_policies.DTypePolicyMap(default_policy="float32"), compiled),
    *(ConfigError, "dtype policy", "map_float32"),
)
REFUSED["A quantized global policy"] = lambda scene: refused(
    configured("dtype_policy", "int8_from_float32", compiled), ConfigError, "dtype policy", "int8_from_float32"
)
for _name in ("max_epochs", "max_steps_per_epoch"):
    REFUSED[_name] = lambda scene, name=_name: refused(
        configured(name, 1, scene.fit), ConfigError, name, "1", "steps", f"KERAS_{name.upper()}"
    )
for _name, _wrapper in WRAPPERS.items():
    REFUSED[f"dtype float16 inside {_name} layer"] = lambda scene, wrapper=_wrapper: refused(
        lambda: compiled(discriminator=lambda: discriminator(wrapper(layers.Dense(4, dtype="mixed_float16")))),
        *(NetworkError, "float16", "bfloat16"),
    )
REFUSED["dtype float16 of a layer"] = lambda scene: refused(
    lambda: compiled(lambda: generator(layers.Dense(4, dtype="mixed_float16"))), NetworkError, "float16", "bfloat16"
)


@works("tf.config.run_functions_eagerly")
def _(scene):
    tf.config.run_functions_eagerly(True)
    try:
        assert scene.moved(compiled())
    finally:
        tf.config.run_functions_eagerly(False)


# Losses.


@works("A Keras loss")
def _(scene):
    logits = tf.constant([0.3, -1.0])
    for loss in (keras.losses.BinaryCrossentropy(from_logits=True), keras.losses.BinaryFocalCrossentropy, "hinge"):
        assert losses.get(loss).generator(logits, logits).shape == (2,)
    for reduction in ("none", "mean", "mean_with_sample_weight"):
        loss = losses.get(keras.losses.MeanSquaredError(reduction=reduction))
        np.testing.assert_allclose(loss.generator(logits, logits), np.square(logits.numpy() - 1.0), rtol=1e-6)


USABLE_LOSSES = (
    *("BinaryCrossentropy", "BinaryFocalCrossentropy", "CategoricalHinge", "Hinge", "Huber", "LogCosh"),
    *("MeanAbsoluteError", "MeanAbsolutePercentageError", "MeanSquaredError", "MeanSquaredLogarithmicError"),
    *("Poisson", "SquaredHinge"),
)
OTHER_LOSSES = (
    *("CTC", "CategoricalCrossentropy", "CategoricalFocalCrossentropy", "CategoricalGeneralizedCrossEntropy"),
    *("Circle", "CosineSimilarity", "Dice", "KLDivergence", "SparseCategoricalCrossentropy", "Tversky"),
)


class Distance(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.abs(y_true - y_pred)[:, 0]


def compare_with_keras(kind):
    """Compares the losses of both networks with those of Keras against the targets 1 and 0."""
    loss, each = losses.get(kind), kind(reduction="none")
    outputs = tf.constant([0.2, 0.9])
    ones, zeros = tf.ones([2, 1]), tf.zeros([2, 1])
    for value, target in ((loss.generator(outputs, outputs), ones), (2.0 * loss.on_fake(outputs), zeros)):
        np.testing.assert_allclose(value, tf.reshape(each(target, outputs[:, tf.newaxis]), [-1]), rtol=1e-5)


for _name in USABLE_LOSSES:
    WORKS[f"losses.{_name}"] = lambda scene, name=_name: compare_with_keras(getattr(keras.losses, name))
WORKS["losses.Loss"] = lambda scene: compare_with_keras(Distance)
for _name in OTHER_LOSSES:
    REFUSED[f"losses.{_name}"] = lambda scene, name=_name: refused(
        lambda: compiled(loss=getattr(keras.losses, name)()), NetworkError, f"the Keras loss {name} "
    )
REFUSED["A loss without call"] = lambda scene: refused(
    lambda: compiled(loss=keras.losses.Loss()), NetworkError, "the Keras loss Loss", "NotImplementedError"
)


LOSS_FUNCTIONS = {name: member for name, member in vars(keras.losses).items() if inspect.isfunction(member)}


@pytest.mark.parametrize("name", sorted(LOSS_FUNCTIONS.keys() - {"get", "serialize", "deserialize"}))
def test_a_function_of_keras_losses_is_a_loss_or_refused_by_name(name):
    try:
        loss = losses.get(LOSS_FUNCTIONS[name])
    except NetworkError as error:
        assert f"the Keras loss {name} " in str(error)
    else:
        assert loss.generator(*[tf.constant([0.2, 0.9])] * 2).shape == (2,)


REFUSED["reduction=sum of a loss"] = lambda scene: refused(
    lambda: compiled(loss=keras.losses.MeanSquaredError(reduction="sum")), NetworkError, "reduction", "sum"
)
REFUSED["Several losses"] = lambda scene: refused(lambda: compiled(loss=["mse", "mae"]), NetworkError, "loss", "mse")


# Networks.


@works("A pretrained generator")
def _(scene):
    weights = compiled(seed=5).generator.get_weights()

    def pretrained():
        made = generator()
        made.set_weights(weights)
        return made

    gan = compiled(pretrained, ema_half_life_images=64.0)
    for network in (gan.generator, gan.ema_generator):
        assert all((value == weight).all() for value, weight in zip(network.get_weights(), weights, strict=True))


def once_pretrained():
    """Loads weights in its first call only, as a factory that pops from a list does."""
    calls = itertools.count()

    def build():
        made = generator()
        if next(calls) == 0:
            made.set_weights([np.full_like(weight, 0.5) for weight in made.get_weights()])
        return made

    return build


@works("The EMA starts at the generator's weights")
def _(scene):
    gan = compiled(once_pretrained(), ema_half_life_images=64.0)
    assert (gan.ema_generator.get_weights()[0] == 0.5).all()


def sharing(**networks):
    """Returns functions that build networks with a layer in common."""
    shared = layers.Dense(8, name="shared")
    makers = {"generator": generator, "discriminator": discriminator}
    return {name: lambda name=name: makers[name](shared) for name in networks}


REFUSED["Networks that share a layer"] = lambda scene: refused(
    lambda: compiled(**sharing(generator=1, discriminator=1)), NetworkError, "generator", "discriminator", "shared"
)
REFUSED["An EMA that shares a layer"] = lambda scene: refused(
    lambda: compiled(**sharing(generator=1), ema_half_life_images=64.0),
    NetworkError,
    *("generator", "ema_generator", "shared"),
)


def one_generator():
    made = generator()
    return lambda: made


REFUSED["One generator for all calls"] = lambda scene: refused(
    lambda: compiled(one_generator(), ema_half_life_images=64.0), NetworkError, "ema_generator", "get_"
)


def wider_each_time():
    sizes = itertools.count(4)
    return lambda: generator(layers.Dense(next(sizes)))


REFUSED["Another architecture in each call"] = lambda scene: refused(
    lambda: compiled(wider_each_time(), ema_half_life_images=64.0), NetworkError, "get_generator", "EMA"
)
REFUSED["Networks from outside of the strategy"] = lambda scene: refused(
    lambda: compiled(one_generator(), strategy=tf.distribute.OneDeviceStrategy("CPU:0")),
    NetworkError,
    *("generator", "OneDeviceStrategy", "get_"),
)


def inside(strategy):
    with strategy.scope():
        return one_generator()


@works("fit in the scope of the strategy")
def _(scene):
    with scene.two_replicas.scope():
        gan = compiled()
        scene.fit(gan)
    scene.fit(gan)
    assert gan.step == 4


def fit_in_scope(scene, strategy):
    with strategy.scope():
        scene.fit()


REFUSED["fit in the scope of another strategy"] = lambda scene: refused(
    lambda: fit_in_scope(scene, scene.two_replicas), ConfigError, "fit", "MirroredStrategy", "scope"
)
REFUSED["Networks from inside of another strategy"] = lambda scene: refused(
    lambda: compiled(inside(tf.distribute.OneDeviceStrategy("CPU:0"))), NetworkError, "generator", "get_"
)


class CreatesInCall(keras.Model):
    """Makes a layer that is too large when it is called first."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(10**9)

    def call(self, inputs):
        return self.dense(inputs)


def too_large():
    made = CreatesInCall()
    made.dense.build((None, 4))
    return made


@works("max_weights")
def _(scene):
    assert compiled(max_weights=1000).generator.count_params() < 1000


REFUSED["Networks with more than max_weights"] = lambda scene: refused(
    lambda: compiled(too_large), NetworkError, "4,000,000,000", "max_weights", "500,000,000"
)
REFUSED["max_weights counts all networks"] = lambda scene: refused(
    lambda: compiled(max_weights=200), NetworkError, "max_weights=200"
)


@pytest.fixture(scope="module")
def images(digits):
    return digits.images[:32, 8:12, 8:12]


@pytest.fixture(scope="module")
def gan(images):
    return compiled()


@pytest.fixture
def scene(gan, images, tmp_path, capsys, two_replicas):
    return Scene(gan, images, tmp_path, capsys, two_replicas)


@pytest.mark.parametrize("name", WORKS)
def test_it_works(scene, name):
    WORKS[name](scene)


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_name(scene, name):
    row = REFUSED[name](scene)
    check_refusal(row.act, row.error, *row.mentions)


def documented():
    """The rows of the tables in docs/keras.md: results by name."""
    rows = re.findall(r"(?m)^\| (.+?) \| (works|refused) \|.*\|$", DOCS.read_text(encoding="utf-8"))
    names = [name.replace("`", "") for name, _ in rows]
    assert len(names) == len(set(names))
    return dict(zip(names, (result for _, result in rows), strict=True))


def test_the_docs_have_every_row():
    assert documented() == dict.fromkeys(WORKS, "works") | dict.fromkeys(REFUSED, "refused")


@pytest.mark.parametrize(
    ("module", "prefix"),
    [
        (callbacks, "callbacks"),
        (optimizers, "optimizers"),
        (schedules, "optimizers.schedules"),
        (keras.losses, "losses"),
        (keras.regularizers, "regularizers"),
        (keras.constraints, "constraints"),
        (dtype_policies, "dtype_policies"),
    ],
)
def test_every_public_class_has_a_row(module, prefix):
    members = {name: member for name, member in vars(module).items() if inspect.isclass(member)}
    classes = {f"{prefix}.{name}" for name, member in members.items() if member.__name__ == name}  # without aliases
    assert classes and classes <= WORKS.keys() | REFUSED.keys()


def test_every_argument_of_keras_has_a_row_or_is_an_argument():
    for method in ("compile", "fit"):
        keras_arguments = set(inspect.signature(getattr(keras.Model, method)).parameters)
        own = set(inspect.signature(getattr(GAN, method)).parameters)
        assert keras_arguments - own == set(ARGUMENTS[method])
