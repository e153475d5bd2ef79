"""Second heads on a discriminator: what a wiring reads beside the logit, from the same pass.

Legend: `B` images a replica, `F` features.
"""

import keras

from trainer.errors import NetworkError


def with_features(discriminator: keras.Model) -> keras.Model:
    """A model of the same layers that returns (logits [B, 1], features [B, F]): what its last layer reads.

    Raises:
        NetworkError: The discriminator is not a Sequential or functional model with a dense last layer.
    """
    layers = getattr(discriminator, "layers", [])
    if len(layers) < 2 or not isinstance(layers[-1], keras.layers.Dense) or not hasattr(discriminator, "inputs"):
        raise NetworkError(
            "this wiring puts a second head on the discriminator, which therefore must be a Sequential or functional "
            "model that ends in Dense(1)."
        )
    return keras.Model(discriminator.inputs, [discriminator.outputs[0], layers[-1].input], name="discriminator_trunk")


def num_features(discriminator: keras.Model) -> int:
    """F of `with_features`."""
    return int(with_features(discriminator).outputs[1].shape[1])
