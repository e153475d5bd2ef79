"""Trains the network whose features the suite `photos` uses, on the ten classes of CIFAR-10's training images.

Run `python scripts/train_photos_network.py --images=cifar10_train.zip [--directory=DIRECTORY]`. The zip file has one
folder of 32x32 JPEG or PNG files for each class. The last 500 images of each class, by name, are held out for the
accuracy. The state is saved after every epoch; the same command continues a stopped training. The learning rate depends
on `--epochs`, which may change when a training is continued; the description lists its value at each epoch. The weights
have batch normalization folded into them.
"""

import argparse
import hashlib
import io
import json
import os
import pathlib
import time
import zipfile

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from trainer.metrics import photos_network
from trainer.metrics.photos_network import STAGES, STEM, PhotosNetwork
from trainer.networks.layers import BatchNormalization

SEED = 17
BATCH = 128
SIZE = 32
HELD_OUT_PER_CLASS = 500
PEAK_LEARNING_RATE = 0.25
WARM_UP = 0.15
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.05
EMA_DECAY = 0.998
SMALLEST_CROP = 0.25
CUTOUT = 8
JITTER = 0.2


def load(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray, list[str], str]:
    """Reads the images of a zip file with one folder per class, in the order of their names.

    Returns:
        images: uint8 [N, 32, 32, 3].
        labels: int32 [N].
        classes: Names of the classes.
        digest: SHA-256 of the labels and pixels.
    """
    images, labels = [], []
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg", ".png")))
        classes = sorted({name.split("/")[-2] for name in names})
        for name in names:
            with Image.open(io.BytesIO(archive.read(name))) as file:
                images.append(np.asarray(file.convert("RGB")))
            labels.append(classes.index(name.split("/")[-2]))
    pixels, targets = np.stack(images), np.array(labels, np.int32)
    return pixels, targets, classes, hashlib.sha256(targets.tobytes() + pixels.tobytes()).hexdigest()


def split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the images to train on and of those held out: the last 500 of each class."""
    held_out = np.concatenate([np.flatnonzero(labels == k)[-HELD_OUT_PER_CLASS:] for k in np.unique(labels)])
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def build(num_classes: int) -> keras.Model:
    """Returns the network of `trainer.metrics.photos_network`: float [B, H, W, 3] in [-1, 1] to logits [B, K]."""

    def convolve(x: keras.KerasTensor, name: str, filters: int, stride: int = 1) -> keras.KerasTensor:
        x = keras.layers.Conv2D(filters, 3, stride, "same", use_bias=False, name=name)(x)
        return BatchNormalization(momentum=0.98, name=f"{name}_norm")(x)

    relu = keras.layers.ReLU
    inputs = keras.Input((None, None, 3))
    x = relu()(convolve(inputs, "stem", STEM))
    for stage, filters in enumerate(STAGES):
        x = relu()(convolve(x, f"stage{stage}_down", filters, 2))
        y = relu()(convolve(x, f"stage{stage}_first", filters))
        x = relu()(keras.layers.Add()([x, convolve(y, f"stage{stage}_second", filters)]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="logits")(x))


def draw_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """Draws boxes for `tf.image.crop_and_resize`, float32 [B, 4]: crops of random scale and shape, half flipped."""
    area, aspect = random.uniform(SMALLEST_CROP, 1, count), np.exp(random.uniform(-0.25, 0.25, count))
    height, width = np.minimum(np.sqrt(area / aspect), 1), np.minimum(np.sqrt(area * aspect), 1)
    top, left = random.uniform(0, 1, (2, count)) * (1 - np.stack([height, width]))
    boxes = np.stack([top, left, top + height, left + width], 1)
    boxes = np.where(random.random((count, 1)) < 0.5, boxes[:, [0, 3, 2, 1]], boxes)
    return boxes.astype(np.float32)


def augment(images: np.ndarray, random: np.random.Generator) -> tf.Tensor:
    """Crops, flips, changes the colors and erases a square: uint8 to float32 [B, 32, 32, 3] in about [-1, 1]."""
    count = len(images)
    x = tf.image.crop_and_resize(images, draw_boxes(random, count), np.arange(count), (SIZE, SIZE)) / 127.5 - 1.0
    contrast, brightness, saturation = (
        random.uniform(-JITTER, JITTER, (3, count, 1, 1, 1)).astype(np.float32)
        + np.float32([1, 0, 1])[:, None, None, None, None]
    )
    gray = tf.reduce_mean(x, axis=-1, keepdims=True)
    x = (gray + (x - gray) * saturation) * contrast + brightness
    corners = random.integers(-CUTOUT // 2, SIZE - CUTOUT // 2, (2, count, 1))
    inside = [(np.arange(SIZE) >= corner) & (np.arange(SIZE) < corner + CUTOUT) for corner in corners]
    return x * (1.0 - (inside[0][:, :, None, None] & inside[1][:, None, :, None]).astype(np.float32))


class Training:
    """Model, optimizer, averaged weights and position of a training that can be stopped and continued."""

    def __init__(self, num_classes: int, total_steps: int, state: pathlib.Path) -> None:
        self.model, self._total_steps, self._state = build(num_classes), total_steps, state
        self._optimizer = keras.optimizers.SGD(0.1, MOMENTUM, nesterov=True)
        self._optimizer.build(self.model.trainable_variables)
        self._averages = [tf.Variable(variable) for variable in self.model.variables]
        self._loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=LABEL_SMOOTHING)
        self._num_classes = num_classes
        self._step = tf.function(self._make_step)
        self.step, self.planned = 0, np.empty(0, np.int64)
        if state.exists():
            with np.load(state, allow_pickle=False) as arrays:
                self.step, self.planned = int(arrays["step"]), arrays["planned"]
                for index, variable in enumerate(self._variables()):
                    variable.assign(arrays[f"v{index}"])

    def _variables(self) -> list:
        return [*self.model.variables, *self._optimizer.variables, *self._averages]

    def _make_step(self, images: tf.Tensor, labels: tf.Tensor, decay: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True)
            loss = self._loss(tf.one_hot(labels, self._num_classes), logits)
            squares = [tf.nn.l2_loss(v) for v in self.model.trainable_variables if v.path.endswith("kernel")]
            total = loss + WEIGHT_DECAY * tf.add_n(squares)
        variables = self.model.trainable_variables
        self._optimizer.apply(tape.gradient(total, variables), variables)
        for average, variable in zip(self._averages, self.model.variables, strict=True):
            average.assign(variable + decay * (average - variable))
        return loss

    def train_batch(self, images: np.ndarray, labels: np.ndarray) -> tf.Tensor:
        """Makes one step with a learning rate that rises along a line, then falls along a cosine to 0."""
        random = np.random.Generator(np.random.PCG64([SEED, self.step]))
        position = self.step / self._total_steps
        falling = 0.5 * (1 + np.cos(np.pi * min(1.0, (position - WARM_UP) / (1 - WARM_UP))))
        rate = PEAK_LEARNING_RATE * (max(position / WARM_UP, 0.02) if position < WARM_UP else falling)
        self._optimizer.learning_rate.assign(rate)
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        loss = self._step(augment(images, random), labels, tf.constant(decay, tf.float32))
        self.step += 1
        return loss

    def save(self) -> None:
        """Writes the state, completely or not at all."""
        arrays = {f"v{index}": np.asarray(variable) for index, variable in enumerate(self._variables())}
        part = self._state.with_suffix(".part.npz")
        np.savez(part, allow_pickle=False, step=self.step, planned=self.planned, **arrays)
        os.replace(part, self._state)

    def fold(self) -> dict[str, np.ndarray]:
        """Returns the averaged weights as arrays, each batch normalization folded into the convolution before it."""
        values = {v.path: np.asarray(a) for v, a in zip(self.model.variables, self._averages, strict=True)}
        weights = {}
        for name in photos_network.CONVOLUTIONS:
            norm = f"{name}_norm"
            variance = values[f"{norm}/moving_variance"] + self.model.get_layer(norm).epsilon
            scale = values[f"{norm}/gamma"] / np.sqrt(variance)
            weights[f"{name}_kernel"] = values[f"{name}/kernel"] * scale
            weights[f"{name}_bias"] = values[f"{norm}/beta"] - values[f"{norm}/moving_mean"] * scale
        return weights | {f"logits_{part}": values[f"logits/{part}"] for part in ("kernel", "bias")}


def extract(network: PhotosNetwork, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the features [N, F] and logits [N, K] of images, in batches."""
    function = tf.function(network)
    parts = [[t.numpy() for t in function(images[start : start + 100])] for start in range(0, len(images), 100)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def write(directory: pathlib.Path, weights: dict[str, np.ndarray], description: dict) -> None:
    """Writes the weights as float16, and the description with their SHA-256."""
    path = directory / photos_network.WEIGHTS_PATH.name
    np.savez_compressed(path, allow_pickle=False, **{name: value.astype(np.float16) for name, value in weights.items()})
    description = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), **description}
    path.with_suffix(".json").write_text(json.dumps(description, indent=2) + "\n")


def export(training: Training, directory: pathlib.Path, data: tuple) -> float:
    """Writes the network with standardized features and its held-out accuracy, and returns the latter."""
    images, labels, classes, digest = data
    used, held_out = split(labels)
    size = photos_network.PhotosNetwork.feature_size
    weights = training.fold() | {"features_mean": np.zeros(size), "features_deviation": np.ones(size)}
    write(directory, weights, {})
    path = directory / photos_network.WEIGHTS_PATH.name
    raw, _ = extract(PhotosNetwork(path), images[used[:: len(used) // 5000]])
    weights |= {"features_mean": raw.mean(0), "features_deviation": raw.std(0)}
    write(directory, weights, {})
    _, logits = extract(PhotosNetwork(path), images[held_out])
    accuracy = float((logits.argmax(1) == labels[held_out]).mean())
    description = {
        "held_out_accuracy": accuracy,
        "held_out_images": f"the last {HELD_OUT_PER_CLASS} of each class by name",
        "feature_size": size,
        "classes": classes,
        "data": f"CIFAR-10's training images as JPEG files of 32x32 pixels, {len(labels)} in {len(classes)} folders",
        "data_sha256": digest,
        "made_by": "scripts/train_photos_network.py",
        "seed": SEED,
        "steps": training.step,
        "planned_epochs_at_each_epoch": training.planned.tolist(),
    }
    write(directory, weights, description)
    return accuracy


def main() -> None:
    """Trains, and writes the weights and their description every few epochs and at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=pathlib.Path, required=True, help="zip file with one folder per class")
    parser.add_argument("--directory", type=pathlib.Path, default=photos_network.WEIGHTS_PATH.parent)
    parser.add_argument("--state", type=pathlib.Path, default=pathlib.Path("photos_training.npz"))
    parser.add_argument("--epochs", type=int, default=18)
    flags = parser.parse_args()
    keras.utils.set_random_seed(SEED)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    data = load(flags.images)
    images, labels, classes, _ = data
    used, _ = split(labels)
    steps = len(used) // BATCH
    training = Training(len(classes), flags.epochs * steps, flags.state)
    for epoch in range(training.step // steps, flags.epochs):
        start, losses = time.monotonic(), []
        order = np.random.Generator(np.random.PCG64([SEED, epoch, 1])).permutation(used)
        for rows in np.split(order[: steps * BATCH], steps):
            losses.append(training.train_batch(images[rows], labels[rows]))
        training.planned = np.append(training.planned, flags.epochs)
        training.save()
        line = f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, {time.monotonic() - start:.0f} s"
        if epoch % 3 == 2 or epoch == flags.epochs - 1:
            line += f", accuracy {export(training, flags.directory, data):.4f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
