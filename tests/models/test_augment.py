"""Augmentations transform images as documented, keyed by position in the batch, and are differentiable."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from trainer.models import augment
from trainer.models.augment import resampling
from trainer.models.augment.affine import Affine
from trainer.training.rng import StepRng

TRANSFORMATIONS = {
    "diffaugment": ["brightness", "saturation", "contrast", "translation", "cutout"],
    "ada": [
        *("x_flip", "quarter_turns", "translation"),
        *("scale", "rotation", "stretch", "rotation_after", "fractional_translation"),
        *("brightness", "contrast", "luma_flip", "hue", "saturation"),
    ],
}
every_augmentation = pytest.mark.parametrize("name", augment.names())


class ScriptedRng:
    """Random numbers that apply only the named transformations at a probability of 0.5, with fixed strengths."""

    def __init__(self, batch, **strengths):
        self.batch, self.strengths, self.purposes = batch, strengths, []

    def uniform(self, purpose, size):
        self.purposes.append(purpose)
        _, name, *applied = purpose.split("/")
        value = self.strengths.get(name, 0.9) if not applied else 0.0 if name in self.strengths else 0.9
        return tf.constant(np.broadcast_to(np.float32(value), [self.batch, size]))

    normal = uniform


def pictures(*shape):
    return tf.random.stateless_uniform(shape, [3, 4], -1.0, 1.0)


def scripted(name, images, **strengths):
    return augment.get(name)(images, ScriptedRng(len(images), **strengths), 0.5).numpy()


@every_augmentation
@pytest.mark.parametrize("shape", [(6, 8, 8, 1), (6, 7, 10, 3), (6, 1, 5, 1)])
def test_images_change_and_keep_their_shape(name, shape):
    images = pictures(*shape)
    changed = augment.get(name)(images, StepRng(0, 1, 6), 1.0)
    assert changed.shape == shape
    assert changed.dtype == tf.float32
    assert np.isfinite(changed).all()
    assert (changed != images).numpy().any(axis=(1, 2, 3)).all()


@every_augmentation
@pytest.mark.parametrize("probability", [0.0, tf.constant(0.0)], ids=["float", "tensor"])
def test_probability_zero_returns_the_same_bits(name, probability):
    images = tf.concat([pictures(3, 6, 9, 3), tf.fill([1, 6, 9, 3], -0.0)], 0)
    augmented = augment.get(name)(images, StepRng(0, 1, 4), probability, image_range=(-0.3, 1.0))
    assert augmented.numpy().tobytes() == images.numpy().tobytes()


@pytest.mark.parametrize(("name", "word"), [("diffaugment", "translation"), ("diffaugment", "color"), ("ada", "color")])
def test_the_probability_is_the_share_of_changed_images(name, word):
    images, rng = pictures(2000, 8, 8, 1), StepRng(0, 1, 2000)
    changed = (augment.get(name)(images, rng, 0.2, policy=[word]) != images).numpy().any(axis=(1, 2, 3)).mean()
    untouched = {"translation": 0.8 + 0.2 / 9, "color": 0.8**2}[word]
    if name == "ada":
        untouched *= 1 - 0.2 / 2  # An applied luma flip changes one in two images.
    assert changed == pytest.approx(1 - untouched, abs=0.03)


@pytest.mark.parametrize(("probability", "rotates"), [(0.63, False), (0.65, True)])
def test_the_two_rotations_share_the_probability(probability, rotates):
    rng, images = ScriptedRng(3), pictures(3, 6, 6, 1)
    rng.uniform = lambda purpose, size: tf.fill([3, size], 0.4)  # of p = 0.64 each rotation has 1 - sqrt(0.36) = 0.4
    rng.normal = lambda purpose, size: tf.zeros([3, size])  # All other transformations in `geom` are the identity.
    changed = augment.ada(images, rng, probability, policy=["geom"])
    assert (np.abs(changed - images).max() > 0.1) == rotates


@every_augmentation
def test_two_halves_of_a_batch_are_augmented_as_the_whole_is(name):
    images, function = pictures(8, 6, 9, 3), augment.get(name)
    whole = function(images, StepRng(5, 2, 8), 0.7)
    halves = [function(images[4 * k : 4 * k + 4], StepRng(5, 2, 4, replica=k), 0.7) for k in (0, 1)]
    # The rounding of vectorized sines and powers depends on the position in a vector.
    np.testing.assert_allclose(tf.concat(halves, 0), whole, atol=1e-5)
    assert np.abs(function(images, StepRng(5, 3, 8), 0.7) - whole).max() > 0.1


@every_augmentation
def test_every_transformation_draws_for_its_own_purposes(name):
    rng = ScriptedRng(2)
    augment.get(name)(pictures(2, 6, 6, 3), rng, 0.5)
    assert sorted(rng.purposes) == sorted(set(rng.purposes))
    applied = [f"{name}/{transformation}/applied" for transformation in TRANSFORMATIONS[name]]
    assert sorted(purpose for purpose in rng.purposes if purpose.endswith("applied")) == sorted(applied)


@every_augmentation
def test_strengths_follow_the_range_of_the_images(name):
    images, function = pictures(6, 6, 8, 3), augment.get(name)
    expected = function(images, StepRng(0, 1, 6), 1.0) * 2.0 + 5.0
    scaled = function(images * 2.0 + 5.0, StepRng(0, 1, 6), 1.0, image_range=(3.0, 7.0))
    np.testing.assert_allclose(scaled, expected, atol=1e-4)


def test_diffaugment_shifts_by_an_eighth_and_cuts_out_a_half():
    images = pictures(2, 16, 8, 3)
    shifted = scripted("diffaugment", images, translation=0.0)  # The maximal shift, up and left.
    np.testing.assert_array_equal(shifted[:, :-2, :-1], images[:, 2:, 1:])
    assert (shifted[:, -2:] == 0).all() and (shifted[:, :, -1:] == 0).all()
    middle = scripted("diffaugment", images, cutout=0.5) == 0
    np.testing.assert_array_equal(np.argwhere(middle[0, :, :, 0]).min(0), [4, 2])
    assert (middle.sum(axis=(1, 2)) == 8 * 4).all()
    corner = scripted("diffaugment", images, cutout=0.0) == 0
    assert (corner.sum(axis=(1, 2)) == 4 * 2).all() and corner[:, 0, 0].all()


def test_diffaugment_recolors_as_the_paper_says():
    images = pictures(2, 4, 5, 3).numpy()
    np.testing.assert_allclose(scripted("diffaugment", images, brightness=0.75), images + 0.25, atol=1e-6)
    gray, mean = images.mean(3, keepdims=True), images.mean((1, 2, 3), keepdims=True)
    saturated = gray + 0.4 * (images - gray)
    np.testing.assert_allclose(scripted("diffaugment", images, saturation=0.2), saturated, atol=1e-6)
    np.testing.assert_allclose(
        scripted("diffaugment", images, brightness=0.75, saturation=0.2, contrast=0.2),
        mean + 0.25 + 0.7 * (saturated - mean),
        atol=1e-6,
    )


@pytest.mark.parametrize("shape", [(2, 6, 6, 1), (2, 5, 5, 3)])
def test_ada_flips_and_turns_exactly(shape):
    images = pictures(*shape).numpy()
    np.testing.assert_array_equal(scripted("ada", images, x_flip=0.9), images[:, :, ::-1])
    np.testing.assert_array_equal(scripted("ada", images, x_flip=0.1), images)
    turned = scripted("ada", images, quarter_turns=0.3)
    np.testing.assert_array_equal(turned, np.rot90(images, -1, axes=(1, 2)))
    twice = scripted("ada", images, x_flip=0.9, quarter_turns=0.3)
    np.testing.assert_array_equal(twice, np.rot90(images[:, :, ::-1], -1, axes=(1, 2)))


def test_ada_shifts_bring_in_the_reflection():
    images = pictures(2, 16, 8, 3).numpy()
    down_right = np.pad(images, [(0, 0), (2, 0), (1, 0), (0, 0)], mode="reflect")[:, :-2, :-1]
    np.testing.assert_array_equal(scripted("ada", images, translation=0.999), down_right)
    half_a_pixel = scripted("ada", images, fractional_translation=[-0.25, 0.0])
    np.testing.assert_allclose(half_a_pixel[:, :-1], (images[:, :-1] + images[:, 1:]) / 2, atol=1e-5)


def test_ada_scales_and_rotates_about_the_center():
    images = pictures(2, 9, 9, 1).numpy()
    larger = scripted("ada", images, scale=5.0)  # A whole octave.
    np.testing.assert_allclose(larger[:, ::2, ::2], images[:, 2:7, 2:7], atol=1e-5)
    np.testing.assert_allclose(scripted("ada", images, rotation=1.0), images[:, ::-1, ::-1], atol=1e-4)
    stretched = scripted("ada", images, stretch=5.0)
    np.testing.assert_allclose(stretched[:, 2:7, ::2], images[:, ::2, 2:7], atol=1e-5)


def test_ada_recolors_about_the_grays():
    images = pictures(2, 4, 5, 3).numpy()
    gray = images.mean(3, keepdims=True)
    np.testing.assert_allclose(scripted("ada", images, brightness=-1.0), images - 0.2, atol=1e-6)
    np.testing.assert_allclose(scripted("ada", images, contrast=2.0), 2 * images, atol=1e-6)
    np.testing.assert_allclose(scripted("ada", images, luma_flip=0.1), images - 2 * gray, atol=1e-6)
    np.testing.assert_allclose(scripted("ada", images, saturation=1.0), gray + 2 * (images - gray), atol=1e-6)
    third_of_a_turn = scripted("ada", images, hue=1 / 2 + 1 / 3)
    np.testing.assert_allclose(third_of_a_turn, np.roll(images, 1, axis=3), atol=1e-5)


def test_gray_images_have_no_saturation_and_the_luma_flip_inverts():
    images = pictures(2, 4, 5, 1)
    np.testing.assert_array_equal(scripted("diffaugment", images, saturation=0.1), images)
    np.testing.assert_array_equal(scripted("ada", images, hue=0.1, saturation=2.0), images)
    np.testing.assert_array_equal(scripted("ada", images, luma_flip=0.1), -images)


@every_augmentation
def test_gradients_are_the_transpose_of_the_augmentation(name):
    images, direction, rng = pictures(4, 7, 6, 3), pictures(5, 7, 6, 3)[1:], StepRng(0, 1, 4)
    with tf.GradientTape() as tape:
        tape.watch(images)
        changed = augment.get(name)(images, rng, 0.8)
    other = tf.random.stateless_normal(images.shape, [1, 1])
    gradient = tape.gradient(changed, images, output_gradients=other)
    moved = augment.get(name)(images + direction, rng, 0.8) - changed
    np.testing.assert_allclose(
        tf.reduce_sum(moved * other, [1, 2, 3]), tf.reduce_sum(direction * gradient, [1, 2, 3]), atol=1e-3
    )


@every_augmentation
@pytest.mark.parametrize("image_range", [(-1.0, 1.0), (-0.3, 1.0), (-4.0, 0.0)])
def test_unchanged_images_have_the_same_bits_and_gradients_beside_changed_ones(name, image_range):
    plain, fixed = pictures(32, 6, 9, 3), tf.fill([32, 6, 9, 3], -0.0)
    images, rng = tf.where(pictures(32, 6, 9, 3) > 0.5, fixed, plain), StepRng(0, 1, 32)
    upstream = tf.random.stateless_normal(images.shape, [1, 1])
    with tf.GradientTape() as tape:
        tape.watch(images)
        augmented = augment.get(name)(images, rng, 0.15, image_range=image_range)
    gradient = tape.gradient(augmented, images, output_gradients=upstream)
    is_unchanged = (augmented == images).numpy().all(axis=(1, 2, 3))
    assert 0 < is_unchanged.sum() < 32
    assert augmented.numpy()[is_unchanged].tobytes() == images.numpy()[is_unchanged].tobytes()
    np.testing.assert_array_equal(gradient.numpy()[is_unchanged], upstream.numpy()[is_unchanged])


@pytest.mark.parametrize("shape", [(5, 8, 8, 3), (5, 7, 12, 1), (5, 1, 6, 3), (5, 2, 2, 1)])
@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_samples_are_bilinear_and_continued_by_reflection(shape, scale):
    images, (_, height, width, _) = pictures(*shape).numpy(), shape
    linear = scale * np.random.default_rng(0).uniform(-1, 1, [5, 2, 2]).astype(np.float32)
    offset = scale * np.random.default_rng(1).uniform(-9, 9, [5, 2]).astype(np.float32)
    sampled = resampling.sample(tf.constant(images), Affine(tf.constant(linear), tf.constant(offset)))
    center = np.array([height - 1, width - 1]) / 2
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1) - center
    positions = np.einsum("bij,hwj->bhwi", linear, grid) + offset[:, None, None] + center
    rows, columns = ([reflected_weights(p, side) for p in positions[..., d]] for d, side in ((0, height), (1, width)))
    expected = np.einsum("bhwr,bhwc,brcd->bhwd", np.stack(rows), np.stack(columns), images)
    np.testing.assert_allclose(sampled, expected, atol=2e-4)


def reflected_weights(positions, side):
    """Returns the weights of the pixels along a side for each position: [..., side]."""
    period = max(2 * (side - 1), 1)
    distance = positions[..., None] % period - np.arange(-1, 2 * side)
    hats, pixels = np.maximum(1 - np.abs(distance), 0), np.abs(np.arange(-1, 2 * side))
    pixels = np.minimum(np.minimum(pixels, np.abs(2 * (side - 1) - pixels)), side - 1)
    return sum(hats[..., k, None] * (np.arange(side) == pixel) for k, pixel in enumerate(pixels))


@every_augmentation
@pytest.mark.parametrize("shape", [(6, 64, 48, 3), (6, 33, 32, 1)])
def test_no_choice_is_made_per_pixel(name, shape):
    """A choice per pixel takes several times as long on a CPU as a product, in every derivative."""

    @functools.partial(tf.function, autograph=False)
    def second_derivative(images):
        with tf.GradientTape() as outer:
            outer.watch(images)
            with tf.GradientTape() as inner:
                inner.watch(images)
                squares = tf.square(augment.get(name)(images, StepRng(0, 1, 6), tf.constant(0.5)))
            penalty = tf.reduce_sum(tf.square(inner.gradient(squares, images)))
        return outer.gradient(penalty, images)

    graph = second_derivative.get_concrete_function(tf.TensorSpec(shape)).graph
    choices = [op for op in graph.get_operations() if op.type == "SelectV2"]
    assert all((op.outputs[0].shape.num_elements() or math.inf) < shape[1] * shape[2] for op in choices)


@functools.cache
def penalized(name, jit_compile):
    """Returns a function from a kernel to the R1 penalty of its convolution of augmented images, and its gradient."""

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(images, step, kernel):
        with tf.GradientTape() as outer:
            outer.watch(kernel)
            with tf.GradientTape() as inner:
                inner.watch(images)
                augmented = augment.get(name)(images, StepRng(0, step, 4), tf.constant(0.8))
                logits = tf.reduce_sum(tf.square(tf.nn.conv2d(augmented, kernel, 2, "SAME")))
            penalty = tf.reduce_sum(tf.square(inner.gradient(logits, images)))
        return penalty, outer.gradient(penalty, kernel)

    return lambda kernel: [result.numpy() for result in run(pictures(4, 8, 6, 3), tf.constant(1), kernel)]


@every_augmentation
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_a_penalty_on_the_plain_images_has_its_gradient(name, jit_compile):
    kernel, run = tf.random.stateless_normal([4, 4, 3, 2], [0, 1], stddev=0.2), penalized(name, jit_compile)
    _, gradient = run(kernel)
    along = gradient / np.linalg.norm(gradient)
    above, below = (run(kernel + step * along)[0] for step in (0.01, -0.01))
    assert (above - below) / 0.02 == pytest.approx(np.linalg.norm(gradient), rel=0.01)


@every_augmentation
def test_the_same_call_gives_the_same_bits(name):
    kernel = tf.random.stateless_normal([4, 4, 3, 2], [0, 1])
    first, second = (penalized(name, False)(kernel) for _ in range(2))
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize(
    ("before", "mean_sign", "num_images", "after"),
    [(0.2, 0.9, 5000, 0.21), (0.2, 0.3, 5000, 0.19), (0.2, 0.6, 5000, 0.2), (0.001, 0.0, 5000, 0), (0.999, 1, 5000, 1)],
)
def test_the_probability_follows_the_sign_of_overfitting(before, mean_sign, num_images, after):
    assert augment.adapted_probability(before, mean_sign, num_images).numpy() == pytest.approx(after, abs=1e-6)
    tensors = tf.constant(before), tf.constant(mean_sign, tf.float32), tf.constant(num_images, tf.int64)
    assert augment.adapted_probability(*tensors).numpy() == pytest.approx(after, abs=1e-6)
