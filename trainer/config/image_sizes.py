"""Sizes of images, and how often networks halve them. Recipes and networks share these rules."""

import math

from trainer.errors import ConfigError

MIN_BASE = 4
"""Smallest side of a base map, which has the size of the image after all halvings."""
_UNIT = 4
_SHORTENED_FROM = 4
"""Number of halvings from which on the discriminator of FastGAN halves an image once less."""


def nearest_power_of_two(height: float, width: float) -> int:
    """Returns the power of two that is nearest to the side of a square with as many pixels."""
    return 1 << round(math.log2(math.sqrt(height * width)))


def num_halvings(height: int, width: int) -> int:
    """Returns how often an image is halved: as often as both sides are even and the smaller one stays large enough."""
    halvings = 0
    while math.gcd(height, width) % 2 ** (halvings + 1) == 0 and min(height, width) >= MIN_BASE << (halvings + 1):
        halvings += 1
    return halvings


def num_fastgan_downsamplings(halvings: int) -> int:
    """Returns how often FastGAN's discriminator halves an image that its generator doubles `halvings` times."""
    return halvings - 1 if halvings >= _SHORTENED_FROM else halvings


def check_divisible_by_four(architecture: str, height: int, width: int) -> None:
    """Checks that both sides of an image are divisible by 4, as an architecture needs it.

    Raises:
        ConfigError: If one is not.
    """
    if height % _UNIT or width % _UNIT:
        raise ConfigError(
            f"{architecture} needs images with sides divisible by {_UNIT} and got {height}×{width}; resize or crop the "
            "images."
        )
