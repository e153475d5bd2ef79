"""Measures which share of a step is spent in its convolutions and matrix products.

A layer with a kernel has three products: forward, gradient of the input, gradient of the kernel. Each is timed
separately, without bias and activation, at the shapes of the step, and multiplied by its count in a step (`counts`):

| step | G forward | G kernel | G input | D forward | D kernel | D input |
|---|---|---|---|---|---|---|
| simultaneous | 1 | 1 | 1, first layer 0 | 2 | 2 | 3, first layer 1 |
| alternating, discriminator | 1 | | | 2 | 2 | 2, first layer 0 |
| alternating, generator | 1 | 1 | 1, first layer 0 | 1 | | 1 |
| penalty on one kind of images | | | | 1 | 1 | 1 |

A penalty on input gradients adds the pass to the images and its own gradients: the kernel's, and that of the upstream
gradient, which is a forward pass. Penalties at every k-th step have a forward pass of their own, and count 1/k. The
generator of a relativistic loss also needs the logits of real images, one forward pass more unless the step is
simultaneous.

`ours` runs the layers of this package, which replace the general kernels for some shapes; `plain` runs Keras's own
layers at the same shapes. A share of 1 means that a step does nothing else.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.ours import Engine
from trainer.config import TrainConfig

Counts = tuple[float, float, float]
"""Number of times that a step computes a layer, the gradient of its kernel and the gradient of its input."""

_PRODUCT_LAYERS = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.Conv2DTranspose)
_SWEEPS = 15
_SECONDS_PER_TIMING = 0.02


def measure(engine: Engine, batch_size: int, num_steps: int) -> dict[str, Any]:
    """Times steps and products in turn.

    Returns:
        `seconds_per_step`, and under `ours` and `plain` the `seconds` and the `share` of all products of a step. The
        latter are missing if the networks have no layers that are convolutions or matrix products of Keras.
    """
    empty_function = tf.function(lambda: tf.constant(0.0))
    products: dict[str, list[tuple[float, Callable[[], object]]]] = {
        "ours": _products(engine, batch_size, plain=False),
        "plain": _products(engine, batch_size, plain=True),
    }
    for _, call in [*products["ours"], *products["plain"]]:
        call()
    steps, overheads = [], []
    times: dict[str, list[list[float]]] = {name: [[] for _ in calls] for name, calls in products.items()}
    for _ in range(_SWEEPS):
        steps.append(_seconds(lambda: engine.run(num_steps), 1) / num_steps)
        overheads.append(_seconds(empty_function, 100))
        for name, calls in products.items():
            for index, (_, call) in enumerate(calls):
                times[name][index].append(_mean_seconds(call))
    step, overhead = float(np.median(steps)), float(np.median(overheads))
    result: dict[str, Any] = {"seconds_per_step": step}
    for name, calls in products.items():
        if not calls:
            continue
        medians = [max(0.0, float(np.median(seconds)) - overhead) for seconds in times[name]]
        total = sum(count * median for (count, _), median in zip(calls, medians, strict=True))
        result[name] = {"seconds": total, "share": total / step}
    return result


def _mean_seconds(call: Callable[[], object]) -> float:
    once = _seconds(call, 1)
    return _seconds(call, max(1, int(_SECONDS_PER_TIMING / once)))


def _seconds(call: Callable[[], object], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats


def _products(engine: Engine, batch_size: int, *, plain: bool) -> list[tuple[float, Callable[[], object]]]:
    """Returns (count, function) of each product of a step. A call of the function computes the product once."""
    products: list[tuple[float, Callable[[], object]]] = []
    for name, network in (("generator", engine.gan.generator), ("discriminator", engine.gan.discriminator)):
        for depth, layer in enumerate(product_layers(network)):
            calls = _calls(_bare(layer, plain), (batch_size, *layer.input.shape[1:]), engine.plan.jit_compile)
            products += zip(counts(engine.config, name, first=depth == 0), calls, strict=True)
    return [(count, call) for count, call in products if count]


def product_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of a network that are convolutions or matrix products."""
    return [layer for layer in network.layers if isinstance(layer, _PRODUCT_LAYERS)]


def counts(config: TrainConfig, network: str, *, first: bool) -> Counts:
    """Returns the counts of a layer of the generator or the discriminator.

    Args:
        config: Config with one update of both networks per step, or of `discriminator_repeats` of the discriminator.
        network: generator or discriminator.
        first: Whether the layer is the first of its network.
    """
    is_joint, repeats = config.update_order == "simultaneous", config.discriminator_repeats
    if network == "generator":
        return 1 if is_joint else 1 + repeats, 1, int(not first)
    forward, kernel, inputs = (2, 2, 1 if first else 3) if is_joint else (2 * repeats + 1, 2 * repeats, 1)
    if not is_joint:
        inputs += 0 if first else 2 * repeats
        forward += config.loss == "relativistic"
    share = len(config.penalties) / config.penalty_every_steps
    return forward + (share if config.penalty_every_steps == 1 else 2 * share), kernel + share, inputs + share


def _bare(layer: keras.layers.Layer, plain: bool) -> keras.layers.Layer:
    """Returns a copy of a layer without bias and activation; with `plain`, an instance of Keras's own class."""
    cls = type(layer)
    if plain and getattr(layer, "groups", 1) == 1:  # Keras's grouped convolution has no gradient on CPUs
        cls = next(base for base in cls.__mro__ if base.__module__.startswith("keras."))
    copy = cls.from_config(layer.get_config() | {"use_bias": False, "activation": None})
    copy.build(layer.input.shape)
    return copy


def _calls(layer: keras.layers.Layer, shape: tuple[int, ...], jit_compile: bool) -> list[Callable[[], object]]:
    """Returns functions for the forward pass, the kernel's gradient and the input's gradient.

    The layer is linear, so that the gradients need no forward pass.
    """
    inputs = tf.cast(tf.random.normal(shape), layer.compute_dtype)
    upstream = tf.cast(tf.random.normal(layer(inputs).shape), layer.compute_dtype)

    def gradient(of_kernel: bool, inputs: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs)
        return tape.gradient(outputs, layer.kernel.value if of_kernel else inputs, upstream)

    functions = [
        lambda inputs, upstream: layer(inputs),
        lambda inputs, upstream: gradient(True, inputs, upstream),
        lambda inputs, upstream: gradient(False, inputs, upstream),
    ]
    compiled = [tf.function(function, jit_compile=jit_compile, autograph=False) for function in functions]
    return [functools.partial(call, inputs, upstream) for call in compiled]
