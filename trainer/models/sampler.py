"""Generation of 8-bit images in blocks, and of what is computed from them.

Shapes: `N` images, `B` images of a block, `H W C` an image.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from trainer.metrics.extraction import BLOCK_SIZE, Block, ReplicatedFunction, blocks_of, without_tf32
from trainer.networks.layers import separate_batch
from trainer.training.rng import StepRng, seed_states

Function = Callable[[tf.Tensor], tuple[tf.Tensor, ...]]
"""Function of images uint8 [B, H, W, C] that returns tensors [B, ...]."""

_OnBlocks = Callable[[Iterable[Block]], tuple[np.ndarray, ...]]

_MAX_COMPILED = 4
"""Largest number of functions that stay compiled."""


class Sampler:
    """Runs a compiled generator in blocks.

    Random layers that are active during inference get other seeds in each block. Sampling changes no state.

    Args:
        generate: Function of tensors [B, ...] that returns images [B, H, W, C] in `image_range`.
        networks: Networks that the function runs.
    """

    def __init__(self, generate: Callable[..., tf.Tensor], networks: Iterable[keras.layers.Layer] = ()):
        self._generate = generate
        self._seed_states = seed_states(networks)
        self._compiled: dict[tuple[object, ...], _OnBlocks] = {}

    def __call__(
        self, image_range: tuple[float, float], *inputs: np.ndarray | None, seed: int = 0, first_block: int = 0
    ) -> np.ndarray:
        """Returns images uint8 [N, H, W, C] for inputs [N, ...]. An input may be None.

        This process generates them alone. Fewer images than a block are not padded to one, for speed, so that they
        may be rounded differently. `first_block` is the number of the first block, for the seeds of random layers.
        """
        pad = next(len(array) for array in inputs if array is not None) >= BLOCK_SIZE
        return self._run(_images_alone, None, image_range, inputs, pad=pad, seed=seed, first_block=first_block)[0]

    def outputs(
        self,
        function: Function,
        strategy: tf.distribute.Strategy | None,
        image_range: tuple[float, float],
        *inputs: np.ndarray | None,
        seed: int = 0,
    ) -> tuple[np.ndarray, ...]:
        """Applies a function to each block of images, on the replica that generates it.

        Args:
            function: Function to apply.
            strategy: Strategy whose replicas take part, as in `ReplicatedFunction`.
            image_range: Range of the generator's images.
            *inputs: Arrays [N, ...] or None.
            seed: Seed of random layers.

        Returns:
            The function's outputs for all images, [N, ...] each.
        """
        return self._run(function, strategy, image_range, inputs, pad=True, seed=seed)

    def _run(
        self,
        function: Function,
        strategy: tf.distribute.Strategy | None,
        image_range: tuple[float, float],
        inputs: Sequence[np.ndarray | None],
        *,
        pad: bool,
        seed: int,
        first_block: int = 0,
    ) -> tuple[np.ndarray, ...]:
        """Does what `outputs` describes. Without `pad`, the N images are one block, which this process generates."""
        shapes = tuple(None if array is None else array.shape[1:] for array in inputs)  # only N may change
        key = (function, strategy, image_range, shapes, pad)
        if key not in self._compiled:
            if len(self._compiled) == _MAX_COMPILED:
                del self._compiled[next(iter(self._compiled))]
            run = self._with_generator(function, image_range, [array is None for array in inputs])
            self._compiled[key] = ReplicatedFunction(run, strategy) if pad else _on_one_block(run)
        return self._compiled[key](self._blocks([array for array in inputs if array is not None], seed, first_block))

    def _with_generator(
        self, function: Function, image_range: tuple[float, float], is_missing: Sequence[bool]
    ) -> Callable[..., tuple[tf.Tensor, ...]]:
        """Returns a function of seeds uint32 [B, seeds, 2] and the inputs that are not missing."""

        def run(seeds: tf.Tensor, *tensors: tf.Tensor) -> tuple[tf.Tensor, ...]:
            remaining = iter(tensors)
            arguments = [None if missing else next(remaining) for missing in is_missing]
            state = zip(self._seed_states, tf.unstack(seeds[0], len(self._seed_states)), strict=True)
            with keras.StatelessScope([(variable, seed) for variable, seed in state]), separate_batch():
                images = self._generate(*arguments)
            return function(as_bytes(images, image_range))

        return run

    def _blocks(self, arrays: list[np.ndarray], seed: int, first: int) -> Iterator[Block]:
        """Yields the seeds of the random layers in a block, the same ones in each row, and its inputs."""
        for index, block in zip(itertools.count(first), blocks_of(*arrays), strict=False):
            seeds = StepRng(seed, 0, BLOCK_SIZE, index, "samples").seeds([False] * len(self._seed_states))
            rows = np.reshape([seed.numpy() for seed in seeds], (1, len(seeds), 2)).astype(np.uint32)
            yield np.repeat(rows, len(block[0]), axis=0), *block


def as_bytes(images: tf.Tensor, image_range: tuple[float, float]) -> tf.Tensor:
    """Converts images of any float type in `image_range` to uint8."""
    low, high = image_range
    pixels = (tf.cast(images, tf.float32) - low) * (255.0 / (high - low))
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)


def _on_one_block(function: Callable[..., tuple[tf.Tensor, ...]]) -> _OnBlocks:
    """Returns a function that takes a single block of any size."""
    compiled = tf.function(function, autograph=False, reduce_retracing=True)

    def run(blocks: Iterable[Block]) -> tuple[np.ndarray, ...]:
        (block,) = blocks
        with without_tf32():  # as in a block of many images
            return tuple(output.numpy() for output in compiled(*map(tf.constant, block)))

    return run


def _images_alone(images: tf.Tensor) -> tuple[tf.Tensor, ...]:
    return (images,)
