"""The PyTorch peer of the throughput benchmark computes the same functions as our StyleGAN2."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_ARCHITECTURES, tiny_config

from benchmarks import cases
from benchmarks.ours import Engine
from trainer.models.stylegan2 import path_lengths
from trainer.networks.layers import EqualizedDense, ModulatedConv2D, NoisyActivation
from trainer.networks.stylegan2 import MAPPING, STYLES, SYNTHESIS, LearnedConstant

PYTORCH = """
import sys
from pathlib import Path
import numpy as np
import torch
from benchmarks.cases import Case
from benchmarks.peers import pytorch_networks
from benchmarks.peers.pytorch_path_length import differentiate_eagerly, differentiate_functionally

folder = Path(sys.argv[1])
ours = {name: torch.from_numpy(array) for name, array in np.load(folder / "ours.npz").items()}
case = Case.load(folder)
generator, discriminator = networks = pytorch_networks.build(case)
for name, network in zip(("generator", "discriminator"), networks):
    weights = [ours[f"{name}/{index}"] for index in range(len(list(network.parameters())))]
    assert f"{name}/{len(weights)}" not in ours
    for parameter, weight in zip(network.parameters(), weights):
        assert parameter.shape == weight.shape
        parameter.data = weight

def check(value, name):
    torch.testing.assert_close(value, ours[name], rtol=1e-4, atol=1e-4)

generator(ours["latents"])
check(generator.average, "average")
check(generator._map(ours["latents"]), "w")
check(generator.synthesis(ours["styles"]), "images")
check(discriminator(ours["images"]), "logits")
styles = ours["styles"].requires_grad_()
for differentiate in (differentiate_eagerly, differentiate_functionally):
    gradients = differentiate(generator.synthesis, styles, ours["directions"], "float32")
    lengths = gradients.square().sum(2).mean(1).sqrt()
    check(lengths, "lengths")
    check(torch.autograd.grad(lengths.sum(), generator.synthesis.map)[0], "map_gradient")
"""


def layers_in_order_of_the_peer(gan):
    """Returns the layers of a StyleGAN2 with weights, by network, in the order of the peer's modules."""

    def position(layer):
        if isinstance(layer, ModulatedConv2D):
            return (layer.style_index, 0) if layer.demodulates else (layer.style_index - 0.5, 0)
        return (layer.noise_seed, 1) if isinstance(layer, NoisyActivation) else (-1, 0)

    def number(layer):
        suffix = re.search(r"_(\d+)$", layer.name)
        return isinstance(layer, EqualizedDense), int(suffix[1]) if suffix else 0

    mapping, synthesis = (gan.generator.get_layer(name) for name in (MAPPING, SYNTHESIS))
    return {
        "generator": [*mapping.layers, *sorted(synthesis.layers, key=position)],
        "discriminator": sorted(gan.discriminator.layers, key=number),
    }


def in_layout_of_pytorch(weight):
    """Returns a kernel [k, k, C, D] or [C, D], a map [H, W, C], a vector, or a number as the peer stores it."""
    axes = {4: (3, 2, 0, 1), 3: (2, 0, 1), 2: (1, 0), 1: (0,), 0: ()}[len(weight.shape)]
    return np.transpose(weight, axes)


def weights_of_stylegan2(gan):
    """Returns the weights of a StyleGAN2 under the names that the script reads, after changing biases from 0."""
    rng, arrays = np.random.default_rng(0), {}
    for name, layers in layers_in_order_of_the_peer(gan).items():
        weights = [weight for layer in layers for weight in layer.trainable_weights]
        for index, weight in enumerate(weights):
            if weight.name == "bias":
                weight.assign(rng.standard_normal(weight.shape))
            arrays[f"{name}/{index}"] = in_layout_of_pytorch(weight.numpy())
    return arrays


def results_of_stylegan2(gan):
    """Returns inputs and outputs of the parts of a StyleGAN2 under the names that the script reads."""
    rng = np.random.default_rng(1)
    mapping, average, synthesis = (gan.generator.get_layer(name) for name in (MAPPING, STYLES, SYNTHESIS))
    latents, styles, directions = (
        tf.constant(rng.standard_normal((4, *shape)), tf.float32)
        for shape in ((gan.latent_dim,), synthesis.input_shape[1:], synthesis.output_shape[1:])
    )
    w = mapping(latents)
    average(w, training=True)
    constant = next(layer for layer in synthesis.layers if isinstance(layer, LearnedConstant))
    with tf.GradientTape() as tape:
        lengths = path_lengths(synthesis, styles, directions)
    images = synthesis(styles)
    return {
        "latents": latents,
        "w": w,
        "average": average.average.numpy(),
        "styles": styles,
        "images": np.transpose(images, (0, 3, 1, 2)),
        "logits": gan.discriminator(images),
        "directions": np.transpose(directions, (0, 3, 1, 2)),
        "lengths": lengths,
        "map_gradient": in_layout_of_pytorch(tape.gradient(lengths, constant.map.value)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"residual": False, "group_size": 1, "mapping_layers": 1}])
def test_the_pytorch_peer_has_the_networks_of_stylegan2(tmp_path, changes):
    """Same weights give the same images, logits and path lengths. The noise has its initial strength of 0."""
    pytest.importorskip("torch", exc_type=ImportError)
    case = cases.from_config(
        tiny_config("stylegan2", model="stylegan2", architecture_options=TINY_ARCHITECTURES["stylegan2"] | changes)
    )
    case.save(tmp_path)
    gan = Engine(case, "float32").gan
    np.savez(tmp_path / "ours.npz", **weights_of_stylegan2(gan), **results_of_stylegan2(gan))
    done = subprocess.run(
        [sys.executable, "-c", PYTORCH, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
