"""Recipes for translation between image domains."""

import math
from typing import Any

from trainer.config import TrainConfig
from trainer.config.choices import Size
from trainer.config.recipes.context import RecipeContext, lookup
from trainer.config.recipes.registry import register_recipe
from trainer.errors import ConfigError

_PUBLISHED_SIDE, _PUBLISHED_JITTER = 256, 30
"""Side of the images of pix2pix, and by how many pixels they are enlarged before they are cropped."""
_SMALL_IMAGES = {32: 200_000, 64: 50_000, 128: 15_000, 256: 5_000}
"""Pairs that a run of size small shows, by the side of an image."""
_PASSES, _MAX_IMAGES, _MIN_PASSES = 200, 1_000_000, 6
"""Passes of pix2pix over 400 pairs, and its 6 passes over a million of them, with a limit between both."""
_NUM_EVALUATIONS, _GRIDS_PER_EVALUATION = 10, 2


@register_recipe
def cyclegan() -> TrainConfig:
    """CycleGAN: two unpaired domains, ResNet generators, PatchGAN, cycle 10, identity 5, image pool of 50.

    Source: arXiv 1703.10593: mean squared error, Adam 2e-4 with beta_1 .5, constant in the first half and then
    decreasing linearly to 0. Translates between digits and their negatives with smaller networks than the paper's. For
    128×128 photographs, set two datasets, --global_batch_size=1 and
    --architecture_options='{"generator_filters": 64, "residual_blocks": 6, "discriminator_filters": 64}'.
    Scored cycle_error 0.0146 in 10 min on 2 CPU cores.
    """
    return TrainConfig(
        dataset="digits",
        dataset_b="inverted:digits",
        model="cyclegan",
        model_options={"cycle_weight": 10.0, "identity_weight": 5.0, "pool_size": 50},
        architecture="resnet_translator",
        architecture_options={
            "generator_filters": 16,
            "residual_blocks": 2,
            "downsamplings": 2,
            "discriminator_filters": 16,
            "discriminator_layers": 2,
        },
        loss="mean_squared_error",
        learning_rate_decay="linear",
        learning_rate_decay_begin=0.5,
        global_batch_size=16,
        steps=3000,
        sample_every_steps=250,
        evaluate_every_steps=500,
    )


@register_recipe
def pix2pix(context: RecipeContext) -> TrainConfig:
    """Pix2pix: pairs of an input and an image, U-Net with dropout, 70×70 PatchGAN on both, cross-entropy and 100 L1.

    Source: arXiv 1611.07004: Adam 2e-4 with beta_1 .5, constant, dropout .5 in three layers, no EMA, random jitter from
    286 to 256 pixels and mirroring of both images of a pair. The U-Net halves the image as often as its size allows, up
    to 8 times. The batch is 1, and 4 below 256×256, as the source has it for its colorization. Differences:
    instance instead of batch normalization, which is the same with a batch of 1, and no extra factor of a half on the
    discriminator's loss, which Adam would undo. `--size=small` has half of the filters. `--metrics=auto` measures L1,
    PSNR and SSIM.
    """
    choose, (height, width, _) = context.choose, context.image_shape
    batch = (1 if context.side >= _PUBLISHED_SIDE else 4) * context.num_devices
    batch = choose("global_batch_size", batch, "1 per device, 4 below 256x256")
    steps, num_steps = _choose_steps(context, batch)
    jitter = round(min(height, width) * _PUBLISHED_JITTER / _PUBLISHED_SIDE)
    return TrainConfig(
        model="pix2pix",
        model_options=choose("model_options", {"l1_weight": 100.0, "jitter": jitter}, f"jitter: {height}x{width}"),
        architecture="unet_translator",
        architecture_options=_choose_unet(context),
        horizontal_flips=choose("horizontal_flips", True, "most pairs may be mirrored; for others, use no flips"),
        global_batch_size=batch,
        steps=steps,
        **{
            name: choose(name, max(1, num_steps // times), f"about {times} times")
            for name, times in (
                ("evaluate_every_steps", _NUM_EVALUATIONS),
                ("sample_every_steps", _GRIDS_PER_EVALUATION * _NUM_EVALUATIONS),
                ("checkpoint_every_steps", _GRIDS_PER_EVALUATION * _NUM_EVALUATIONS),
            )
        },
    )


def _choose_unet(context: RecipeContext) -> dict[str, Any]:
    """Returns the options of the U-Net, which halves the image as often as both sides allow.

    Raises:
        ConfigError: If a side is odd.
    """
    if not context.keeps("architecture", "unet_translator"):
        return {}
    height, width, _ = context.image_shape
    common = math.gcd(height, width)
    depth = min(8, (common & -common).bit_length() - 1)
    if depth < 1:
        raise ConfigError(
            f"recipe=pix2pix has no networks for images of {height}x{width}, because both sides must be even; prepare "
            f"them with --image_size={height + height % 2},{width + width % 2}."
        )
    filters = 32 if context.size == Size.SMALL else 64
    layers = min(3, (max(height, width) - 1).bit_length() - 1)
    options = {
        "generator_filters": filters,
        "depth": depth,
        "dropout": 0.5,
        "discriminator_filters": filters,
        "discriminator_layers": layers,
    }
    reason = f"size={context.size}: from {height}x{width} to {height >> depth}x{width >> depth}"
    return context.choose("architecture_options", options, reason)


def _choose_steps(context: RecipeContext, batch: int) -> tuple[int | None, int]:
    """Returns the setting `steps`, and the number of steps of the run, as `RecipeContext.choose_steps`."""
    if context.size == Size.SMALL:
        images = lookup(_SMALL_IMAGES, context.side)
    else:
        images = min(_PASSES * context.num_images, max(_MAX_IMAGES, _MIN_PASSES * context.num_images))
    return context.choose_steps(batch, max(1, images // batch), f"{images:,} pairs: size={context.size}")
