"""Recipes of R3GAN: at the paper's sizes, and small ones for digits."""

import math
from dataclasses import dataclass
from typing import Any

from trainer.config import TrainConfig
from trainer.config.choices import Size
from trainer.config.image_sizes import nearest_power_of_two, num_halvings
from trainer.config.recipes.context import RecipeContext, lookup
from trainer.config.recipes.registry import register_recipe
from trainer.errors import ConfigError

PAPER_SETTINGS: dict[str, Any] = {
    "architecture": "r3gan",
    "latent_dim": 64,
    "loss": "relativistic",
    "penalties": ("r1", "r2"),
    "learning_rate_decay": "cosine",
    "learning_rate_end": 0.25,
    "beta_1": 0.0,
    "beta_2": 0.9,
    "beta_2_end": 0.99,
    "epsilon": 1e-8,
    "ema_schedule": "cosine",
}
"""Settings of the paper that do not depend on the images."""
_IMAGES = 20_000_000
"""Images of a run, at whose end the schedules end."""
_FILTERS = {32: 768, 64: 384, 128: 192, 256: 96}
"""Channels of the residual blocks, by the side of their map; smaller maps have as many as the first."""


@dataclass(frozen=True)
class _Preset:
    """Settings of the paper for a resolution.

    Attributes:
        batch: Images per step.
        penalty_weight: Weight of R1 and R2 at the start; a tenth of it at the end.
        ema_half_life_images: Half-life of the EMA at the end; 0 at the start.
        augment_probability: Probability of augmentation at the end; 0 at the start.
    """

    batch: int
    penalty_weight: float
    ema_half_life_images: int
    augment_probability: float


_PRESETS = {
    32: _Preset(512, 0.05, 5_000_000, 0.55),
    64: _Preset(256, 2.0, 500_000, 0.3),
    128: _Preset(256, 17.0, 500_000, 0.3),
    256: _Preset(256, 150.0, 500_000, 0.3),
}
"""Presets by resolution. The paper has none for 128: its penalty weight is the geometric mean of its neighbors."""


@register_recipe
def r3gan(context: RecipeContext) -> TrainConfig:
    """R3GAN at its paper's sizes: up to 768 channels, relativistic loss, R1 and R2 at every step, schedules.

    Source: arXiv 2501.05441: CIFAR-10 for images of about 32×32, FFHQ for about 64×64 and 256×256. Needs a GPU. Not
    measured here; the paper states an FID of 1.96 for CIFAR-10 and of 2.75 for FFHQ at 256×256. `--recipe=photos` fits
    the same method to your images and device.
    """
    if context.settings.get("size", Size.AUTO) != Size.AUTO:
        raise ConfigError(
            f"size={context.settings['size']} has no effect on recipe=r3gan, whose networks are those of the paper; "
            "remove it, or choose recipe=photos."
        )
    choose, (height, width, _) = context.choose, context.image_shape
    resolution = min(max(context.resolution, min(_PRESETS)), max(_PRESETS))
    preset, reason = _PRESETS[resolution], f"the paper's value for {resolution}x{resolution}"
    if resolution == 128:
        reason = "between the paper's values for 64x64 and 256x256"
    sides = [nearest_power_of_two(height >> count, width >> count) for count in range(num_halvings(height, width) + 1)]
    filters = [lookup(_FILTERS, side) for side in sides]
    batch = choose("global_batch_size", preset.batch, reason)
    weight = choose("penalty_weight", preset.penalty_weight, reason)
    options: dict[str, Any] = {}
    if context.keeps("architecture", PAPER_SETTINGS["architecture"]):
        options = {"generator_filters": filters[::-1], "discriminator_filters": filters}
        options = choose("architecture_options", options, reason)
    return TrainConfig(
        **PAPER_SETTINGS,
        architecture_options=options,
        penalty_weight=weight,
        penalty_weight_end=context.choose_penalty_weight_end(weight),
        generator_learning_rate=2e-4,
        discriminator_learning_rate=2e-4,
        **growing_augmentation(context, context.settings.get("augment", "ada"), preset.augment_probability, reason),
        horizontal_flips=True,
        ema_half_life_images=choose("ema_half_life_images", preset.ema_half_life_images, reason),
        global_batch_size=batch,
        steps=context.choose_steps(batch, math.ceil(_IMAGES / batch), f"{_IMAGES:,} images")[0],
        sample_every_steps=1000,
        checkpoint_every_steps=1000,
        evaluate_every_steps=4000,
    )


def growing_augmentation(context: RecipeContext, augment: str | None, end: float, reason: str) -> dict[str, Any]:
    """Returns the settings of an augmentation whose probability grows from 0, unless the user gives a probability.

    Args:
        context: Facts and settings of the run.
        augment: Augmentation; None for none.
        end: Probability at the end.
        reason: Reason for this probability, without a period at its end.
    """
    if augment is None or "augment_probability" in context.settings:
        return {"augment": augment}
    probability = context.choose("augment_probability_end", end, reason)
    return {"augment": augment, "augment_probability": 0.0, "augment_probability_end": probability}


@register_recipe
def r3gan_conditional(context: RecipeContext) -> TrainConfig:
    """`r3gan` with labels: an embedding in the generator, and a projection in the discriminator.

    Source: arXiv 2501.05441, as for CIFAR-10; arXiv 1802.05637 for the projection. Not measured here.
    """
    return r3gan(context).override(model="conditional")


@register_recipe
def r3gan_digits() -> TrainConfig:
    """R3GAN for digits: relativistic loss, R1 and R2 at every step, small networks, all with schedules.

    Source: arXiv 2501.05441, the Stacked-MNIST settings in small: Adam with beta_1 0 and beta_2 .9 to .99, gamma 1 to
    .1, EMA half-life from 0, all on a cosine over the run. Networks with a twelfth of the paper's width need ten times
    its learning rate of 2e-4. Half as many blocks take half the time.
    Scored frechet_digits_5k 2.61 in 522 s on 2 CPU cores.
    """
    return TrainConfig(
        **PAPER_SETTINGS,
        architecture_options={"blocks_per_stage": 1},
        penalty_weight=1.0,
        penalty_weight_end=0.1,
        generator_learning_rate=2e-3,
        discriminator_learning_rate=2e-3,
        ema_half_life_images=20_000,
        global_batch_size=64,
        steps=3000,
        sample_every_steps=250,
        evaluate_every_steps=500,
    )


@register_recipe
def r3gan_digits_conditional() -> TrainConfig:
    """`r3gan_digits` with labels: an embedding in the generator, and a projection in the discriminator.

    Source: arXiv 2501.05441; arXiv 1802.05637 for the projection.
    Scored frechet_digits_5k 0.603 in 372 s on 2 CPU cores.
    """
    return r3gan_digits().override(model="conditional")
