"""The feature extractor of the Frechet Inception distance: the network of 2015 from its published frozen graph.

Shapes: `B` images, `H W C` height, width and channels, `F` features (2,048) and `K` logits (1,008) of the published
network. Source: arXiv 1706.08500.
"""

import contextlib
import hashlib
import os

import tensorflow as tf

from trainer.metrics.extraction import without_tf32
from trainer.metrics.extractor import as_rgb
from trainer.metrics.frozen_graph import FrozenGraph, FrozenNetwork
from trainer.metrics.inception_weights import read_graph
from trainer.storage import local_path

_FEED = "ExpandDims"
_FEATURES = "pool_3"
_LOGITS = "softmax/logits/MatMul"


class InceptionNetwork:
    """Features of images as papers compare them: the values of `pool_3`.

    The graph resizes images of any size to 299x299 pixels itself, as its authors did: bilinear, without antialiasing,
    and with pixel corners instead of pixel centers aligned to the grid. Do not resize images before.

    Attributes:
        sha256: SHA-256 of the graph. Metrics are comparable only if their extractors have the same hash.
        feature_size: Number F of features.
    """

    name = "inception"
    frechet_name = "fid"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Reads the weights. `inception_weights.find` gives the path of weights that are verified.

        Args:
            path: Local path of the frozen graph, or of the published archive that contains it.

        Raises:
            DataError: If the file is not such a graph.
            StorageError: If the file is not readable.
        """
        path = local_path(path)
        content = read_graph(path)
        self.sha256 = hashlib.sha256(content).hexdigest()
        graph = FrozenGraph(content, path)
        self._network = FrozenNetwork(graph, _FEED, [_FEATURES])
        shape = self._network.shapes[_FEATURES]
        weights = graph.constant(_LOGITS, 1)
        if shape.rank != 4 or shape[1:3] != (1, 1) or weights.shape[:-1] != (shape[3],):
            raise graph.error(f"{_FEATURES} has shape {shape} and the weights of {_LOGITS} have {list(weights.shape)}")
        self.feature_size = int(shape[3])
        self._logits_weights = tf.constant(weights)

    def __call__(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes features and logits. It can be called inside a `tf.function`, which should then run inside
        `without_tf32()`.

        Args:
            images: uint8 or float [B, H, W, C] in [0, 255]. Gray images (C = 1) become color images. Images with
                alpha (C = 4) are placed on white.

        Returns:
            features: float32 [B, F].
            logits: float32 [B, K], without the bias of the classes, as the Inception score takes them.

        Raises:
            DataError: If the images have another shape.
        """
        images = as_rgb(images)
        with without_tf32() if tf.executing_eagerly() else contextlib.nullcontext():
            features = tf.reshape(self._network(images)[_FEATURES], (-1, self.feature_size))
            return features, tf.matmul(features, self._logits_weights)
