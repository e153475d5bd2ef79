"""Freezes the first layers of discriminators, as in FreezeD.

Source: arXiv 2002.10964, section 3.
"""

import math
from collections.abc import Collection, Iterator, Mapping

import keras

from trainer.config.fields import check_number
from trainer.errors import ConfigError, count_of
from trainer.models.validation import names_with_role
from trainer.training.plan import learned_weights


def freeze_layers(names: Collection[str], networks: Mapping[str, keras.layers.Layer], num_layers: int) -> None:
    """Freezes the first layers with weights of each discriminator, counted from the image.

    Args:
        names: Names of the networks that the discriminator's optimizer updates. The discriminators are those whose
            names begin with `discriminator`, without heads and image pools.
        networks: Networks by name.
        num_layers: Number of layers to freeze.

    Raises:
        ConfigError: If the number is negative or not whole, or if it leaves a discriminator without a layer to train.
    """
    check_number("freeze_discriminator_layers", num_layers, whole=True)
    if not num_layers:
        return
    discriminators = [layers_from_image(networks[name]) for name in names_with_role("discriminator", names)]
    smallest = min(map(len, discriminators), default=0)
    if num_layers >= smallest:
        raise ConfigError(
            f"freeze_discriminator_layers={num_layers} leaves no layer to train, because the discriminator has "
            f"{count_of(smallest, 'layer')} with weights; give at most {max(smallest - 1, 0)}."
        )
    for layers in discriminators:
        for layer in layers[:num_layers]:
            layer.trainable = False


def frozen_layers(networks: Mapping[str, keras.layers.Layer]) -> dict[str, list[str]]:
    """Returns the names of the frozen layers of each discriminator that has any, counted from the image."""
    frozen = {
        name: [layer.name for layer in layers_from_image(networks[name]) if not layer.trainable]
        for name in names_with_role("discriminator", networks)
    }
    return {name: layers for name, layers in frozen.items() if layers}


def layers_from_image(discriminator: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the layers with weights through which the image passes, in the order of the network.

    Layers of a network within the network count one by one. Layers that only labels pass through do not count.
    """
    layers = (inner for layer in _layers_of_image(discriminator) for inner in _innermost(layer))
    return [*{id(layer): layer for layer in layers if learned_weights(layer)}.values()]


def _layers_of_image(network: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the layers of a network, without those that only labels pass through."""
    inputs = getattr(network, "inputs", None) or []
    if len(inputs) < 2:
        return [network]
    image = max(inputs, key=lambda tensor: (len(tensor.shape), math.prod(size or 0 for size in tensor.shape[1:])))
    reached, layers = {id(image)}, []
    for operation in network.operations:  # in an order in which an operation follows those that it depends on
        if not {id(tensor) for tensor in keras.tree.flatten(operation.input)}.isdisjoint(reached):
            reached |= {id(tensor) for tensor in keras.tree.flatten(operation.output)}
            layers.append(operation)
    return [layer for layer in layers if isinstance(layer, keras.layers.Layer)]


def _innermost(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """Yields the layers of a model at any depth, or any other layer itself."""
    if not isinstance(layer, keras.Model):
        yield layer
        return
    for inner in layer.layers:
        yield from _innermost(inner)
