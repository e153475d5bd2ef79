"""Flags for the size and the pixels of images, most of which several commands have."""

import re

from absl import flags as absl_flags

from trainer.data.image_encodings import DEFAULT_QUALITY, ENCODINGS, PNG
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
        "Method to reach image_size. crop: scale to cover it, then crop the center. fit: scale to fit, on black, or "
        "transparent with --channels=4. stretch: scale height and width independently. none: refuse images of another "
        f"size. {meaning}",
        flag_values=values,
    )


def define_bits(values: absl_flags.FlagValues) -> None:
    """Defines `--bits`."""
    absl_flags.DEFINE_integer(
        "bits",
        None,
        "Number of bits that the pixel values use, if fewer than the files have: 12 for 16-bit files with values up to "
        "4,095, 1 for masks of 0 and 1. None: all bits.",
        lower_bound=1,
        upper_bound=16,
        flag_values=values,
    )


def define_encoding(values: absl_flags.FlagValues) -> None:
    """Defines `--encoding` and `--quality`."""
    absl_flags.DEFINE_enum(
        "encoding",
        PNG,
        list(ENCODINGS),
        "Encoding of the images in the dataset. png loses nothing; jpeg and webp need less space.",
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "quality",
        None,
        f"Quality of jpeg and webp, from 1 to 100. None: {DEFAULT_QUALITY}.",
        lower_bound=1,
        upper_bound=100,
        flag_values=values,
    )


def check_resize(values: absl_flags.FlagValues) -> None:
    """Checks that `--resize` has a size to reach.

    Raises:
        ConfigError: If it asks for a method without `--image_size`.
    """
    if values["resize"].present and values.resize != "none" and values.image_size is None:
        raise ConfigError(f"--resize={values.resize} needs the size of the images; pass --image_size=H,W too.")


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
