"""Closed walks through latent space, in which every frame differs from the next one by about as much.

Shapes: `N` frames, `S` samples that the walk visits, `M` measured points, `Z` latent size, `K` classes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from trainer.config.choices import LatentDistribution
from trainer.models import GAN, ConditionalGAN, StyleGAN2
from trainer.sampling.samples import Samples, image_blocks

_NUM_MEASUREMENTS = 2
_POINTS_PER_SAMPLE = 16
_MIN_SHARE = 0.05
"""Share of the mean speed that every part of the path has at least, so that parts of equal images take some time."""


@dataclass(frozen=True, eq=False)
class LatentPath:
    """A closed path through samples: at position `i` it is at sample `i`, and at position `S` again at sample 0.

    Attributes:
        gan: Model.
        latents: Latents of the samples, float32 [S, Z].
        labels: Classes of the samples, int32 [S]; None if the model has no classes.
    """

    gan: GAN
    latents: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.latents)

    def images(self, positions: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the images at positions float [N] in [0, S), in blocks."""
        first = np.floor(positions).astype(int) % len(self)
        second, share = (first + 1) % len(self), (positions - np.floor(positions))[:, np.newaxis]
        latents = interpolate(self.gan, self.latents[first], self.latents[second], share)
        yield from image_blocks(self.gan, latents, self._labels(first, second, share))

    def _labels(self, first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray | None:
        """Returns labels int32 [N], or weights of classes float32 [N, K] if the class changes on the path."""
        if self.labels is None or (self.labels == self.labels[0]).all():
            return None if self.labels is None else self.labels[first]
        return interpolate_labels(self.gan, self.labels[first], self.labels[second], share)


def path_through(gan: GAN, samples: Samples) -> LatentPath:
    """Returns the closed path through samples in their order."""
    return LatentPath(gan, samples.latents(gan), samples.labels)


def interpolate(gan: GAN, first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Returns latents float32 [N, Z] between two sets of them: normal ones on the arc, others on the straight line.

    Args:
        gan: Model.
        first: Latents [N, Z] at share 0.
        second: Latents [N, Z] at share 1.
        share: Shares [N, 1] in [0, 1].
    """
    own_size = gan.latent_dim if gan.latent_distribution == LatentDistribution.NORMAL else 0
    (first_own, first_others), (second_own, second_others) = (
        np.split(latents, [own_size], axis=1) for latents in (first, second)
    )
    linear = first_others * (1.0 - share) + second_others * share
    return np.concatenate([slerp(first_own, second_own, share), linear], axis=1).astype(np.float32)


def interpolate_labels(gan: GAN, first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Returns labels between two sets of them, each int32 [N] or weights of classes float32 [N, K].

    Args:
        gan: Conditional model.
        first: Labels at share 0.
        second: Labels at share 1.
        share: Shares [N, 1] in [0, 1].

    Returns:
        Weights float32 [N, K]. A model with its own `generate`, which may take no weights, gets the nearer labels.
    """
    has_own_generate = type(gan).generate not in (ConditionalGAN.generate, StyleGAN2.generate)
    if has_own_generate and first.ndim == second.ndim == 1:
        return np.where(share[:, 0] < 0.5, first, second).astype(np.int32)
    weights = [labels if labels.ndim == 2 else gan.vectors_of(labels) for labels in (first, second)]
    if has_own_generate:
        return np.where(share < 0.5, *weights).astype(np.float32)
    return (weights[0] * (1.0 - share) + weights[1] * share).astype(np.float32)


def slerp(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Interpolates vectors along the arc between their directions; their lengths are interpolated linearly.

    Args:
        first: Vectors [N, Z] at share 0.
        second: Vectors [N, Z] at share 1.
        share: Shares [N, 1] in [0, 1].
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = [np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (first, second)]
    units = [vectors / np.maximum(length, 1e-12) for vectors, length in zip((first, second), lengths, strict=True)]
    angle = np.arccos(np.clip(np.sum(units[0] * units[1], axis=1, keepdims=True), -1.0, 1.0))
    sine = np.sin(angle)
    is_straight = sine < 1e-6  # the same direction, or no direction
    weights = np.where(
        is_straight,
        [1.0 - share, share],
        np.sin([(1.0 - share) * angle, share * angle]) / np.where(is_straight, 1.0, sine),
    )
    direction = weights[0] * units[0] + weights[1] * units[1]
    return direction * (lengths[0] * (1.0 - share) + lengths[1] * share)


def frame_positions(
    images_at: Callable[[np.ndarray], Iterator[np.ndarray]], num_samples: int, num_frames: int
) -> np.ndarray:
    """Returns the positions of frames on a closed path, at equal distances in pixels.

    Latents that move at a constant speed give pictures that sometimes stand still and sometimes jump, so the pictures
    are measured and the positions corrected.

    Args:
        images_at: Function that yields the images at positions, uint8 [B, H, W, C], in blocks.
        num_samples: Number of samples on the path, S.
        num_frames: Number of frames, N.

    Returns:
        Ascending positions float [N] in [0, S), the first one 0.
    """
    positions = np.arange(num_points(num_samples, num_frames)) * (num_samples / num_points(num_samples, num_frames))
    for measurement in range(1, _NUM_MEASUREMENTS + 1):
        distances = _closed_distances(images_at(positions))
        distances = np.maximum(distances, _MIN_SHARE * distances.mean()) if distances.any() else distances + 1.0
        travelled = np.concatenate([[0.0], np.cumsum(distances)])
        count = num_frames if measurement == _NUM_MEASUREMENTS else len(positions)
        goals = np.arange(count) * (travelled[-1] / count)
        positions = np.interp(goals, travelled, [*positions, num_samples])
    return positions


def num_points(num_samples: int, num_frames: int) -> int:
    """Returns the number of points at which a path is measured, M."""
    return max(num_frames, _POINTS_PER_SAMPLE * num_samples)


def num_images(num_samples: int, num_frames: int) -> int:
    """Returns the number of images that a walk takes, measurements included."""
    return _NUM_MEASUREMENTS * num_points(num_samples, num_frames) + num_frames


def _closed_distances(blocks: Iterator[np.ndarray]) -> np.ndarray:
    """Returns the mean absolute difference of each image from the next one, and of the last one from the first."""
    images = (image for block in blocks for image in block.astype(np.int16))
    distances: list[float] = []
    first = previous = next(images)
    for image in images:
        distances.append(float(np.abs(image - previous).mean()))
        previous = image
    return np.array([*distances, float(np.abs(first - previous).mean())])
