"""Every class as often as any other: images of the smaller classes come several times an epoch.

Shapes: `N` images, `V` places of an epoch.
"""

from collections.abc import Sequence

import numpy as np


def balanced_order(labels: np.ndarray) -> np.ndarray:
    """The number of the image at each place, with as many places for each class: int32 [V].

    Within a class no image has more than one place more than another.

    Args:
        labels: Integers [N], N at least 1.
    """
    counts = np.bincount(labels)
    grouped = np.argsort(labels, kind="stable").astype(np.int32)
    classes = [group for group in np.split(grouped, np.cumsum(counts)[:-1]) if group.size]
    return np.concatenate([np.resize(group, counts.max()) for group in classes])


def balanced_size(class_counts: Sequence[int]) -> int:
    """V of a set with so many images of each class."""
    return max(class_counts) * sum(count > 0 for count in class_counts)
