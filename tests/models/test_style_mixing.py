"""StyleGAN2's path lengths, moving averages, truncation and style mixing."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_ARCHITECTURES, tiny_data, tiny_gan, tiny_model, values_of
from refusals import check_refusal

from trainer import networks
from trainer.errors import ConfigError, DataError, NetworkError
from trainer.models import ConditionalStyleGAN2, StyleGAN2
from trainer.models.stylegan2 import path_lengths
from trainer.networks.stylegan2 import MAPPING, STYLES, SYNTHESIS
from trainer.sampling.mixing import mixed_images, parse_seed_pair
from trainer.sampling.outputs import write_grid
from trainer.sampling.samples import Samples, images_of
from trainer.storage import locate
from trainer.training.rng import StepRng

BATCH = 4


@pytest.fixture(scope="module")
def trained(digits):
    """A conditional model after three steps, its state after the first step, and the w of that step."""
    gan = tiny_model("stylegan2_conditional", generator_learning_rate=0.01)
    rng = StepRng(gan.seed, 0, BATCH, purpose="generator/0")
    inputs = tf.concat([gan.sample_latents(rng)[:, :-1], tf.one_hot(gan.sample_labels(rng), 10)], axis=1)
    w = gan.generator.get_layer(MAPPING)(inputs).numpy()
    states = []
    record = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: states.append(values_of(gan)))
    settings = {"batch_size": BATCH, "steps": 3, "steps_per_execution": 1, "verbose": 0}
    gan.fit(*tiny_data(gan, digits), callbacks=[record], **settings)
    return gan, states[0], w


def state_named(state, name):
    (value,) = (value for key, value in state.items() if key.startswith("generator/") and key.endswith(f"/{name}"))
    return value


def test_the_average_style_moves_by_a_500th_per_step(trained):
    _, first, w = trained
    np.testing.assert_allclose(state_named(first, "average"), 0.002 * w.mean(axis=0), rtol=1e-3, atol=1e-7)


def test_the_mean_path_length_moves_in_every_fourth_step_only(trained):
    gan, first, _ = trained
    mean = state_named(first, "path_length_mean")
    assert mean > 0
    assert state_named(values_of(gan), "path_length_mean") == mean
    assert gan.generator_penalty_every_steps == 4


def test_the_penalty_of_path_lengths_does_not_depend_on_the_number_of_replicas(two_replicas):
    results = []
    for strategy, num_replicas in ((None, 1), (two_replicas, 2)):
        gan = tiny_model("stylegan2", strategy)
        mean = gan.generator.get_layer(STYLES).path_length_mean
        penalties, means = [], []
        for replica in range(num_replicas):
            rng = StepRng(0, tf.constant(0, tf.int64), 6 // num_replicas, replica, "generator")
            with keras.StatelessScope() as scope:
                penalties.append(gan._path_length_penalty(rng))
                means.append(scope.get_current_value(mean))
        results.append((np.mean(penalties), np.mean(means)))
    assert results[0] == pytest.approx(results[1], rel=1e-4)


def test_path_lengths_equal_numerical_derivatives(trained):
    gan = trained[0]
    network = gan.generator.get_layer(SYNTHESIS)
    styles = tf.random.stateless_normal([2, gan.num_styles, 8], [0, 1])
    directions = tf.random.stateless_normal([2, 12, 12, 1], [0, 2])
    size, step = gan.num_styles * 8, 1e-3
    changes = step * tf.reshape(tf.eye(size), [1, size, gan.num_styles, 8])
    ends = [tf.reshape(styles[:, np.newaxis] + sign * changes, [2 * size, gan.num_styles, 8]) for sign in (1, -1)]
    differences = tf.reshape(network(ends[0]) - network(ends[1]), [2, size, 12, 12, 1])
    slopes = tf.einsum("bshwc,bhwc->bs", differences, directions) / (2 * step * 12)
    squares = np.sum(np.reshape(np.square(slopes), (2, gan.num_styles, 8)), axis=2)
    expected = np.sqrt(squares.mean(axis=1))
    np.testing.assert_allclose(path_lengths(network, styles, directions), expected, rtol=1e-2)


def test_truncation_moves_styles_to_their_average(trained):
    gan = trained[0]
    styles, latents = gan.ema_generator.get_layer(STYLES), gan.latents_of(np.arange(3))
    whole, half, none = (
        gan._styles(gan.ema_generator, gan.truncate_latents(latents, psi), np.arange(3)) for psi in (1, 0.5, 0)
    )
    np.testing.assert_allclose(none, np.broadcast_to(styles.average.numpy(), none.shape), atol=1e-6)
    np.testing.assert_allclose(half, (whole + none) / 2, atol=1e-5)
    np.testing.assert_array_equal(whole, gan._styles(gan.ema_generator, latents[:, :-1], np.arange(3)))
    images = gan.images_from(gan.truncate_latents(latents, 0.0), np.arange(3))
    np.testing.assert_array_equal(images[0], images[2])


def test_a_symbolic_generator_has_the_same_images(trained):
    gan = trained[0]
    inputs = keras.Input((gan.latent_size,)), keras.Input((), dtype="int32")
    symbolic = keras.Model(inputs, gan.generate(*inputs, gan.ema_generator, False))
    latents, labels = gan.truncate_latents(gan.latents_of(np.arange(2)), 0.7), np.array([3, 4])
    expected = gan.generate(latents, labels, gan.ema_generator, False)
    np.testing.assert_allclose(symbolic((latents, labels)), expected, atol=1e-5)


def test_mixed_images_have_the_coarse_and_the_fine_styles(trained):
    gan = trained[0]
    rows, columns = (Samples(seeds, np.array([1, 2])) for seeds in parse_seed_pair("0,1:2,3"))
    all_fine, all_coarse = (
        np.concatenate([*mixed_images(gan, rows, columns, count)]).reshape(3, 3, 12, 12, 1)
        for count in (0, gan.num_styles)
    )
    np.testing.assert_array_equal(all_fine[1:, 1:], np.broadcast_to(all_fine[1:, :1], (2, 2, 12, 12, 1)))
    np.testing.assert_array_equal(all_coarse[1:, 1:], np.broadcast_to(all_coarse[:1, 1:], (2, 2, 12, 12, 1)))
    assert (all_fine[1:, 1:] != all_coarse[1:, 1:]).any()
    check_refusal(lambda: mixed_images(gan, rows, columns, gan.num_styles + 1), ConfigError, "num_coarse")


def test_a_grid_of_many_blocks_has_the_images_of_one_call(trained):
    gan = trained[0]
    rows, columns = (Samples(seeds, seeds.astype(np.int32) % 10) for seeds in parse_seed_pair("0-6:7-15"))
    grid = np.concatenate([*mixed_images(gan, rows, columns, None)]).reshape(8, 10, 12, 12, 1)
    of_rows, of_columns = np.divmod(np.arange(63), 9)
    chosen = [(samples.latents(gan), samples.labels) for samples in (columns, rows)]
    (coarse, coarse_labels), (fine, fine_labels) = chosen
    expected = gan.mix_styles(
        (coarse[of_columns], fine[of_rows]), (coarse_labels[of_columns], fine_labels[of_rows])
    ).reshape(7, 9, 12, 12, 1)
    np.testing.assert_array_equal(grid[1:, 1:], expected)
    assert not grid[0, 0].any()
    for edge, samples in ((grid[0, 1:], columns), (grid[1:, 0], rows)):
        np.testing.assert_array_equal(edge, np.concatenate([*images_of(gan, samples)]))


def test_a_grid_of_mixed_styles_that_is_too_large_is_refused_before_the_work(trained, monkeypatch, tmp_path):
    gan, generated = trained[0], []
    monkeypatch.setattr(gan, "sample_latents", generated.append)
    seeds = parse_seed_pair("0-999:0-999")
    rows, columns = (Samples(axis, np.zeros(len(axis), np.int32)) for axis in seeds)
    act = lambda: write_grid(  # noqa: E731
        locate(tmp_path / "x.png"), mixed_images(gan, rows, columns, None), 1001**2, 1001
    )
    check_refusal(act, DataError, "1,002,001")
    assert not generated


@pytest.mark.parametrize("shapes", [[(1, 9), (2, 9)], [(2, 9)], [(2, 9)] * 3, [(9,), (9,)], [(2, 5), (2, 9)]], ids=str)
def test_latents_that_cannot_be_mixed_are_refused(trained, shapes):
    gan = trained[0]
    assert gan.latent_size == 9
    check_refusal(lambda: gan.mix_styles([np.zeros(shape) for shape in shapes]), DataError, "latents")
    check_refusal(lambda: gan.mix_styles(np.zeros((2, 1, 9)), ([10], [0])), DataError, "labels", "10")


def test_training_mixes_the_requested_share_of_images():
    """All but the first layer may take the style of a second latent, and every cutoff occurs."""
    gan = tiny_model("stylegan2", model_options={"style_mixing": 0.5})
    rng = StepRng(0, 0, 400, purpose="test")
    latents = gan.sample_latents(rng)
    own, mixed = (
        gan._styles(gan.generator, latents, None),
        gan._mixed_styles(latents, None, rng, tracks_average=False),
    )
    counts = np.sum(np.all(own == mixed, axis=2), axis=1)
    assert 0.4 < np.mean(counts < gan.num_styles) < 0.6
    assert set(counts) == set(range(1, gan.num_styles + 1))


def test_labels_may_be_weights_and_latents_may_have_no_truncation(trained):
    gan = trained[0]
    assert isinstance(gan, ConditionalStyleGAN2)
    weights = np.eye(10, dtype=np.float32)[[3]]
    latents = gan.latents_of(np.array([5]))
    np.testing.assert_array_equal(gan.images_from(latents, np.array([3])), gan.images_from(latents, weights))
    np.testing.assert_array_equal(
        gan((latents[:, :-1], np.array([3]))), gan.generate(latents, tf.constant([3]), gan.ema_generator, False)
    )


def test_lazy_regularization_corrects_the_optimizer_of_the_generator():
    optimizer = tiny_model("stylegan2", beta_2=0.99, generator_learning_rate=1e-3).optimizers["generator"]
    assert float(optimizer.learning_rate) == pytest.approx(0.8e-3)
    assert float(optimizer.beta_2) == pytest.approx(0.99**0.8)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"architecture": "mlp", "architecture_options": TINY_ARCHITECTURES["mlp"]}, "stylegan2"),
        ({"model_options": {"style_mixing": 1.5}}, "style_mixing"),
        ({"model_options": {"path_length_weight": -1}}, "path_length_weight"),
        ({"model_options": {"path_length_every_steps": 0.5}}, "path_length_every_steps"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, named):
    check_refusal(lambda: tiny_model("stylegan2", **settings), ConfigError, named)


def test_a_generator_without_styles_is_refused():
    gan = StyleGAN2(4, networks=networks.build("mlp", (8, 8, 1), 4, 0, "tanh", TINY_ARCHITECTURES["mlp"]))
    check_refusal(gan.compile, NetworkError, "mapping", "stylegan2")


@pytest.mark.parametrize("text", ["0-3", "0:1:2", "a:1", "1:", "5-3:1"])
def test_wrong_seeds_to_mix_are_refused(text):
    check_refusal(lambda: parse_seed_pair(text), ConfigError, "mix_styles")


def test_a_model_without_styles_cannot_mix():
    samples = Samples(np.arange(2), None)
    check_refusal(lambda: mixed_images(tiny_gan(), samples, samples, None), ConfigError, "mix_styles")
