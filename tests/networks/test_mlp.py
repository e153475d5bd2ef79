"""The perceptrons have the layers of the systems that they reproduce."""

import keras
import numpy as np
import tensorflow as tf

from trainer import networks
from trainer.networks.mlp import DenseWithPlanes


def stack(network: str, options: dict[str, object], output_activation: str = "tanh") -> list[tuple[object, ...]]:
    """Returns a description of each layer of a network on 28×28×1 images, without inputs and changes of shape."""
    described: list[tuple[object, ...]] = []
    for layer in networks.build("mlp", (28, 28, 1), 100, 0, output_activation, options)[network]().layers:
        match type(layer).__name__:
            case "Dense":
                described.append(("dense", layer.units, layer.activation.__name__))
            case "BatchNormalization":
                described.append(("batch_norm", layer.momentum))
            case "LeakyReLU":
                described.append(("leaky_relu", layer.negative_slope))
            case "ReLU":
                described.append(("relu",))
            case "Dropout":
                described.append(("dropout", layer.rate))
    return described


def test_gan_rmsprop_has_its_dense_layers():
    options = {
        "generator_units": [256, 512],
        "discriminator_units": [512, 256],
        "generator_activation": "relu",
        "leaky_slope": 0.1,
        "batch_norm_momentum": 0.9,
        "dropout": 0.4,
        "initializer": "he_normal",
    }
    assert stack("generator", options, "sigmoid") == [
        *(("dense", 256, "linear"), ("batch_norm", 0.9), ("relu",)),
        *(("dense", 512, "linear"), ("batch_norm", 0.9), ("relu",)),
        ("dense", 784, "sigmoid"),
    ]
    assert stack("discriminator", options) == [
        *(("dense", 512, "linear"), ("leaky_relu", 0.1), ("dropout", 0.4)),
        *(("dense", 256, "linear"), ("leaky_relu", 0.1), ("dropout", 0.4)),
        ("dense", 1, "linear"),
    ]
    for factory in networks.build("mlp", (28, 28, 1), 100, 0, "tanh", options).values():
        dense = [layer for layer in factory().layers if isinstance(layer, keras.layers.Dense)]
        assert all(isinstance(layer.kernel_initializer, keras.initializers.HeNormal) for layer in dense)


def test_lsgan_has_its_layers():
    options = {"generator_units": [256, 512, 1024], "discriminator_units": [512, 256], "batch_norm_momentum": 0.8}
    assert stack("generator", options) == [
        *(("dense", 256, "linear"), ("batch_norm", 0.8), ("leaky_relu", 0.2)),
        *(("dense", 512, "linear"), ("batch_norm", 0.8), ("leaky_relu", 0.2)),
        *(("dense", 1024, "linear"), ("batch_norm", 0.8), ("leaky_relu", 0.2)),
        ("dense", 784, "tanh"),
    ]
    assert stack("discriminator", options) == [
        *(("dense", 512, "linear"), ("leaky_relu", 0.2)),
        *(("dense", 256, "linear"), ("leaky_relu", 0.2)),
        ("dense", 1, "linear"),
    ]


def test_mlp_zeros_has_its_layers():
    options = {
        "generator_units": [100, 150],
        "discriminator_units": [150, 100],
        "generator_activation": "relu",
        "discriminator_activation": "relu",
    }
    assert stack("generator", options, "relu") == [
        *(("dense", 100, "linear"), ("relu",)),
        *(("dense", 150, "linear"), ("relu",)),
        ("dense", 784, "relu"),
    ]
    assert stack("discriminator", options) == [
        *(("dense", 150, "linear"), ("relu",)),
        *(("dense", 100, "linear"), ("relu",)),
        ("dense", 1, "linear"),
    ]


def test_vanilla_has_its_layers():
    options = {"dropout": 0.3}
    assert stack("generator", options) == [
        *(("dense", 256, "linear"), ("leaky_relu", 0.2)),
        *(("dense", 512, "linear"), ("leaky_relu", 0.2)),
        *(("dense", 1024, "linear"), ("leaky_relu", 0.2)),
        ("dense", 784, "tanh"),
    ]
    assert stack("discriminator", options) == [
        *(("dense", 1024, "linear"), ("leaky_relu", 0.2), ("dropout", 0.3)),
        *(("dense", 512, "linear"), ("leaky_relu", 0.2), ("dropout", 0.3)),
        *(("dense", 256, "linear"), ("leaky_relu", 0.2), ("dropout", 0.3)),
        ("dense", 1, "linear"),
    ]


def test_labels_have_the_influence_and_learning_speed_of_planes():
    """Outputs before and after a step of RMSprop equal those of a plain dense layer on the planes."""
    images, labels = tf.random.stateless_normal([4, 6], [1, 2]), tf.one_hot([0, 2, 1, 0], 3)
    planes = tf.concat([images, tf.reshape(tf.tile(labels[:, tf.newaxis], [1, 12, 1]), [4, 36])], axis=-1)
    short, plain = DenseWithPlanes(5, 12, keras.initializers.HeNormal(seed=3)), keras.layers.Dense(5)
    short([images, labels])
    plain.build((None, 42))
    assert 0.5 < np.std(short.label_kernel) * 12**0.5 / (2 / 42) ** 0.5 < 1.5
    np.testing.assert_allclose(np.std(short.kernel), (2 / 42) ** 0.5, rtol=0.5)
    plain.kernel.assign(np.concatenate([short.kernel, np.tile(short.label_kernel, (12, 1))]))
    for layer, inputs in ((short, [images, labels]), (plain, planes)):
        optimizer = keras.optimizers.RMSprop(0.01)
        for _ in range(2):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(layer(inputs)))
            optimizer.apply(tape.gradient(loss, layer.trainable_weights), layer.trainable_weights)
    np.testing.assert_allclose(short([images, labels]), plain(planes), rtol=1e-3, atol=1e-3)
