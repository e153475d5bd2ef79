"""The graph of a network follows from its structure, not from the networks that the process made before."""

import keras
import pytest
import tensorflow as tf

from trainer.training import gradients as gradients


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
