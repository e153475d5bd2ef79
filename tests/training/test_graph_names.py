"""The graph of a network follows from its structure, not from the networks that the process made before."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import values_of

from trainer import GAN
from trainer.training import gradients as gradients
from trainer.training.checkpoint.manifest import state_sha256


def mlp():
    inputs = keras.Input([4])
    hidden = [keras.layers.Dense(3)(inputs) for _ in range(4)]
    return keras.Model(inputs, keras.Sequential([keras.layers.Dense(2)])(keras.layers.add(hidden)))


def nodes_of_gradients(network, optimizer):
    @tf.function
    def step(inputs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(inputs))
        optimizer.apply(tape.gradient(loss, network.trainable_variables), network.trainable_variables)
        return loss

    optimizer.build(network.trainable_variables)
    return [
        (node.name, list(node.input)) for node in step.get_concrete_function(tf.ones([2, 4])).graph.as_graph_def().node
    ]


def test_networks_with_the_same_structure_have_the_same_graph():
    first, *others = [nodes_of_gradients(mlp(), keras.optimizers.Adam()) for _ in range(4)]  # 4 * 5 dense layers
    assert all(nodes == first for nodes in others)


@pytest.mark.parametrize("name", ["block_1", "dense_1_out", "add_3"])
def test_a_name_that_its_user_gives_stays_in_the_graph(name):
    layer = keras.layers.Dense(2, name=name)
    graph = tf.function(layer).get_concrete_function(tf.ones([2, 4])).graph
    assert layer.name == name
    assert any(node.name.startswith(name) for node in graph.as_graph_def().node)


class EqualSamples(GAN):
    """Its samples differ only by their images, so that with equal images all replicas have the same gradients."""

    def sample_latents(self, rng):
        return tf.ones([rng.num_samples, self.latent_size])

    def get_generator(self):
        return keras.Sequential([keras.Input([2]), keras.layers.Dense(16, "tanh")])

    def get_discriminator(self):
        layers = [keras.Input([16]), keras.layers.Dense(64, "gelu"), keras.layers.Dense(1)]
        return keras.Sequential(
            layers, name="discriminator"
        )  # sorts before `gradient_tape`, which `replica_1` does not


def test_all_replicas_add_the_terms_of_a_gradient_in_the_same_order(two_replicas):
    images = np.repeat(np.random.default_rng(0).uniform(-1, 1, [1, 16]).astype(np.float32), 16, axis=0)

    def train(strategy, batch_size):
        with strategy.scope():
            gan = EqualSamples(2, image_range="-1..1")
            penalties = {"penalties": ("r1", "r2"), "penalty_weight": 1.0}
            gan.compile(keras.optimizers.SGD(0.5), loss="relativistic", jit_compile=False, **penalties)
        gan.fit(images, steps=3, batch_size=batch_size, verbose=0)
        return state_sha256(values_of(gan))

    assert train(two_replicas, 8) == train(tf.distribute.get_strategy(), 4)
