"""Flags of `prepare` for images to leave out."""

import re

from absl import flags as absl_flags

from trainer.errors import ConfigError, quote

_MAX_ASPECT_RATIO = 65_536.0
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)%", re.ASCII)


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_integer(
        "max_bad_images",
        0,
        "Maximum number of unreadable images to skip, and of files without a partner in pairs of folders.",
        lower_bound=0,
        flag_values=values,
    )
    absl_flags.DEFINE_string(
        "max_bad",
        None,
        "Maximum share of unreadable images to skip, such as 0.1%. With --max_bad_images, the larger number applies.",
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "min_side",
        None,
        "Leave out images whose shorter side has fewer pixels. None: no limit.",
        lower_bound=1,
        flag_values=values,
    )
    absl_flags.DEFINE_float(
        "max_aspect_ratio",
        None,
        "Leave out images whose longer side is more than this number of times the shorter one. None: no limit.",
        lower_bound=1.0,
        upper_bound=_MAX_ASPECT_RATIO,
        flag_values=values,
    )
    absl_flags.DEFINE_bool(
        "drop_duplicates",
        False,
        "Of several images with the same content, use only the first one. This reads the images of equal size twice.",
        flag_values=values,
    )


def parse_share(text: str | None) -> float:
    """Returns the share in [0, 1] that a percentage states; 0 without one.

    Raises:
        ConfigError: If the text is not a percentage from 0% to 100%.
    """
    if text is None:
        return 0.0
    match = _PERCENT.fullmatch(text.strip())
    if match is None or float(match[1]) > 100:
        raise ConfigError(
            f"max_bad={quote(text)} is not a percentage from 0% to 100%, such as 0.1%; for a number of images, use "
            "--max_bad_images."
        )
    return float(match[1]) / 100
