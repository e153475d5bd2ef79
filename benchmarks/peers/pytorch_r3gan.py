"""The networks of R3GAN from `torch.nn`, with PyTorch's default initial weights, which do not affect speed.

The bias of an activation belongs to the convolution before it.

Legend: `B` images, `C H W` channels and map size, `Z` latent size.
"""

import torch
from torch import nn
from torch.nn import functional

from benchmarks.architecture_options import R3ganOptions

_SLOPE = 0.2


def build(latent_dim: int, image_shape: tuple[int, int, int], options: R3ganOptions) -> tuple[nn.Module, nn.Module]:
    """Returns generator [B, Z] -> [B, C, H, W] and discriminator [B, C, H, W] -> logits [B, 1]."""
    stages = options.generator_filters
    size = options.base_size(image_shape, len(stages))
    up: list[nn.Module] = [nn.Linear(latent_dim, stages[0], bias=False), _LearnedMap(stages[0], *size)]
    for stage, filters in enumerate(stages):
        if stage:
            up += [*_change_filters(stages[stage - 1], filters), _Upsample()]
        up += _blocks(filters, options)
    up.append(nn.Conv2d(stages[-1], image_shape[2], 1, bias=False))
    stages = options.discriminator_filters
    down: list[nn.Module] = [nn.Conv2d(image_shape[2], stages[0], 1, bias=False)]
    for stage, filters in enumerate(stages):
        if stage:
            down += [_Downsample(stages[stage - 1]), *_change_filters(stages[stage - 1], filters)]
        down += _blocks(filters, options)
    size = options.base_size(image_shape, len(stages))
    readout = nn.Conv2d(stages[-1], stages[-1], size, groups=stages[-1], bias=False)
    down += [readout, nn.Flatten(), nn.Linear(stages[-1], 1, bias=False)]
    return nn.Sequential(*up), nn.Sequential(*down)


def _blocks(filters: int, options: R3ganOptions) -> list[nn.Module]:
    return [_Block(filters, *options.hidden(filters)) for _ in range(options.blocks_per_stage)]


def _change_filters(before: int, after: int) -> list[nn.Module]:
    return [] if before == after else [nn.Conv2d(before, after, 1, bias=False)]


class _Block(nn.Module):
    def __init__(self, filters: int, hidden: int, groups: int):
        super().__init__()
        self.expand = nn.Conv2d(filters, hidden, 1)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=groups)
        self.reduce = nn.Conv2d(hidden, filters, 1, bias=False)
        nn.init.zeros_(self.reduce.weight)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        residual = functional.leaky_relu(self.expand(maps), _SLOPE)
        residual = functional.leaky_relu(self.mix(residual), _SLOPE)
        return maps + self.reduce(residual)


class _LearnedMap(nn.Module):
    def __init__(self, filters: int, height: int, width: int):
        super().__init__()
        self.map = nn.Parameter(torch.randn(filters, height, width))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs[:, :, None, None] * self.map


class _Upsample(nn.Module):
    """Doubles maps: even pixels are the inputs, odd ones the mean of both neighbors.

    Slices take half the time of a transposed depthwise convolution in bfloat16, and are about as fast in float32.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        below = torch.cat([maps[:, :, 1:], maps[:, :, -1:]], dim=2)
        maps = torch.stack([maps, torch.lerp(maps, below, 0.5)], dim=3).flatten(2, 3)
        right = torch.cat([maps[..., 1:], maps[..., -1:]], dim=3)
        return torch.stack([maps, torch.lerp(maps, right, 0.5)], dim=4).flatten(3, 4)


class _Downsample(nn.Module):
    """Halves maps with the filter [1, 2, 1]/4 at even pixels.

    The depthwise convolution is in float32, where it takes a quarter of its time in bfloat16.
    """

    def __init__(self, filters: int):
        super().__init__()
        taps = torch.tensor([0.25, 0.5, 0.25])
        self._filters = filters
        self.register_buffer("_kernel", (taps[:, None] * taps).expand(filters, 1, 3, 3).contiguous(), persistent=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        with torch.autocast(maps.device.type, enabled=False):
            padded = functional.pad(maps.float(), (1, 0, 1, 0), mode="replicate")
            return functional.conv2d(padded, self._kernel, stride=2, groups=self._filters).to(maps.dtype)
