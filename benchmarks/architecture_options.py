"""Options of the architectures and models that the peers of the throughput benchmark implement.

Legend: `H W C` image shape.
"""

import dataclasses

from trainer.config.image_sizes import nearest_power_of_two, num_halvings


@dataclasses.dataclass(frozen=True, kw_only=True)
class DcganOptions:
    """Options of the architecture `dcgan` that the peers implement; all others must have their defaults."""

    generator_filters: list[int]
    generator_strides: list[int]
    generator_activation: str
    discriminator_filters: list[int]
    discriminator_batch_norm: str
    kernel_size: int
    leaky_slope: float
    batch_norm_momentum: float
    dropout: float
    initializer: str
    generator_stem: str
    discriminator_head: str

    def normalizes(self, depth: int) -> bool:
        """Returns whether batch norm follows convolution number `depth` of the discriminator."""
        layers = self.discriminator_batch_norm
        return layers == "all" or (layers == "hidden" and depth > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MlpOptions:
    """Options of the architecture `mlp`."""

    generator_units: list[int]
    discriminator_units: list[int]
    generator_activation: str
    discriminator_activation: str
    leaky_slope: float
    batch_norm_momentum: float | None
    dropout: float
    initializer: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class R3ganOptions:
    """Options of the architecture `r3gan`. Stages of the generator begin at the base map, those of D at the image."""

    generator_filters: list[int]
    discriminator_filters: list[int]
    blocks_per_stage: int
    expansion: int
    group_size: int

    def hidden(self, filters: int) -> tuple[int, int]:
        """Returns the number of channels inside of a block, and the number of groups of its 3×3 convolution."""
        hidden = filters * self.expansion
        return hidden, hidden // self.group_size

    def base_size(self, image_shape: tuple[int, int, int], num_stages: int) -> tuple[int, int]:
        """Returns height and width of the base map."""
        return image_shape[0] >> (num_stages - 1), image_shape[1] >> (num_stages - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stylegan2Options:
    """Options of the architecture `stylegan2`."""

    channel_base: int
    max_filters: int
    mapping_layers: int
    mapping_units: int
    group_size: int
    residual: bool

    def stage_filters(self, image_shape: tuple[int, int, int]) -> list[int]:
        """Returns the number of channels of each stage, from the image to the base map."""
        height, width, _ = image_shape
        side = nearest_power_of_two(height, width)
        stages = range(num_halvings(height, width) + 1)
        return [max(1, min(self.channel_base * 2**stage // side, self.max_filters)) for stage in stages]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stylegan2ModelOptions:
    """Options of the model `stylegan2`."""

    style_mixing: float
    path_length_weight: float
    path_length_every_steps: int
