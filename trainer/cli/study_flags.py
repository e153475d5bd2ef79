"""Flags of `submit` and `local` for the number of trials of a study."""

from absl import flags as absl_flags

_FLAGS = (
    ("max_trials", "maxTrialCount", "of trials"),
    ("parallel_trials", "parallelTrialCount", "of trials at the same time"),
)


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    for name, key, noun in _FLAGS:
        text = f"Number {noun} of a study. None: {key} of the file."
        absl_flags.DEFINE_integer(name, None, text, lower_bound=1, flag_values=values)


def parse(values: absl_flags.FlagValues) -> dict[str, int | None]:
    """Returns the values of the flags by their keys in a job file, for `Overrides.study`."""
    return {key: values[name].value for name, key, _ in _FLAGS}
