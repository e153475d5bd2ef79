"""The recipe for your own images. It chooses its settings by the resolution, the number of images and the device."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.config import TrainConfig
from trainer.config.choices import Size
from trainer.config.image_sizes import num_halvings
from trainer.config.recipes.context import SMALL_RUN_IMAGES, RecipeContext, lookup, round_to_two_digits
from trainer.config.recipes.r3gan import PAPER_SETTINGS, growing_augmentation
from trainer.config.recipes.registry import register_recipe
from trainer.errors import ConfigError, count_of

_MIN_SIDE, _MAX_SIDE, _MIN_UNIT = 8, 1024, 4
"""Limits of the sides of an image, and a number that divides them."""
_MAX_BASE = 16
"""Largest smaller side of the networks' base map."""
_GAMMA = 0.0625
"""Penalty weight of sizes for GPUs at the start, times the batch, over the pixels of an image. R3GAN's values are 0.025
for CIFAR-10, 0.125 for FFHQ at 64×64, and 0.59 for FFHQ at 256×256."""
_EMA_SHARE = 1 / 40
"""Half-life of the EMA over the images of the run: R3GAN's 500,000 of 20 million."""
_MIN_IMAGES, _MAX_PASSES = 1_000_000, 1000
"""Images that a run of a size for GPUs shows at least, and how often it shows each image at most beyond these."""
_PIXELS_PER_EXECUTION = 640
"""Steps that a device takes in one call, times the side of the images. Progress is logged between two calls."""
_FULL_BATCH_GIB = 20
"""Memory of a GPU below which the batch of `medium` is halved."""
_LARGE_SIDE = 128
"""Side of images from which a CPU generates fewer of them for an evaluation."""


@dataclass(frozen=True)
class _SizePreset:
    """Networks and settings of a size. Tables have values by the side of an image; see `lookup`.

    Attributes:
        filters: Channels of the stages from the image to the base map. Further stages have the last number.
        blocks: Residual blocks in each stage.
        generator_learning_rate: Learning rate of the generator at the start.
        discriminator_learning_rate: Learning rate of the discriminator at the start.
        batch: Images per step and device.
        images: Images that a run shows.
        num_evaluations: Number of evaluations in a run. There are twice as many sample grids, and four times as many
            checkpoints.
        augmentation: Smallest number of times that a run shows each image, and the probability of augmentation at its
            end, in descending order.
        penalty_weight: Weight of R1 and R2 at the start. None: by pixels over batch; see `_GAMMA`.
    """

    filters: Mapping[int, tuple[int, ...]]
    blocks: int
    generator_learning_rate: Mapping[int, float]
    discriminator_learning_rate: float
    batch: Mapping[int, int]
    images: Mapping[int, int]
    num_evaluations: int
    augmentation: tuple[tuple[int, float], ...] = ((400, 0.6), (100, 0.4), (25, 0.2))
    penalty_weight: Mapping[int, float] | None = None


_PRESETS = {
    Size.SMALL: _SizePreset(
        filters={
            **{32: (8, 16, 64), 64: (8, 8, 16, 64), 128: (8, 8, 8, 16, 64), 256: (8, 8, 8, 8, 16, 64)},
            **{512: (8, 8, 8, 8, 8, 16, 64), 1024: (8, 8, 8, 8, 8, 8, 16, 64)},
        },
        blocks=1,
        generator_learning_rate={32: 2e-3, 64: 1e-3},  # a faster one outruns the discriminator of larger images
        discriminator_learning_rate=2e-3,
        batch={32: 64, 64: 32, 128: 16, 256: 8, 512: 4, 1024: 2},
        images=SMALL_RUN_IMAGES,
        num_evaluations=10,
        augmentation=((200, 0.4),),  # it takes a large part of the time
        penalty_weight={32: 1.0, 64: 0.2},  # the best measured ones; more keeps a small discriminator from learning
    ),
    Size.MEDIUM: _SizePreset(
        filters={
            **{32: (384,), 64: (192, 384), 128: (96, 192, 384), 256: (48, 96, 192, 384)},
            **{512: (24, 48, 96, 192, 384), 1024: (16, 24, 48, 96, 192, 384)},
        },
        blocks=2,
        generator_learning_rate={32: 4e-4},
        discriminator_learning_rate=4e-4,
        batch={64: 64, 128: 32, 256: 16, 512: 8, 1024: 4},
        images={32: 5_000_000},
        num_evaluations=25,
    ),
    Size.LARGE: _SizePreset(
        filters={
            **{32: (768,), 64: (384, 768), 128: (192, 384, 768), 256: (96, 192, 384, 768)},
            **{512: (48, 96, 192, 384, 768), 1024: (24, 48, 96, 192, 384, 768)},
        },
        blocks=2,
        generator_learning_rate={32: 2e-4},
        discriminator_learning_rate=2e-4,
        batch={128: 64, 256: 32, 512: 16, 1024: 8},
        images={32: 20_000_000},
        num_evaluations=50,
    ),
}
_MAX_BATCH = {32: 512, 64: 256}
"""Largest batch of all devices, by the side of the images: those of R3GAN."""


@register_recipe
def photos(context: RecipeContext) -> TrainConfig:
    """Your own images: R3GAN with networks, batch, penalty and length that fit the images and the device.

    Source: arXiv 2501.05441 for the networks, the loss and the schedules; arXiv 2006.06676 for the augmentation and the
    batch of a GPU. `--size` selects the size of the networks, `--model=conditional` trains with labels, and every other
    flag replaces a choice. The choices that depend on it follow.
    """
    choose = context.choose
    preset = _PRESETS[Size(context.size)]
    batch = _choose_batch(context, preset)
    steps, images = _choose_length(context, preset, batch)
    if context.num_classes > 1:
        choose("model", "gan", f"the {context.num_classes} classes count only with --model=conditional")
    weight, reason = _choose_penalty(context, preset, batch), f"size={context.size}"
    generator_rate = lookup(preset.generator_learning_rate, context.resolution)
    return TrainConfig(
        **PAPER_SETTINGS,
        architecture_options=_choose_networks(context, preset),
        penalty_weight=weight,
        penalty_weight_end=context.choose_penalty_weight_end(weight),
        generator_learning_rate=choose("generator_learning_rate", generator_rate, reason),
        discriminator_learning_rate=choose("discriminator_learning_rate", preset.discriminator_learning_rate, reason),
        ema_half_life_images=choose("ema_half_life_images", round(images * _EMA_SHARE), "a fortieth of the run"),
        horizontal_flips=choose("horizontal_flips", True, "most photographs may be mirrored; for others, use no flips"),
        global_batch_size=batch,
        steps=steps,
        **_choose_augmentation(context, preset, images),
        **_choose_intervals(context, preset, images // batch),
    )


def _choose_networks(context: RecipeContext, preset: _SizePreset) -> dict[str, Any]:
    if not context.keeps("architecture", PAPER_SETTINGS["architecture"]):
        return {}
    height, width, _ = context.image_shape
    halvings, first = _count_halvings(context), lookup(preset.filters, context.resolution)
    filters = [first[min(stage, len(first) - 1)] for stage in range(halvings + 1)]
    options = {"generator_filters": filters[::-1], "discriminator_filters": filters, "blocks_per_stage": preset.blocks}
    reason = f"size={context.size}: from {height >> halvings}x{width >> halvings} to {height}x{width}"
    return context.choose("architecture_options", options, reason)


def _count_halvings(context: RecipeContext) -> int:
    """Returns how often the networks halve an image.

    Raises:
        ConfigError: If the image is too small or too large, or if it cannot be halved to a small base map.
    """
    height, width, _ = context.image_shape
    smaller, larger = sorted((height, width))
    halvings = num_halvings(height, width)
    is_divisible = height % _MIN_UNIT == 0 and width % _MIN_UNIT == 0
    if is_divisible and halvings and smaller >> halvings <= _MAX_BASE and larger <= _MAX_SIDE:
        return halvings
    padding = context.settings.get("padding", 0)
    size = ",".join(str(side - 2 * padding) for side in _nearest_size(height, width))
    raise ConfigError(
        f"recipe=photos has no networks for images of {height}x{width}{f' with padding={padding}' if padding else ''}: "
        f"their sides must be from {_MIN_SIDE} to {_MAX_SIDE:,} and both become small when they are halved several "
        f"times; prepare them with --image_size={size}{' or change the padding' if padding else ''}."
    )


def _nearest_size(height: int, width: int) -> tuple[int, int]:
    """Returns the nearest size that the networks take."""
    scale = min(1.0, _MAX_SIDE / max(height, width))
    sides = [max(_MIN_SIDE, side * scale) for side in (height, width)]
    unit = max(_MIN_UNIT, 2 ** int(math.log2(min(sides) / _MAX_BASE * 2)))
    nearest_height, nearest_width = (round(side / unit) * unit for side in sides)
    return nearest_height, nearest_width


def _choose_batch(context: RecipeContext, preset: _SizePreset) -> int:
    devices, resolution = context.num_devices, context.resolution
    per_device, largest = lookup(preset.batch, resolution), lookup(_MAX_BATCH, resolution)
    memory, place = context.device_memory_gib, "device"
    if context.size == Size.MEDIUM and memory is not None and memory < _FULL_BATCH_GIB:
        per_device, place = per_device // 2, f"GPU of {memory:.0f} GiB"
    size = min(per_device * devices, largest, context.num_images)
    reason = f"{per_device} per {place}, up to {largest}"
    if size == context.num_images:
        reason = f"all of the {count_of(context.num_images, 'image')}"
    return context.choose("global_batch_size", max(1, size // devices) * devices, reason)


def _choose_length(context: RecipeContext, preset: _SizePreset, batch: int) -> tuple[int | None, int]:
    """Returns the number of steps, or None if the user gives epochs, and the number of images that the run shows."""
    settings, num_images = context.settings, context.num_images
    if settings.get("epochs") is not None:
        return None, max(batch, round(settings["epochs"] * num_images))
    images, reason = lookup(preset.images, context.resolution), f"size={context.size}"
    if context.size != Size.SMALL and images > max(_MIN_IMAGES, num_images * _MAX_PASSES):
        images, reason = max(_MIN_IMAGES, num_images * _MAX_PASSES), "few images"
    if settings.get("init_from") is not None:
        images, reason = images // 2, f"{reason}, half as many with init_from"
    min_images = preset.augmentation[-1][0] * num_images
    is_augmented = settings.get("augment", "ada") is not None
    if context.size == Size.SMALL and images > min_images and is_augmented:
        images = max(images // 2, min_images)
        reason = f"{reason}, fewer because augmentation takes a large part of the time"
    steps = context.choose("steps", round_to_two_digits(images / batch), f"about {images:,} images: {reason}")
    return steps, (steps or 1) * batch


def _choose_penalty(context: RecipeContext, preset: _SizePreset, batch: int) -> float:
    if preset.penalty_weight is not None:
        weight, reason = lookup(preset.penalty_weight, context.resolution), f"size={context.size}"
    else:
        height, width, _ = context.image_shape
        weight = float(f"{_GAMMA * height * width / batch:.3g}")
        reason = f"{_GAMMA}*{height}*{width}/{batch}: gamma, by pixels over batch"
    return context.choose("penalty_weight", weight, reason)


def _choose_augmentation(context: RecipeContext, preset: _SizePreset, images: int) -> dict[str, Any]:
    """Returns the settings of the augmentation. Its probability grows from 0, as in R3GAN.

    The adaptive probability of ADA needs a loss with a decision threshold, which the relativistic loss does not have.
    """
    passes = images / context.num_images
    # The number of steps is rounded, which takes up to a twentieth of the images.
    end = next((end for smallest, end in preset.augmentation if passes >= 0.95 * smallest), 0.0)
    reason = f"each image is shown {count_of(round(passes), 'time')}"
    is_wanted = {"augment_probability", "augment_probability_end"} & set(context.settings)
    augment = context.choose("augment", "ada" if end or is_wanted else None, reason)
    return growing_augmentation(context, augment, end or preset.augmentation[-1][1], reason)


def _choose_intervals(context: RecipeContext, preset: _SizePreset, steps: int) -> dict[str, Any]:
    """Returns how often a run of `steps` steps writes and evaluates, and how many steps a device takes in one call."""
    settings = context.choose_intervals(steps, preset.num_evaluations)
    settings["steps_per_execution"] = max(1, min(20, _PIXELS_PER_EXECUTION // round(context.side)))
    if context.size == Size.SMALL and context.side >= _LARGE_SIDE:
        reason = "large images on a small device"
        settings["num_metric_samples"] = context.choose("num_metric_samples", 1000, reason)
    return settings
