"""Names that columns, arrays, features and keys with images, paths and labels usually have."""

from collections.abc import Iterable, Sequence

IMAGE_NAMES = ("image", "images", "img", "imgs", "x")
"""Usual names of images."""
PATH_NAMES = ("path", "file_name", "file", "filename", "image", "image_id")
"""Usual names of the paths of images in a table, the preferred ones first."""
LABEL_NAMES = ("label", "labels", "class", "class_name", "target", "targets", "y")
"""Usual names of labels, the most specific ones first."""


def find_names(wanted: Sequence[str], names: Iterable[str]) -> list[str]:
    """Returns all names of columns that are among the wanted ones, whatever their case and the spaces around them."""
    return [name for name in names if find_name(wanted, [name]) is not None]


def find_name(wanted: Sequence[str], names: Iterable[str]) -> str | None:
    """Returns the name of a column that is one of the wanted ones, whatever its case and the spaces around it.

    Args:
        wanted: Wanted names, the preferred ones first.
        names: Names of all columns.

    Returns:
        The name as it is among `names`, of equal ones the first; None if there is none.
    """
    spellings: dict[str, str] = {}
    for name in names:
        spellings.setdefault(name.strip().lower(), name)
    return next((spellings[key] for name in wanted if (key := name.strip().lower()) in spellings), None)
