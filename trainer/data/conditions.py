"""Conditions: a vector of numbers for each image, such as several labels of 0 and 1, or measured quantities.

A dataset with conditions has a class for each different vector, whose name is the vector as text, such as `1,0,0.25`.
Shapes: `M` different vectors, `K` conditions.
"""

import contextlib
from collections.abc import Sequence

import numpy as np

from trainer.errors import DataError, count_of, quote


def vector_text(values: Sequence[float]) -> str:
    """Returns the text of a vector, which has all digits of float32."""
    return ",".join(format(float(np.float32(value)) + 0.0, ".9g") for value in values)


def parse_vector(text: str, names: Sequence[str], origin: str) -> tuple[float, ...]:
    """Returns the numbers in the text of a vector.

    Args:
        text: Numbers, separated by commas.
        names: Names of the conditions.
        origin: Setting or file that the text is from, for messages.

    Raises:
        DataError: If there is not one finite number for each condition.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    with np.errstate(over="ignore"):  # too large values become infinite
        is_finite = np.isfinite(np.array(values, np.float32)).all()
    if len(values) != len(names) or not is_finite:
        raise DataError(
            f"{origin} has {quote(text)}, expected {count_of(len(names), 'number')} separated by commas, for "
            f"{', '.join(map(quote, names))}; correct it."
        )
    return values


def vectors_of(class_names: Sequence[str], names: Sequence[str], origin: str) -> np.ndarray:
    """Returns the vectors of the classes of a dataset with conditions: float32 [M, K].

    Raises:
        DataError: If the name of a class is not a vector.
    """
    if all(name.count(",") == len(names) - 1 for name in class_names):
        with contextlib.suppress(ValueError), np.errstate(over="ignore"):
            vectors = np.array([float(part) for part in ",".join(class_names).split(",")], np.float32)
            if np.isfinite(vectors).all():
                return vectors.reshape(-1, len(names))
    return np.array([parse_vector(name, names, origin) for name in class_names], np.float32)  # raises the error
