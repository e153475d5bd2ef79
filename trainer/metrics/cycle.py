"""The metrics of a translation between two domains: how well an image survives the way there and back.

Shapes: `N` images of each domain, `H W C` height, width and channels.
"""

from typing import Protocol

import numpy as np

NUM_IMAGES = 500


class Translator(Protocol):
    """A model that translates, such as `trainer.models.CycleGAN`."""

    def translate(self, images: np.ndarray, domain: str) -> np.ndarray:
        """Returns images uint8 [N, H, W, C] as images of `domain`, `a` or `b`."""
        ...


class CycleMetrics:
    """The cycle error of the first 500 images of each domain."""

    def __init__(self, images_a: np.ndarray, images_b: np.ndarray) -> None:
        """Takes images uint8 [N, H, W, C] of both domains."""
        self._images = {"a": np.asarray(images_a)[:NUM_IMAGES], "b": np.asarray(images_b)[:NUM_IMAGES]}

    def measure(self, model: Translator) -> dict[str, float]:
        """Translates there and back.

        Returns:
            `cycle_error_a` (A to B to A), `cycle_error_b`, and their mean `cycle_error`: mean absolute differences of
            pixels, as shares of their range, in [0, 1]; best: 0.
        """
        errors = {
            domain: _error(images, model.translate(model.translate(images, other), domain))
            for (domain, images), other in zip(self._images.items(), ("b", "a"), strict=True)
        }
        named = {f"cycle_error_{domain}": value for domain, value in errors.items()}
        return named | {"cycle_error": sum(errors.values()) / len(errors)}

    def real_vs_real(self) -> dict[str, float]:
        """A perfect translation has no error."""
        return {"cycle_error_a": 0.0, "cycle_error_b": 0.0, "cycle_error": 0.0}


def _error(images: np.ndarray, others: np.ndarray) -> float:
    return float(np.abs(images.astype(np.float32) - others).mean() / 255.0)
