"""Penalties have their hand-computed values, push the weights the right way, and see the images before augmentation."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from refusals import check_refusal

from trainer.errors import NetworkError
from trainer.models import augment, penalties
from trainer.models.augmenter import Augmenter
from trainer.models.discriminator_passes import PassInputs
from trainer.models.objective import Objective
from trainer.models.penalties import InputGradients
from trainer.training.rng import StepRng

SHAPE = (3, 2, 1)
PHASES = ("discriminator", "generator")
KERNEL = np.array([0.5, -1.0, 2.0, 0.0, 1.5, -0.5], np.float32)
SQUARED_NORM = float(KERNEL @ KERNEL)
REAL, FAKE = (tf.random.stateless_normal([4, *SHAPE], [number, 0]) for number in (1, 2))
LINEAR = {
    "r1": SQUARED_NORM / 2,
    "r2": SQUARED_NORM / 2,
    "gradient_penalty": (SQUARED_NORM**0.5 - 1) ** 2,
}
"""Of a discriminator w·x, whose gradient is w everywhere."""


def squared_norm(images):
    return np.sum(np.square(images), axis=(1, 2, 3))


def between(fractions):
    return REAL + (FAKE - REAL) * tf.reshape(fractions, [-1, 1, 1, 1])


FRACTIONS = tf.constant([0.0, 1.0, 0.25, 0.5])
QUADRATIC = {
    "r1": 0.5 * squared_norm(REAL),
    "r2": 0.5 * squared_norm(FAKE),
    "gradient_penalty": (np.sqrt(squared_norm(between(FRACTIONS))) - 1) ** 2,
}
"""Of a discriminator ½|x|², whose gradient at x is x."""


def linear():
    """The discriminator w·x."""
    dense = keras.layers.Dense(1, use_bias=False)
    network = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), dense])
    dense.kernel.assign(KERNEL[:, np.newaxis])
    return network


def losses_of(network, step=0, **settings):
    """The losses of an objective for REAL and FAKE."""
    objective = Objective("wasserstein", **settings)
    rng = StepRng(0, tf.constant(step, tf.int64), 4)
    inputs = PassInputs(lambda images, labels: network(images), network, (REAL, None), (FAKE, None), rng, (-1.0, 1.0))
    return objective(inputs, PHASES)


def penalty_of(network, step=0, **settings):
    """The weighted penalties in the discriminator's loss: float32 [B]."""
    return (
        losses_of(network, step, **settings).losses["discriminator"] - losses_of(network).losses["discriminator"]
    ).numpy()


def test_every_registered_penalty_has_hand_computed_values():
    assert set(LINEAR) == set(QUADRATIC) == set(penalties.names())


@pytest.mark.parametrize("every_steps", [1, 2])
@pytest.mark.parametrize("name", penalties.names())
def test_of_a_linear_discriminator(name, every_steps):
    logged = losses_of(linear(), penalties=[name], every_steps=every_steps).metrics["discriminator"]
    np.testing.assert_allclose(logged[f"penalty/{name}"], np.full(4, LINEAR[name] * every_steps), rtol=1e-5)
    added = penalty_of(linear(), penalties=[name], weight=3.0, every_steps=every_steps)
    np.testing.assert_allclose(added, np.full(4, 3.0 * LINEAR[name] * every_steps), rtol=1e-4)


@pytest.mark.parametrize("name", penalties.names())
def test_of_a_quadratic_discriminator(name):
    input_gradients = InputGradients(lambda: REAL, lambda: FAKE, between, lambda: FRACTIONS)
    np.testing.assert_allclose(penalties.get(name)(input_gradients), QUADRATIC[name], rtol=1e-5)


def test_each_penalty_of_an_objective_is_taken_where_it_says():
    """On ½|x|², which tells real, fake and places between them apart."""
    inputs = keras.Input(SHAPE)
    halved = keras.ops.sum(keras.ops.square(inputs), axis=(1, 2)) / 2
    network = keras.Model(inputs, halved)
    for name in ("r1", "r2"):
        np.testing.assert_allclose(penalty_of(network, penalties=[name], weight=1.0), QUADRATIC[name], rtol=1e-3)
    norms = np.sqrt(squared_norm(between(StepRng(0, 0, 4).uniform("penalty", 1)[:, 0])))
    added = penalty_of(network, penalties=["gradient_penalty"], weight=1.0)
    np.testing.assert_allclose(added, (norms - 1) ** 2, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("value", "names"), [("r1", ["r1"]), (penalties.r1, ["r1"]), (None, [])])
def test_one_penalty_needs_no_list(value, names):
    assert (
        Objective("hinge", penalties=value)._penalties._penalties
        == Objective("hinge", penalties=names)._penalties._penalties
    )


def test_several_penalties_are_added_and_one_may_be_a_function():
    def steepness(input_gradients):
        return tf.reduce_sum(tf.abs(input_gradients.at_fake()), axis=[1, 2, 3])

    added = penalty_of(linear(), penalties=["r1", "gradient_penalty", steepness], weight=2.0)
    expected = LINEAR["r1"] + LINEAR["gradient_penalty"] + np.abs(KERNEL).sum()
    np.testing.assert_allclose(added, np.full(4, 2 * expected), rtol=1e-4)
    logged = losses_of(linear(), penalties=["r1", steepness]).metrics["discriminator"]
    assert {"penalty/r1", "penalty/steepness"} <= set(logged)


@pytest.mark.parametrize("every_steps", [1, 3])
@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0,)])
def test_a_penalty_that_is_no_number_an_image_is_refused(axes, every_steps):
    def steepness(input_gradients):
        return tf.reduce_mean(tf.abs(input_gradients.at_fake()), axis=axes)

    act = functools.partial(losses_of, linear(), penalties=[steepness], every_steps=every_steps)
    check_refusal(act, NetworkError, "steepness", "(4,)")


@pytest.mark.parametrize("every_steps", [1, 3])
@pytest.mark.parametrize("scale", [0.1, 2.0])
@pytest.mark.parametrize("name", penalties.names())
def test_gradients_push_the_weights_towards_less_penalty(name, scale, every_steps):
    """r1 and r2 shrink w; the gradient penalty brings |w| to 1 from either side."""
    network = linear()
    kernel = network.layers[-1].kernel
    kernel.assign(kernel * scale)
    with tf.GradientTape() as tape:
        loss_output = losses_of(network, penalties=[name], every_steps=every_steps)
        penalty = tf.reduce_sum(loss_output.metrics["discriminator"][f"penalty/{name}"])
    along = tf.reduce_sum(tape.gradient(penalty, kernel.value) * kernel.value)
    is_to_grow = name == "gradient_penalty" and scale == 0.1
    assert along < 0 if is_to_grow else along > 0
    if name != "gradient_penalty":
        np.testing.assert_allclose(along, 4 * every_steps * scale**2 * SQUARED_NORM, rtol=1e-4)


@pytest.mark.parametrize("name", penalties.names())
def test_a_lazy_penalty_is_scaled_up_and_absent_in_between(name):
    added = [penalty_of(linear(), step, penalties=[name], weight=2.0, every_steps=3) for step in range(7)]
    expected = [3 * 2.0 * LINEAR[name] if step % 3 == 0 else 0.0 for step in range(7)]
    np.testing.assert_allclose(added, np.repeat(np.array(expected)[:, np.newaxis], 4, axis=1), rtol=1e-4, atol=1e-6)


def test_the_weight_may_be_a_function_of_the_step():
    added = [penalty_of(linear(), step, penalties=["r1"], weight=lambda s: tf.cast(s, tf.float32)) for step in (0, 2)]
    np.testing.assert_allclose(added[0], np.zeros(4), atol=1e-6)
    np.testing.assert_allclose(added[1], np.full(4, 2 * LINEAR["r1"]), rtol=1e-4)


def test_the_generator_does_not_feel_a_penalty():
    plain, penalized = losses_of(linear()), losses_of(linear(), penalties=penalties.names())
    np.testing.assert_array_equal(plain.losses["generator"], penalized.losses["generator"])


@pytest.mark.parametrize("every_steps", [1, 2])
def test_penalties_are_with_respect_to_the_images_before_augmentation(every_steps):
    """The gradient runs back through the augmentation: of w·augment(x), taken by hand with the same noise."""
    augmenter = Augmenter("diffaugment", 1.0)
    loss_output = losses_of(linear(), penalties=["r1", "r2"], weight=1.0, every_steps=every_steps, augmenter=augmenter)
    for name, images, purpose in (("r1", REAL, "augment/real"), ("r2", FAKE, "augment/fake")):
        rng = StepRng(0, 0, 4).child(purpose)
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = tf.tensordot(augment.get("diffaugment")(images, rng, 1.0), KERNEL.reshape(SHAPE), 3)
        by_hand = 0.5 * squared_norm(tape.gradient(logits, images))
        assert (np.abs(by_hand - LINEAR[name]) > 1e-3).any()  # w.r.t. augmented images it would be this
        logged = loss_output.metrics["discriminator"][f"penalty/{name}"]
        np.testing.assert_allclose(logged, every_steps * by_hand, rtol=1e-4)


def test_the_gradient_penalty_has_a_gradient_where_the_slope_is_0():
    network = linear()
    kernel = network.layers[-1].kernel
    kernel.assign(tf.zeros_like(kernel))
    with tf.GradientTape() as tape:
        logged = losses_of(network, penalties=["gradient_penalty"]).metrics["discriminator"]
        penalty = logged["penalty/gradient_penalty"]
    np.testing.assert_allclose(penalty, np.ones(4), rtol=1e-4)
    assert np.isfinite(tape.gradient(penalty, kernel.value)).all()


def test_penalties_of_one_name_are_all_added_and_logged():
    def r1(input_gradients):
        return 2 * penalties.r1(input_gradients)

    class Constant:
        def __call__(self, input_gradients):
            return tf.ones([4])

    functions = ["r1", r1, lambda input_gradients: tf.ones([4]), lambda input_gradients: 2 * tf.ones([4]), Constant()]
    logged = losses_of(linear(), penalties=functions).metrics["discriminator"]
    expected = {"r1": LINEAR["r1"], "r1_2": 2 * LINEAR["r1"], "<lambda>": 1.0, "<lambda>_2": 2.0, "Constant": 1.0}
    assert {name for name in logged if name.startswith("penalty/")} == {f"penalty/{name}" for name in expected}
    for name, value in expected.items():
        np.testing.assert_allclose(logged[f"penalty/{name}"], np.full(4, value), rtol=1e-5)
    for every_steps in (1, 2):
        added = penalty_of(linear(), penalties=functions, weight=1.0, every_steps=every_steps)
        np.testing.assert_allclose(added, np.full(4, every_steps * sum(expected.values())), rtol=1e-4)
