"""Rules for the accumulation of gradients over micro-batches."""

from collections.abc import Mapping

import keras

from trainer.config.fields import check_number
from trainer.errors import NetworkError
from trainer.models.validation import all_layers
from trainer.networks.layers import ImagePool


def check_accumulation(accumulate_steps: int, networks: Mapping[str, keras.layers.Layer]) -> None:
    """Checks that the networks compute the same on micro-batches as on the whole batch.

    Args:
        accumulate_steps: Number of micro-batches of each replica.
        networks: All networks by name.

    Raises:
        ConfigError: If the number is not a whole number from 1 up.
        NetworkError: If a layer uses statistics of the batch, or keeps images of it.
    """
    check_number("accumulate_steps", accumulate_steps, whole=True, minimum=1)
    if accumulate_steps == 1:
        return
    for name, network in networks.items():
        for layer in all_layers([network]):
            if uses_batch_statistics(layer):
                raise NetworkError(
                    f"accumulate_steps={accumulate_steps} changes the results of {layer.name} in {name}, a "
                    f"{type(layer).__name__} that depends on the whole batch; set accumulate_steps=1 and a smaller "
                    "batch, or choose a network without batch statistics, such as architecture=r3gan."
                )


def uses_batch_statistics(layer: keras.layers.Layer) -> bool:
    """Returns whether the output of a layer for an image depends on other images, or on their order in time.

    A layer of this package or of a user declares it by the attribute `couples_samples`.
    """
    if isinstance(layer, keras.layers.BatchNormalization):
        return bool(layer.trainable)
    return (isinstance(layer, ImagePool) and layer.size > 0) or bool(getattr(layer, "couples_samples", False))
