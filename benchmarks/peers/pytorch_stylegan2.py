"""The networks of StyleGAN2 from `torch.nn`, in the form that is fastest on a CPU.

Kernels have equalized learning rates. Leaky ReLUs have a gain of sqrt(2), which is part of the kernel and the bias
before them, because a leaky ReLU of a multiple is the multiple of the leaky ReLU. Mapping, styles, sums of images and
dense layers are float32 in any precision.

Legend: `B` images, `C H W` image shape or map, `Z` latent size, `L` layers that take a style, `S` size of a style.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from benchmarks.architecture_options import Stylegan2ModelOptions, Stylegan2Options

_SLOPE, _GAIN = 0.2, 2**0.5
_MAPPING_RATE = 0.01
_AVERAGE_SHARE = 0.002
"""Share of a batch in the average of w."""


def build(
    latent_dim: int,
    image_shape: tuple[int, int, int],
    options: Stylegan2Options,
    model_options: Stylegan2ModelOptions,
) -> tuple["StyleGenerator", nn.Module]:
    """Returns generator [B, Z] -> [B, C, H, W] and discriminator [B, C, H, W] -> logits [B, 1]."""
    height, width, channels = image_shape
    stages = options.stage_filters(image_shape)
    base = height >> (len(stages) - 1), width >> (len(stages) - 1)
    units = options.mapping_units
    mapping = [_Dense(size, units, _MAPPING_RATE) for size in [latent_dim, *[units] * (options.mapping_layers - 1)]]
    synthesis = Synthesis(base, channels, stages[::-1], units)
    generator = StyleGenerator(nn.Sequential(*mapping), synthesis, (latent_dim, units), model_options.style_mixing)
    down: list[nn.Module] = [_Conv(channels, stages[0], 1)]
    for filters, next_filters in itertools.pairwise(stages):
        down.append(_DownBlock(filters, next_filters, options.residual))
    has_statistics = options.group_size > 1
    if has_statistics:
        down.append(_MinibatchStd(options.group_size))
    down.append(_Conv(stages[-1] + has_statistics, stages[-1], 3))
    return generator, nn.Sequential(*down, _Head(stages[-1], math.prod(base)))


class StyleGenerator(nn.Module):
    """Maps latents to styles, mixes some of them, and makes images of them.

    Args:
        mapping: Dense layers, [B, Z] -> w [B, S].
        synthesis: Network of images, [B, L, S] -> [B, C, H, W].
        sizes: Sizes of latents and styles, (Z, S).
        style_mixing: Probability that an image has the styles of two latents.
    """

    def __init__(self, mapping: nn.Module, synthesis: "Synthesis", sizes: tuple[int, int], style_mixing: float):
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis
        self._latent_dim, self._style_mixing = sizes[0], style_mixing
        self.register_buffer("average", torch.zeros(sizes[1]))
        self.register_buffer("path_length_mean", torch.zeros(()))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Returns images float32 [B, C, H, W], and moves the average of w."""
        w = self._map(latents)
        with torch.no_grad():
            self.average.lerp_(w.mean(0), _AVERAGE_SHARE)
        return self.synthesis(self._mixed_styles(w))

    def styles(self, latents: torch.Tensor) -> torch.Tensor:
        """Returns styles float32 [B, L, S] of latents [B, Z]."""
        return self._mixed_styles(self._map(latents))

    def _map(self, latents: torch.Tensor) -> torch.Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            return self.mapping(latents * (latents.square().mean(1, keepdim=True) + 1e-8).rsqrt())

    def _mixed_styles(self, w: torch.Tensor) -> torch.Tensor:
        """Returns styles [B, L, S]. Those from a random layer on may be of other latents."""
        num_images, num_styles = len(w), self.synthesis.num_styles
        if not self._style_mixing:
            return w[:, None].expand(-1, num_styles, -1)
        second = self._map(torch.randn(num_images, self._latent_dim, device=w.device))
        is_mixed = torch.rand(num_images, 1, device=w.device) < self._style_mixing
        first_mixed = torch.randint(1, num_styles, (num_images, 1), device=w.device)
        is_second = is_mixed & (torch.arange(num_styles, device=w.device) >= first_mixed)
        return torch.where(is_second[..., None], second[:, None], w[:, None])


class Synthesis(nn.Module):
    """Makes images of styles: [B, L, S] -> float32 [B, C, H, W].

    Args:
        base: Height and width of the base map.
        channels: Number of channels of an image, C.
        stages: Number of channels of each stage, from the base map to the image.
        style_size: Size of a style, S.
    """

    def __init__(self, base: tuple[int, int], channels: int, stages: Sequence[int], style_size: int):
        super().__init__()
        self.num_styles = 2 * len(stages)
        self.map = nn.Parameter(torch.randn(stages[0], *base))
        before = [None, *stages[:-1]]
        self.stages = nn.ModuleList(
            _Stage(previous, filters, channels, style_size) for previous, filters in zip(before, stages, strict=True)
        )

    def forward(self, styles: torch.Tensor) -> torch.Tensor:
        """Returns images. Stage `s` has the styles 2s-1, 2s and 2s+1; the last one is shared with the next stage."""
        maps, image = self.map.expand(len(styles), -1, -1, -1), None
        for index, stage in enumerate(self.stages):
            maps, image = stage(maps, image, styles[:, : 2 * index + 2])
        return image


class _Stage(nn.Module):
    """Doubles a map and an image, unless it is the first stage, and changes both by the last three of its styles."""

    def __init__(self, previous: int | None, filters: int, channels: int, style_size: int):
        super().__init__()
        self.up = None if previous is None else _StyledConv(previous, filters, style_size, doubles=True)
        self.same = _StyledConv(filters, filters, style_size)
        self.to_image = _ToImage(filters, channels, style_size)
        self.image_filter = _Filter(channels, padding=1, up=True)

    def forward(
        self, maps: torch.Tensor, image: torch.Tensor | None, styles: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.up is not None:
            maps = self.up(maps, styles[:, -3])
        maps = self.same(maps, styles[:, -2])
        added = self.to_image(maps, styles[:, -1]).float()
        if image is not None:
            with torch.autocast(styles.device.type, enabled=False):
                added = added + self.image_filter(image)
        return maps, added


class _ModulatedConv(nn.Module):
    """The weights of a convolution whose input channels are scaled by a style."""

    def __init__(self, channels: int, filters: int, size: int, style_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(filters, channels, size, size))
        self.style_weight = nn.Parameter(torch.randn(channels, style_size))
        self.style_bias = nn.Parameter(torch.ones(channels))

    def scales(self, style: torch.Tensor) -> torch.Tensor:
        """Returns the factors of the input channels, [B, C]."""
        return functional.linear(style, self.style_weight * self.style_weight.shape[1] ** -0.5, self.style_bias)

    def scaled_weight(self) -> torch.Tensor:
        """Returns the kernel of all images, whose learning rate is equalized."""
        return self.weight * math.prod(self.weight.shape[1:]) ** -0.5


class _StyledConv(_ModulatedConv):
    """A modulated and demodulated 3×3 convolution, which may double the map, with noise, bias and leaky ReLU.

    Inputs and outputs of a common kernel are scaled, because a grouped convolution with a kernel per image is slower.
    """

    def __init__(self, channels: int, filters: int, style_size: int, *, doubles: bool = False):
        super().__init__(channels, filters, 3, style_size)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(filters))
        self.filter = _Filter(filters, padding=1) if doubles else None

    def forward(self, maps: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        weight = self.scaled_weight()
        with torch.autocast(style.device.type, enabled=False):
            scales = self.scales(style)
            norms = (scales.square() @ weight.square().sum((2, 3)).T + 1e-8).rsqrt()
        maps = maps * scales.to(maps.dtype)[..., None, None]
        if self.filter is None:
            maps = functional.conv2d(maps, weight, padding=1)
        else:  # three of four pixels between which the filter averages are zeros, hence the factor
            maps = self.filter(functional.conv_transpose2d(maps, (4.0 * weight).transpose(0, 1), stride=2))
        noise = torch.randn(len(maps), 1, *maps.shape[2:], device=maps.device) * (_GAIN * self.strength)
        bias, norms = (_GAIN * self.bias).to(maps.dtype), (_GAIN * norms).to(maps.dtype)
        maps = torch.addcmul(bias[:, None, None], maps, norms[..., None, None]).add_(noise.to(maps.dtype))
        return functional.leaky_relu_(maps, _SLOPE)


class _ToImage(_ModulatedConv):
    """A modulated 1×1 convolution with a bias."""

    def __init__(self, channels: int, filters: int, style_size: int):
        super().__init__(channels, filters, 1, style_size)
        self.bias = nn.Parameter(torch.zeros(filters))

    def forward(self, maps: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        with torch.autocast(style.device.type, enabled=False):
            scales = self.scales(style)
        return functional.conv2d(maps * scales.to(maps.dtype)[..., None, None], self.scaled_weight(), self.bias)


class _Dense(nn.Module):
    """A float32 dense layer, with a leaky ReLU unless it is linear."""

    def __init__(self, inputs: int, units: int, rate: float = 1.0, *, is_linear: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(units, inputs) / rate)
        self.bias = nn.Parameter(torch.zeros(units))
        self._rate, self._is_linear = rate, is_linear

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rate = self._rate if self._is_linear else self._rate * _GAIN
        outputs = functional.linear(inputs, self.weight * (rate * inputs.shape[1] ** -0.5), self.bias * rate)
        return outputs if self._is_linear else functional.leaky_relu_(outputs, _SLOPE)


class _Conv(nn.Module):
    """A convolution, which may halve the map, with bias and leaky ReLU unless it is linear."""

    def __init__(self, channels: int, filters: int, size: int, *, halves: bool = False, is_linear: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(filters, channels, size, size))
        self.bias = None if is_linear else nn.Parameter(torch.zeros(filters))
        self.filter: _Filter | None = None
        self._stride, self._padding = 1, size // 2
        if halves and size == 1:
            self.filter = _Filter(channels, padding=1, stride=2)
        elif halves:
            self.filter = _Filter(channels, padding=2)
            self._stride, self._padding = 2, 0

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        scale = math.prod(self.weight.shape[1:]) ** -0.5
        if self.filter is not None:
            maps = self.filter(maps)
        if self.bias is None:
            return functional.conv2d(maps, self.weight * scale, None, self._stride, self._padding)
        weight, bias = self.weight * (scale * _GAIN), self.bias * _GAIN
        return functional.leaky_relu_(functional.conv2d(maps, weight, bias, self._stride, self._padding), _SLOPE)


class _DownBlock(nn.Module):
    """Two convolutions, the second of which halves the map, with a residual connection if requested."""

    def __init__(self, filters: int, next_filters: int, is_residual: bool):
        super().__init__()
        self.block = nn.Sequential(_Conv(filters, filters, 3), _Conv(filters, next_filters, 3, halves=True))
        self.shortcut = _Conv(filters, next_filters, 1, halves=True, is_linear=True) if is_residual else None

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        block = self.block(maps)
        return block if self.shortcut is None else (block + self.shortcut(maps)) * 0.5**0.5


class _MinibatchStd(nn.Module):
    """Adds a channel with the mean standard deviation over a group of consecutive images."""

    def __init__(self, group_size: int):
        super().__init__()
        self._group_size = group_size

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        groups = maps.float().unflatten(0, (-1, self._group_size))
        deviations = (groups.var(dim=1, correction=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))
        channel = deviations.to(maps.dtype).repeat_interleave(self._group_size)[:, None, None, None]
        return torch.cat([maps, channel.expand(-1, -1, *maps.shape[2:])], dim=1)


class _Head(nn.Module):
    """Two float32 dense layers, from maps [B, C, H, W] to logits [B, 1]."""

    def __init__(self, filters: int, num_pixels: int):
        super().__init__()
        self.dense = nn.Sequential(_Dense(filters * num_pixels, filters), _Dense(filters, 1, is_linear=True))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        with torch.autocast(maps.device.type, enabled=False):
            return self.dense(maps.float().permute(0, 2, 3, 1).flatten(1))  # no copy with channels last


class _Filter(nn.Module):
    """The filter [1, 3, 3, 1] along height and width, padded with zeros; with `up`, it doubles the map.

    A depthwise convolution takes less time than one per axis and than products with matrices.
    """

    def __init__(self, channels: int, *, padding: int, stride: int = 1, up: bool = False):
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / (4.0 if up else 8.0)
        kernel = (taps[:, None] * taps).expand(channels, 1, 4, 4).contiguous()
        self.register_buffer("_kernel", kernel, persistent=False)
        self._channels, self._padding, self._stride, self._up = channels, padding, stride, up

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        if self._up:
            return functional.conv_transpose2d(maps, self._kernel, None, 2, self._padding, groups=self._channels)
        return functional.conv2d(maps, self._kernel, None, self._stride, self._padding, groups=self._channels)
