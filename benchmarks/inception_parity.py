"""Compares the Inception network of this package with other implementations.

    python -m benchmarks.inception_parity                 shapes, and equality with PyTorch for random weights
    python -m benchmarks.inception_parity --num_blocks=4  also the speed
    python -m benchmarks.inception_parity --weights=PATH  the published number for CIFAR-10

The first command writes a graph with the published architecture and random weights, and gives the same weights to the
network of the package `pytorch-fid`. It needs that package and `torchvision`, but no download. The two networks resize
images differently, so the images have the size of the network.

The last command needs the published weights (any value of `--inception_weights`) and CIFAR-10, which Keras downloads.
It compares 5,000 training images with 5,000 test images, chosen by `RandomState(2020)`. The tests of torch-fidelity
state 10.3233274 ± 0.0001 for them.
"""

import contextlib
import importlib
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

if "tensorflow" not in sys.modules:
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("triton")  # PyTorch imports it, which crashes if TensorFlow was imported before

import keras
import numpy as np
import tensorflow as tf
from absl import flags as absl_flags

from benchmarks.inception_graph import IMAGE_SIZE, Constant, InceptionGraph, random_constants
from trainer.cli import app
from trainer.errors import TrainerError
from trainer.metrics import inception_weights
from trainer.metrics.extraction import without_tf32
from trainer.metrics.frechet import frechet_distance
from trainer.metrics.frozen_graph import FrozenGraph, FrozenNetwork
from trainer.metrics.inception_network import InceptionNetwork

_BLOCK_SIZE = 50
_MAX_ERROR = 1e-4
_CIFAR10_FID = 10.3233274
_TORCH_LAYERS = ("pool", "pool_1", "mixed_7/join", "pool_3")
"""Layers that pytorch-fid can return, in its order."""
_BRANCHES_35 = {
    "conv": "branch1x1",
    **{f"tower/conv{suffix}": f"branch5x5_{index}" for index, suffix in enumerate(("", "_1"), 1)},
    **{f"tower_1/conv{suffix}": f"branch3x3dbl_{index}" for index, suffix in enumerate(("", "_1", "_2"), 1)},
    "tower_2/conv": "branch_pool",
}
_BRANCHES_17 = {
    "conv": "branch1x1",
    **{f"tower/conv{suffix}": f"branch7x7_{index}" for index, suffix in enumerate(("", "_1", "_2"), 1)},
    **{f"tower_1/conv{suffix}": f"branch7x7dbl_{i}" for i, suffix in enumerate(("", "_1", "_2", "_3", "_4"), 1)},
    "tower_2/conv": "branch_pool",
}
_BRANCHES_8 = {
    "conv": "branch1x1",
    "tower/conv": "branch3x3_1",
    "tower/mixed/conv": "branch3x3_2a",
    "tower/mixed/conv_1": "branch3x3_2b",
    "tower_1/conv": "branch3x3dbl_1",
    "tower_1/conv_1": "branch3x3dbl_2",
    "tower_1/mixed/conv": "branch3x3dbl_3a",
    "tower_1/mixed/conv_1": "branch3x3dbl_3b",
    "tower_2/conv": "branch_pool",
}
_REDUCTION_17 = {
    "conv": "branch3x3",
    **{f"tower/conv{suffix}": f"branch3x3dbl_{index}" for index, suffix in enumerate(("", "_1", "_2"), 1)},
}
_REDUCTION_8 = {
    **{f"tower/conv{suffix}": f"branch3x3_{index}" for index, suffix in enumerate(("", "_1"), 1)},
    **{f"tower_1/conv{suffix}": f"branch7x7x3_{index}" for index, suffix in enumerate(("", "_1", "_2", "_3"), 1)},
}
_STEM = {"conv": "1a_3x3", "conv_1": "2a_3x3", "conv_2": "2b_3x3", "conv_3": "3b_1x1", "conv_4": "4a_3x3"}
_BLOCKS = {
    **{"mixed": ("5b", _BRANCHES_35), "mixed_1": ("5c", _BRANCHES_35), "mixed_2": ("5d", _BRANCHES_35)},
    **{"mixed_3": ("6a", _REDUCTION_17), "mixed_4": ("6b", _BRANCHES_17), "mixed_5": ("6c", _BRANCHES_17)},
    **{"mixed_6": ("6d", _BRANCHES_17), "mixed_7": ("6e", _BRANCHES_17), "mixed_8": ("7a", _REDUCTION_8)},
    **{"mixed_9": ("7b", _BRANCHES_8), "mixed_10": ("7c", _BRANCHES_8)},
}


def torch_names() -> dict[str, str]:
    """Returns the name of every convolution in pytorch-fid, by its name in the published graph."""
    names = {name: f"Conv2d_{suffix}" for name, suffix in _STEM.items()}
    for block, (suffix, branches) in _BLOCKS.items():
        names |= {f"{block}/{name}": f"Mixed_{suffix}.{branch}" for name, branch in branches.items()}
    return names


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("weights", None, "Published weights, as for --inception_weights.", flag_values=values)
    absl_flags.DEFINE_integer(
        "num_blocks", 0, "Number of blocks of 50 images that are timed.", lower_bound=0, flag_values=values
    )


def run_command(values: absl_flags.FlagValues) -> None:
    """Runs the comparison that the flags choose."""
    if values.weights is not None:
        _compare_with_published_number(values.weights)
    else:
        _compare_with_torch(values.num_blocks)


def _compare_with_torch(num_blocks: int) -> None:
    """Compares with pytorch-fid, and measures the speed for a number of blocks.

    Raises:
        TrainerError: If the results differ.
    """
    constants: dict[str, np.ndarray] = {}
    builder = InceptionGraph(_recorded(random_constants(0), constants), scales=_scales)
    content = builder.graph.SerializeToString()
    print(f"graph: {len(content):,} bytes; the published one has {inception_weights.PUBLISHED.num_bytes:,}")
    network = FrozenNetwork(FrozenGraph(content, "graph"), "ExpandDims", list(builder.shapes)[1:])
    for name, shape in network.shapes.items():
        if tuple(shape[1:]) != builder.shapes[name]:
            raise AssertionError(f"{name} has shape {shape}, expected {builder.shapes[name]}")
        if name.endswith("join") or "/" not in name:
            print(f"{name:28}{'x'.join(map(str, shape[1:]))}")
    images = np.random.default_rng(1).integers(0, 256, (8, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    with without_tf32():
        ours = network(tf.constant(images, tf.float32))
    errors = {}
    for name, theirs in zip(_TORCH_LAYERS, _torch_outputs(constants, images), strict=True):
        errors[name] = float(np.abs(ours[name] - theirs).max() / np.abs(theirs).max())
        print(f"{name:28}largest difference to pytorch-fid over largest value: {errors[name]:.2e}")
    if num_blocks:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "graph.pb"
            path.write_bytes(content)
            _measure_speed(InceptionNetwork(path), num_blocks)
    if not max(errors.values()) <= _MAX_ERROR:
        raise TrainerError(f"the features differ by more than {_MAX_ERROR:g} of the largest value.")


def _scales(name: str) -> bool:
    """Returns whether the batch normalization of a convolution multiplies by gamma: half of them do."""
    return name.endswith("conv_1")


def _recorded(constant: Constant, values: dict[str, np.ndarray]) -> Constant:
    """Returns a function that also adds every constant to `values`."""

    def record(name: str, shape: tuple[int, ...]) -> np.ndarray:
        values[name] = constant(name, shape)
        return values[name]

    return record


def _torch_outputs(values: Mapping[str, np.ndarray], images: np.ndarray) -> list[np.ndarray]:
    """Returns the values of `_TORCH_LAYERS` in pytorch-fid, in the format NHWC.

    Args:
        values: Constants by their names in the published graph.
        images: uint8 [B, 299, 299, 3].
    """
    import torch
    from pytorch_fid import inception

    state = {"fc.weight": values["softmax/weights"].T, "fc.bias": values["softmax/biases"]}
    for name, theirs in torch_names().items():
        gamma = values[f"{name}/batchnorm/gamma"]
        state[f"{theirs}.conv.weight"] = values[f"{name}/conv2d_params"].transpose(3, 2, 0, 1)
        state[f"{theirs}.bn.weight"] = gamma if _scales(name) else np.ones_like(gamma)
        state[f"{theirs}.bn.bias"] = values[f"{name}/batchnorm/beta"]
        state[f"{theirs}.bn.running_mean"] = values[f"{name}/batchnorm/moving_mean"]
        state[f"{theirs}.bn.running_var"] = values[f"{name}/batchnorm/moving_variance"]
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}
    inception.load_state_dict_from_url = lambda *args, **kwargs: tensors
    network = inception.InceptionV3([0, 1, 2, 3], resize_input=False, normalize_input=False).eval()
    inputs = ((images.astype(np.float32) - 128) * 0.0078125).transpose(0, 3, 1, 2)
    with torch.no_grad():
        outputs: list[Any] = network(torch.from_numpy(inputs))
    return [output.numpy().transpose(0, 2, 3, 1) for output in outputs]


def _measure_speed(network: InceptionNetwork, num_blocks: int) -> None:
    blocks = np.random.default_rng(2).integers(0, 256, (num_blocks + 1, _BLOCK_SIZE, 64, 64, 3), np.uint8)
    features = _extract(network, blocks)
    next(features)  # compilation
    start, start_of_processor = time.perf_counter(), time.process_time()
    num_images = sum(len(block) for block in features)
    seconds, of_processor = time.perf_counter() - start, time.process_time() - start_of_processor
    print(
        f"{num_images} images of 64x64 in {seconds:.1f} s: {1000 * seconds / num_images:.0f} s per 1,000 images, "
        f"{1000 * of_processor / num_images:.0f} s of processor time"
    )


def _extract(network: InceptionNetwork, blocks: np.ndarray) -> Iterator[np.ndarray]:
    function = tf.function(network)
    with without_tf32():
        for block in blocks:
            yield function(tf.constant(block))[0].numpy()


def _compare_with_published_number(weights: str) -> None:
    """Compares the distance of images of CIFAR-10 with that of another implementation.

    Raises:
        TrainerError: If it differs.
    """
    network = InceptionNetwork(inception_weights.find(weights))
    features = []
    for images, _ in keras.datasets.cifar10.load_data():
        chosen = images[np.random.RandomState(2020).choice(len(images), 5000, replace=False)]
        blocks = chosen.reshape(-1, _BLOCK_SIZE, *chosen.shape[1:])
        features.append(np.concatenate(list(_extract(network, blocks))))
    distance = frechet_distance(*features)
    print(f"FID {distance:.7f}, expected {_CIFAR10_FID} ± 0.0001 (weights with SHA-256 {network.sha256})")
    if not abs(distance - _CIFAR10_FID) <= 1e-4:
        raise TrainerError(f"the distance is {distance:.7f}, expected {_CIFAR10_FID} ± 0.0001.")


main = app.command(f"{__doc__}\n", define_flags, run_command)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
