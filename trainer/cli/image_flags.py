"""Flags for the size of images, which several commands have."""

import re

from absl import flags as absl_flags

from trainer.data.prepare.pixels import RESIZES
from trainer.errors import ConfigError, quote


def define_image_size(values: absl_flags.FlagValues, default: str) -> None:
    """Defines `--image_size`.

    Args:
        values: Flags of the command.
        default: Sentence about the default, which is None.
    """
    absl_flags.DEFINE_list(
        "image_size",
        None,
        f"Height and width of the images in pixels, as H,W, or one number for both. {default}",
        flag_values=values,
    )


def define_resize(values: absl_flags.FlagValues, default: str | None, meaning: str = "") -> None:
    """Defines `--resize`.

    Args:
        values: Flags of the command.
        default: Default method.
        meaning: Sentence about the default, if it is None.
    """
    absl_flags.DEFINE_enum(
        "resize",
        default,
        RESIZES,
        "Method to reach image_size. crop: scale to cover it, then crop the center. fit: scale to fit, on a black "
        f"background. stretch: scale height and width independently. none: refuse images of another size. {meaning}",
        flag_values=values,
    )


def parse_image_size(parts: list[str] | None) -> tuple[int, int] | None:
    """Returns the height and width that `--image_size` states.

    Raises:
        ConfigError: If it is neither one nor two whole numbers.
    """
    if parts is None:
        return None
    sizes = [int(part) for part in parts if re.fullmatch(r"\s*\d{1,9}\s*", part)]
    if len(sizes) != len(parts) or len(sizes) not in (1, 2):
        raise ConfigError(f"image_size={quote(','.join(parts))} is not a size; give --image_size=H,W, such as 64,64.")
    return sizes[0], sizes[-1]
