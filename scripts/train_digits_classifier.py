"""Trains the classifier whose features the digits metrics use, from the embedded digits: 90 s on 2 CPU cores.

Run `python scripts/train_digits_classifier.py [DIRECTORY]`; the same machine and versions give the same bytes.
500 digits, 50 a class, are held out for the accuracy. The weights have batch normalization folded into them.
"""

import hashlib
import json
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

from trainer.data.loading import Arrays, load
from trainer.metrics import digits_classifier

SEED = 7
EPOCHS = 60
BATCH = 100
HELD_OUT_PER_CLASS = 50
LEARNING_RATE = 2e-3


def split(arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the digits to train on and of those held out: the last 50 of each class."""
    held_out = np.concatenate([np.flatnonzero(arrays.labels == k)[-HELD_OUT_PER_CLASS:] for k in range(10)])
    return np.setdiff1d(np.arange(len(arrays.labels)), held_out), held_out


def build() -> keras.Model:
    """Returns the network of `trainer.metrics.digits_classifier`: [B, 28, 28, 1] to logits [B, 10]."""
    inputs = x = keras.Input((28, 28, 1))
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    for index, (kernel, stride, filters) in enumerate(((5, 2, 32), (3, 2, 64), (3, 1, 64))):
        x = keras.layers.Conv2D(filters, kernel, stride, "same", use_bias=False, name=f"conv{index}")(x)
        x = keras.layers.BatchNormalization(name=f"norm{index}")(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.Dropout(0.3, seed=SEED)(keras.layers.Flatten()(x))
    x = keras.layers.ReLU()(keras.layers.Dense(64, name="features")(x))
    x = keras.layers.Dropout(0.3, seed=SEED + 1)(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(x))


def augment(images: np.ndarray, random: np.random.Generator) -> tf.Tensor:
    """Shifts by 2 pixels, rotates by 14 degrees, zooms and shears by 12 % at most: uint8 to float32 [B, 28, 28, 1]."""
    batch, center = len(images), 13.5
    angle = random.uniform(-0.25, 0.25, batch)
    zoom = random.uniform(0.88, 1.12, (2, batch))
    shear = random.uniform(-0.12, 0.12, batch)
    shift = random.uniform(-2, 2, (2, batch))
    a, b = np.cos(angle) * zoom[0], -np.sin(angle) + shear
    d, e = np.sin(angle), np.cos(angle) * zoom[1]
    c = center + shift[0] - a * center - b * center
    f = center + shift[1] - d * center - e * center
    zero = np.zeros(batch)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=np.stack([a, b, c, d, e, f, zero, zero], 1).astype(np.float32),
        output_shape=[28, 28],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )


def train(images: np.ndarray, labels: np.ndarray) -> keras.Model:
    """Trains on uint8 [N, 28, 28, 1] and int32 [N]; the learning rate falls along a cosine to 0."""
    model, random = build(), np.random.Generator(np.random.PCG64(SEED))
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps), weight_decay=1e-2)
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(batch: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_of(targets, model(batch, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    for epoch in range(EPOCHS):
        order = random.permutation(len(images))
        losses = [
            step(augment(images[rows], random), labels[rows])
            for rows in (order[start : start + BATCH] for start in range(0, len(order) - BATCH + 1, BATCH))
        ]
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}", flush=True)
    return model


def fold(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the weights as float32 arrays, each batch normalization folded into the convolution before it.

    The features' means and standard deviations on `images`, uint8 [N, 28, 28, 1], are among them.
    """
    weights = {}
    for index in range(digits_classifier.NUM_CONVOLUTIONS):
        (kernel,) = model.get_layer(f"conv{index}").get_weights()
        norm = model.get_layer(f"norm{index}")
        gamma, beta, mean, variance = norm.get_weights()
        scale = gamma / np.sqrt(variance + norm.epsilon)
        weights[f"conv{index}_kernel"], weights[f"conv{index}_bias"] = kernel * scale, beta - mean * scale
    for name in ("features", "logits"):
        weights[f"{name}_kernel"], weights[f"{name}_bias"] = model.get_layer(name).get_weights()
    raw = keras.Model(model.input, model.get_layer("features").output).predict(images, BATCH, verbose=0)
    weights["features_mean"], weights["features_deviation"] = raw.mean(axis=0), raw.std(axis=0)
    return {name: value.astype(np.float32) for name, value in weights.items()}


def main() -> None:
    """Trains, writes the weights and their description, and prints the latter."""
    directory = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else digits_classifier.WEIGHTS_PATH.parent
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    digits = load("digits")
    training, held_out = split(digits)
    model = train(digits.images[training], digits.labels[training])
    path = directory / digits_classifier.WEIGHTS_PATH.name
    np.savez(path, allow_pickle=False, **fold(model, digits.images[training]))
    description: dict[str, str | int | float] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(description))
    _, logits = digits_classifier.DigitsClassifier(path).extract(digits.images[held_out])
    description |= {
        "held_out_accuracy": float((logits.argmax(1) == digits.labels[held_out]).mean()),
        "held_out_digits": "the last 50 of each class of the embedded digits",
        "feature_size": digits_classifier.FEATURE_SIZE,
        "data_fingerprint": digits.fingerprint,
        "made_by": "scripts/train_digits_classifier.py",
        "seed": SEED,
    }
    path.with_suffix(".json").write_text(json.dumps(description, indent=2) + "\n")
    print(json.dumps(description, indent=2))


if __name__ == "__main__":
    main()
