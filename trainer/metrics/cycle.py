"""The metric suite `cycle` for translation between two domains: the error after translating there and back.

Shapes: `N` images of each domain, `H W C` height, width and channels.
"""

from typing import Any

import numpy as np

from trainer.metrics.suite import Suite, as_pixels


class CycleMetrics(Suite):
    """The cycle error of the images of each domain."""

    def __init__(self, images_a: np.ndarray, images_b: np.ndarray) -> None:
        """Initializes the suite.

        Args:
            images_a: Images of domain A, uint8 [N, H, W, C].
            images_b: Images of domain B, uint8 [N, H, W, C].

        Raises:
            DataError: If images have another type or shape.
        """
        self._images = {"a": as_pixels(images_a, "images_a"), "b": as_pixels(images_b, "images_b")}

    def measure(self, model: Any) -> dict[str, float]:
        """Translates the images to the other domain and back, and compares them with the originals.

        Args:
            model: Model that translates images, such as `trainer.models.CycleGAN`.

        Returns:
            `cycle_error_a` (A to B to A), `cycle_error_b`, and their mean `cycle_error`: mean absolute differences of
            pixel values as fractions of their range, in [0, 1]; best: 0.
        """
        errors = {
            domain: _error(images, model.translate(model.translate(images, other), domain))
            for (domain, images), other in zip(self._images.items(), ("b", "a"), strict=True)
        }
        metrics = {f"cycle_error_{domain}": value for domain, value in errors.items()}
        return metrics | {"cycle_error": sum(errors.values()) / len(errors)}

    def real_vs_real(self) -> dict[str, float]:
        """Returns zeros, because a perfect translation has no error."""
        return {"cycle_error_a": 0.0, "cycle_error_b": 0.0, "cycle_error": 0.0}


def _error(images: np.ndarray, translated: np.ndarray) -> float:
    return float(np.abs(images.astype(np.float32) - translated).mean() / 255.0)
