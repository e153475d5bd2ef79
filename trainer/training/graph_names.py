"""Names of operations that follow from the structure of a network, not from what the process made before.

Keras numbers layers without a name over the whole process: the first convolution is `conv2d`, and that of the next
model is `conv2d_7`. Layers pass their names to TensorFlow as name scopes, and TensorFlow's graph optimizer rewrites
sums in the order of names, where `add_10` comes before `add_9`. So two models with the same structure could round the
same sum differently. Here, a layer with an automatic name has the scope `conv2d` in every graph, and TensorFlow numbers
the scopes of each graph.

Keras has no public way to choose these scopes. Names and paths of layers and variables stay those of Keras.
"""

import re
from typing import Any

import tensorflow as tf
from keras.src import backend
from keras.src.backend.tensorflow import core as keras_core
from keras.src.utils import naming


class GraphScope(keras_core.name_scope):
    """Keras's name scope, with a scope in the graph that does not depend on earlier layers of the process.

    Args:
        name: Name of the layer or optimizer.
        caller: The layer or optimizer; None for a scope that has no owner.
        **kwargs: Other arguments of Keras's name scope.
    """

    def __init__(self, name: str, caller: Any = None, **kwargs: Any):
        super().__init__(name, caller=caller, **kwargs)
        automatic = naming.to_snake_case(type(caller).__name__)
        if re.fullmatch(rf"{automatic}_\d+", name):
            self._tf_name_scope = tf.name_scope(automatic)


backend.name_scope = GraphScope
