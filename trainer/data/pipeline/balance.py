"""Class balancing: every class equally often, with repeated images of the smaller classes.

Shapes: `N` images, `V` positions in an epoch.
"""

from collections.abc import Sequence

import numpy as np


def balanced_order(labels: np.ndarray) -> np.ndarray:
    """Returns the index of the image at each position of a balanced epoch: int32 [V].

    Every class has the same number of positions. Within a class, the numbers of positions of two images differ by at
    most one.

    Args:
        labels: Integer labels [N], N at least 1.
    """
    counts = np.bincount(labels)
    grouped = np.argsort(labels, kind="stable").astype(np.int32)
    classes = [group for group in np.split(grouped, np.cumsum(counts)[:-1]) if group.size]
    return np.concatenate([np.resize(group, counts.max()) for group in classes])


def balanced_size(class_counts: Sequence[int]) -> int:
    """Returns the number of positions V of a balanced epoch, from the number of images of each class."""
    return max(class_counts) * sum(count > 0 for count in class_counts)
