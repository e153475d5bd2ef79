"""Recipes of StyleGAN2 for your own images, with the automatic settings of StyleGAN2-ADA."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.config import TrainConfig
from trainer.config.choices import Size
from trainer.config.recipes.context import SMALL_RUN_IMAGES, RecipeContext, lookup
from trainer.config.recipes.registry import register_recipe

_SMALLEST, _LARGEST = 32, 1024
"""Sides of images that the automatic settings are for. Smaller and larger images take those of the nearest side."""
_GROUP_SIZE, _GROUP_SIZE_OF_SMALLEST = 4, 32
"""Images in a group of the minibatch standard deviation."""
_NUM_EVALUATIONS = 10
"""Evaluations of a run."""


@dataclass(frozen=True)
class _Widths:
    """Widths of a size, and the images of a run.

    Attributes:
        divisor: Divisor of the paper's channels of a map.
        max_filters: Largest number of channels, which is also the size of latents and styles.
        images: Images that a run shows, by the side of an image; see `lookup`.
    """

    divisor: int
    max_filters: int
    images: Mapping[int, int]


_WIDTHS = {
    Size.SMALL: _Widths(32, 64, SMALL_RUN_IMAGES),
    Size.MEDIUM: _Widths(2, 256, {32: 5_000_000}),
    Size.LARGE: _Widths(1, 512, {32: 25_000_000}),
}


@register_recipe
def stylegan2(context: RecipeContext) -> TrainConfig:
    """StyleGAN2 for your own images, with the automatic settings of StyleGAN2-ADA for the resolution.

    Source: arXiv 1912.04958 for the networks and the losses; arXiv 2006.06676 and its published code for the settings
    by resolution. `--size=large` has the published widths, and `--size=small`, the default on CPUs, a thirty-second of
    the channels, at most 64. Not measured here.
    """
    choose, side = context.choose, min(max(context.resolution, _SMALLEST), _LARGEST)
    batch = _choose_batch(context, side)
    gamma, reason = 0.0002 * side**2 / batch, f"0.0002*{side}*{side}/{batch}: gamma, by pixels over batch"
    half_life, ema_reason = batch * 10_000 // 32, "10,000 images per 32 of the batch"
    if side == _SMALLEST:
        gamma, half_life, reason = 0.01, 500_000, "the published value for 32x32"
        ema_reason = reason
    images = lookup(_WIDTHS[Size(context.size)].images, side)
    steps, num_steps = context.choose_steps(batch, math.ceil(images / batch), f"size={context.size}: {images:,} images")
    rate, rate_reason = (0.002, "1024x1024 and more") if side >= 1024 else (0.0025, "less than 1024x1024")
    return TrainConfig(
        model="stylegan2",
        model_options=_choose_regularization(context, side),
        architecture="stylegan2",
        architecture_options=_choose_networks(context, side, batch),
        latent_dim=choose("latent_dim", _WIDTHS[Size(context.size)].max_filters, f"size={context.size}"),
        loss="non_saturating",
        penalties=("r1",),
        penalty_weight=choose("penalty_weight", gamma, reason),
        penalty_every_steps=16,
        beta_1=0.0,
        beta_2=0.99,
        epsilon=1e-8,
        generator_learning_rate=choose("generator_learning_rate", rate, rate_reason),
        discriminator_learning_rate=choose("discriminator_learning_rate", rate, rate_reason),
        ema_half_life_images=choose("ema_half_life_images", half_life, ema_reason),
        horizontal_flips=choose("horizontal_flips", True, "most photographs may be mirrored; for others, use no flips"),
        global_batch_size=batch,
        steps=steps,
        **context.choose_intervals(num_steps, _NUM_EVALUATIONS),
    )


@register_recipe
def stylegan2_conditional(context: RecipeContext) -> TrainConfig:
    """`stylegan2` with labels: an embedding in the mapping, and a projection in the discriminator.

    Source: arXiv 2006.06676, appendix F; arXiv 1802.05637 for the projection. Not measured here.
    """
    return stylegan2(context).override(model="stylegan2_conditional")


@register_recipe
def stylegan2_ada(context: RecipeContext) -> TrainConfig:
    """`stylegan2` with the adaptive augmentation of ADA, for a few thousand images.

    Source: arXiv 2006.06676. `--model=stylegan2_conditional` trains with labels. Not measured here.
    """
    return stylegan2(context).override(augment="ada", augment_probability=None)


def _choose_batch(context: RecipeContext, side: int) -> int:
    devices = context.num_devices
    batch = max(min(devices * min(4096 // side, 32), 64), devices)
    reason = f"{min(4096 // side, 32)} per device, up to 64"
    if side == _SMALLEST:
        batch, reason = max(64, devices), "the published value for 32x32"
    if context.size == Size.SMALL:
        batch, reason = max(min(batch, 2048 // side), devices), "fewer on a small device"
    if batch > context.num_images:
        batch, reason = context.num_images, "all images"
    return context.choose("global_batch_size", max(1, batch // devices) * devices, reason)


def _choose_networks(context: RecipeContext, side: int, batch: int) -> dict[str, Any]:
    """Returns the widths, and a group size that divides the batch of a device."""
    if not context.keeps("architecture", "stylegan2"):
        return {}
    widths = _WIDTHS[Size(context.size)]
    # Half of the channels from 64 to 256 pixels, as published; at least 8 at the image.
    published = 32768 if side >= 512 or side == _SMALLEST else 16384
    base = max(published // widths.divisor, 8 * side)
    group_size = _GROUP_SIZE_OF_SMALLEST if side == _SMALLEST else _GROUP_SIZE
    options = {
        "channel_base": base,
        "max_filters": widths.max_filters,
        "mapping_layers": 2,
        "mapping_units": widths.max_filters,
        "group_size": math.gcd(batch // context.num_devices, group_size),
        "residual": side != _SMALLEST,
    }
    return context.choose(
        "architecture_options",
        options,
        f"size={context.size}: {min(base // side, widths.max_filters)} to {widths.max_filters} channels",
    )


def _choose_regularization(context: RecipeContext, side: int) -> dict[str, Any]:
    if side > _SMALLEST or not str(context.settings.get("model", "stylegan2")).startswith("stylegan2"):
        return {}
    options = {"style_mixing": 0.0, "path_length_weight": 0.0}
    return context.choose("model_options", options, "32x32 needs neither style mixing nor path length regularization")
