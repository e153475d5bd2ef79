"""A tiny extractor, real images that it reads, and models with fixed samples, for the tests of metrics."""

import numpy as np
import tensorflow as tf

from trainer.metrics.extraction import ReplicatedFunction, blocks_of
from trainer.metrics.real_statistics import RealImages

NUM_FEATURES = 12


class PooledPixels:
    """An extractor whose features are the mean colors of the four quarters of an image."""

    name, sha256, feature_size, frechet_name = "pooled", "0123456789abcdef" * 4, NUM_FEATURES, "frechet"

    def __init__(self):
        self.num_traces = 0

    def __call__(self, images):
        self.num_traces += 1
        features = tf.reshape(tf.nn.avg_pool2d(tf.cast(images, tf.float32) / 255.0, 4, 4, "VALID"), (-1, NUM_FEATURES))
        return features, 4.0 * features[:, :5]


def images_of(num_images, seed=0, contrast=1.0):
    """Returns images uint8 [num_images, 8, 8, 3] with quarters of different colors."""
    random = np.random.Generator(np.random.PCG64(seed))
    colors = random.normal(128.0, 40.0 * contrast, (num_images, 2, 1, 2, 1, 3))
    pixels = np.broadcast_to(colors, (num_images, 2, 4, 2, 4, 3)).reshape(num_images, 8, 8, 3)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def real_images_of(images, fingerprint="made"):
    return RealImages(fingerprint, len(images), lambda: (block for (block,) in blocks_of(images)))


class Generator:
    """A model whose samples are fixed images."""

    def __init__(self, images):
        self.images = images

    def sample_features(self, num_images, function):
        outputs = function(tf.constant(self.images[:num_images]))
        return tuple(output.numpy() for output in outputs), None


class Model:
    """A model whose samples are fixed images and labels."""

    def __init__(self, images, labels=None):
        self.images, self.labels = images, labels

    def sample_features(self, num_images, function):
        labels = None if self.labels is None else self.labels[:num_images]
        return ReplicatedFunction(function)(blocks_of(self.images[:num_images])), labels
