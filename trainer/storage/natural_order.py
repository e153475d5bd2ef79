"""Natural order of names: `trial_2` before `trial_10`."""

import re

_NUMBER = re.compile(r"(\d+)")


def natural_sort_key(name: str) -> tuple[tuple[int, str] | str, ...]:
    """Returns a sort key that puts 9 before 10, and numbers before words. Names such as 1 and 01 have equal keys."""
    parts = _NUMBER.split(f"{name}\0")  # the end counts as a letter, so that numbers come before it
    return tuple(_number_key(part) if index % 2 else part for index, part in enumerate(parts))


def _number_key(digits: str) -> tuple[int, str]:
    """Returns a sort key that orders decimal digits by their value; int() rejects thousands of digits."""
    if not digits.isascii():
        digits = "".join(str(int(digit)) for digit in digits)
    significant = digits.lstrip("0")
    return len(significant), significant
