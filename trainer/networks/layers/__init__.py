"""Keras layers that the networks are built from. They are drop-in replacements or additions to Keras's own.

`from trainer.networks.layers import BatchNormalization` is enough to use one in a custom network.
"""

from trainer.networks.layers.batch_norm import BatchNormalization
from trainer.networks.layers.convolutions import (
    Conv2D,
    Conv2DTranspose,
    PoolingConv2D,
    UpsamplingConv2D,
    WholeMapConv2D,
)
from trainer.networks.layers.dropout import PER_SAMPLE_SEED, Dropout
from trainer.networks.layers.equalized import EqualizedConv2D, EqualizedDense
from trainer.networks.layers.grouped_conv import GroupedConv2D, PointwiseConv2D
from trainer.networks.layers.image_pool import ImagePool
from trainer.networks.layers.instance_norm import InstanceNormalization
from trainer.networks.layers.minibatch_std import MinibatchStd
from trainer.networks.layers.modulation import ModulatedConv2D, NoisyActivation, StyleAverage
from trainer.networks.layers.noise import NoiseInjection
from trainer.networks.layers.padding import ReflectionPadding2D
from trainer.networks.layers.pooling import AdaptiveAveragePooling2D, GlobalSumPooling2D
from trainer.networks.layers.resampling import Downsample, Upsample
from trainer.networks.layers.sample_position import micro_batch, part_of_batch, separate_batch
from trainer.networks.layers.spectral_norm import (
    SpectralConv2D,
    SpectralDense,
    SpectralPoolingConv2D,
    SpectralWholeMapConv2D,
    layer_class,
)

__all__ = [
    "PER_SAMPLE_SEED",
    "AdaptiveAveragePooling2D",
    "BatchNormalization",
    "Conv2D",
    "Conv2DTranspose",
    "Downsample",
    "Dropout",
    "EqualizedConv2D",
    "EqualizedDense",
    "GlobalSumPooling2D",
    "GroupedConv2D",
    "ImagePool",
    "InstanceNormalization",
    "MinibatchStd",
    "ModulatedConv2D",
    "NoiseInjection",
    "NoisyActivation",
    "PointwiseConv2D",
    "PoolingConv2D",
    "ReflectionPadding2D",
    "SpectralConv2D",
    "SpectralDense",
    "SpectralPoolingConv2D",
    "SpectralWholeMapConv2D",
    "StyleAverage",
    "Upsample",
    "UpsamplingConv2D",
    "WholeMapConv2D",
    "layer_class",
    "micro_batch",
    "part_of_batch",
    "separate_batch",
]
