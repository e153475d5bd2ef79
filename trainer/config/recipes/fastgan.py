"""FastGAN for 50 to 1,000 images. It chooses widths and length by the resolution and the device."""

from dataclasses import dataclass

from trainer.config import TrainConfig
from trainer.config.choices import Size
from trainer.config.image_sizes import num_fastgan_downsamplings, num_halvings
from trainer.config.recipes.context import RecipeContext, round_to_two_digits
from trainer.config.recipes.registry import register_recipe
from trainer.errors import count_of

_MULTIPLIERS = (16, 8, 4, 2, 2, 1, 0.5, 0.25, 0.125)
"""Channels of the generator's maps over its width, from the base map: those of the paper's networks."""
_DISCRIMINATOR_MULTIPLIERS = (0.25, 0.5, 1, 2, 4, 8, 16, 16)
"""Channels of the discriminator's maps over its width, for the sides 1024, 512, ..., 8."""
_MIN_FILTERS = 8
_BATCH = 8
_EMA_HALF_LIFE_STEPS = 693
"""Steps after which a weight of .999 has fallen to a half."""


@dataclass(frozen=True)
class _FastGanPreset:
    """Width of both networks, number of images that a run shows, and number of evaluations."""

    width: int
    images: int
    num_evaluations: int


_PRESETS = {
    Size.SMALL: _FastGanPreset(width=8, images=160_000, num_evaluations=10),
    Size.MEDIUM: _FastGanPreset(width=64, images=400_000, num_evaluations=20),
    Size.LARGE: _FastGanPreset(width=64, images=800_000, num_evaluations=40),
}


@register_recipe
def fastgan(context: RecipeContext) -> TrainConfig:
    """FastGAN for 50 to 1,000 images: skip-layer excitation, a reconstructing discriminator, DiffAugment.

    Source: arXiv 2101.04775: hinge loss, Adam 2e-4 (.5, .999), batch 8, EMA of decay .999, widths of its networks on a
    GPU. Differences: the reconstruction loss is L1 instead of a perceptual one, and DiffAugment also cuts boxes out.
    `--size=small` is measured in docs/recipes.md.
    """
    choose, preset = context.choose, _PRESETS[Size(context.size)]
    size = max(1, min(_BATCH, context.num_images) // context.num_devices) * context.num_devices
    batch = choose("global_batch_size", size, f"the paper's {_BATCH}, for {count_of(context.num_devices, 'device')}")
    reason = f"about {preset.images:,} images: size={context.size}"
    steps, num_steps = context.choose_steps(batch, round_to_two_digits(preset.images / batch), reason)
    return TrainConfig(
        model="fastgan",
        architecture="fastgan",
        architecture_options=_choose_networks(context, preset.width),
        latent_dim=256,
        loss="hinge",
        generator_learning_rate=2e-4,
        discriminator_learning_rate=2e-4,
        beta_1=0.5,
        beta_2=0.999,
        augment=choose("augment", "diffaugment", "few images"),
        horizontal_flips=choose("horizontal_flips", True, "most photographs may be mirrored; for others, use no flips"),
        ema_half_life_images=choose("ema_half_life_images", _EMA_HALF_LIFE_STEPS * batch, "a decay of .999 per step"),
        global_batch_size=batch,
        steps=steps,
        **context.choose_intervals(num_steps, preset.num_evaluations),
        num_metric_samples=choose(
            "num_metric_samples", 1000 if context.size == Size.SMALL else None, f"size={context.size}"
        ),
    )


def _choose_networks(context: RecipeContext, width: int) -> dict[str, list[int]]:
    if not context.keeps("architecture", "fastgan"):
        return {}
    halvings = num_halvings(*context.image_shape[:2])
    first = max(0, len(_DISCRIMINATOR_MULTIPLIERS) - 1 - num_fastgan_downsamplings(halvings))
    options = {
        "generator_filters": [_filters(width, _MULTIPLIERS[min(i, 8)]) for i in range(halvings + 1)],
        "discriminator_filters": [_filters(width, m) for m in _DISCRIMINATOR_MULTIPLIERS[first:]],
    }
    return context.choose("architecture_options", options, f"size={context.size}: {width} times the paper's factors")


def _filters(width: int, multiplier: float) -> int:
    return max(_MIN_FILTERS, round(width * multiplier))
