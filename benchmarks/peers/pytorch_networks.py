"""Networks of a case from `torch.nn`, with PyTorch's default initial weights, which do not affect speed.

Legend: `C H W` image shape, `Z` latent size, `K` classes.
"""

import math

from torch import nn

from benchmarks.architecture_options import DcganOptions, MlpOptions, R3ganOptions, Stylegan2Options
from benchmarks.cases import Case
from benchmarks.peers import pytorch_r3gan, pytorch_stylegan2

_EPSILON = 1e-3
"""Epsilon of batch norm, as in Keras."""


def build(case: Case) -> tuple[nn.Module, nn.Module]:
    """Returns generator [B, Z+K] -> [B, C, H, W] and discriminator [B, C+K, H, W] -> logits [B, 1]."""
    inputs, options = case.config.latent_dim + case.num_classes, case.options
    if isinstance(options, R3ganOptions):
        return pytorch_r3gan.build(inputs, case.image_shape, options)
    if isinstance(options, Stylegan2Options):
        assert case.model_options is not None
        return pytorch_stylegan2.build(inputs, case.image_shape, options, case.model_options)
    if isinstance(options, DcganOptions):
        up = _dcgan_generator(inputs, case.image_shape, options)
        down = _dcgan_discriminator(case.image_shape, case.num_classes, options)
    else:
        up = _mlp_generator(inputs, case.image_shape, options)
        down = _mlp_discriminator(math.prod(case.image_shape[:2]) * (case.image_shape[2] + case.num_classes), options)
    return nn.Sequential(*up), nn.Sequential(*down)


def _dcgan_generator(inputs: int, image_shape: tuple[int, int, int], options: DcganOptions) -> list[nn.Module]:
    height, width, channels = image_shape
    total, momentum = math.prod(options.generator_strides), 1.0 - options.batch_norm_momentum
    filters = [*options.generator_filters, channels]
    base = (filters[0], height // total, width // total)
    activation = _activation(options.generator_activation, options.leaky_slope)
    if options.generator_stem == "transposed_convolution":
        stack: list[nn.Module] = [
            nn.Unflatten(1, (inputs, 1, 1)),
            nn.ConvTranspose2d(inputs, filters[0], base[1:], bias=False),
            nn.BatchNorm2d(filters[0], _EPSILON, momentum),
            activation,
        ]
    else:
        stack = [
            nn.Linear(inputs, math.prod(base), bias=False),
            nn.BatchNorm1d(math.prod(base), _EPSILON, momentum),
            activation,
            nn.Unflatten(1, base),
        ]
    size = options.kernel_size
    for depth, stride in enumerate(options.generator_strides):
        if depth:
            stack.append(nn.BatchNorm2d(filters[depth], _EPSILON, momentum))
            stack.append(_activation(options.generator_activation, options.leaky_slope))
        padding = (size - stride + 1) // 2
        spare = stride + 2 * padding - size
        last = depth == len(options.generator_strides) - 1
        stack.append(nn.ConvTranspose2d(filters[depth], filters[depth + 1], size, stride, padding, spare, bias=last))
    return [*stack, nn.Tanh()]


def _dcgan_discriminator(image_shape: tuple[int, int, int], num_classes: int, options: DcganOptions) -> list[nn.Module]:
    height, width, channels = image_shape
    size, momentum = options.kernel_size, 1.0 - options.batch_norm_momentum
    stack: list[nn.Module] = []
    previous = channels + num_classes
    for depth, filters in enumerate(options.discriminator_filters):
        normalized = options.normalizes(depth)
        stack.append(nn.Conv2d(previous, filters, size, 2, (size - 1) // 2, bias=not normalized))
        if normalized:
            stack.append(nn.BatchNorm2d(filters, _EPSILON, momentum))
        stack.append(_activation("leaky_relu", options.leaky_slope))
        if options.dropout:
            stack.append(nn.Dropout(options.dropout))
        previous, height, width = filters, -(-height // 2), -(-width // 2)
    if options.discriminator_head == "convolution":
        return [*stack, nn.Conv2d(previous, 1, (height, width)), nn.Flatten()]
    return [*stack, nn.Flatten(), nn.Linear(previous * height * width, 1)]


def _mlp_generator(inputs: int, image_shape: tuple[int, int, int], options: MlpOptions) -> list[nn.Module]:
    height, width, channels = image_shape
    stack: list[nn.Module] = []
    for units in options.generator_units:
        stack.append(nn.Linear(inputs, units))
        if options.batch_norm_momentum is not None:
            stack.append(nn.BatchNorm1d(units, _EPSILON, 1.0 - options.batch_norm_momentum))
        stack.append(_activation(options.generator_activation, options.leaky_slope))
        inputs = units
    return [
        *stack,
        nn.Linear(inputs, math.prod(image_shape)),
        nn.Tanh(),
        nn.Unflatten(1, (channels, height, width)),
    ]


def _mlp_discriminator(inputs: int, options: MlpOptions) -> list[nn.Module]:
    stack: list[nn.Module] = [nn.Flatten()]
    for units in options.discriminator_units:
        stack.append(nn.Linear(inputs, units))
        stack.append(_activation(options.discriminator_activation, options.leaky_slope))
        if options.dropout:
            stack.append(nn.Dropout(options.dropout))
        inputs = units
    return [*stack, nn.Linear(inputs, 1)]


def _activation(name: str, slope: float) -> nn.Module:
    return nn.ReLU(inplace=True) if name == "relu" else nn.LeakyReLU(slope, inplace=True)
