"""Facts about data and devices that a recipe may depend on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trainer.config.choices import Size
from trainer.config.image_sizes import nearest_power_of_two

Value = TypeVar("Value")

_MEDIUM_GIB, _LARGE_GIB = 14, 36
"""Smallest memory of a GPU for a size. GPUs sold with 16 and 40 GB state a little less."""
SMALL_RUN_IMAGES: Mapping[int, int] = {32: 1_000_000, 64: 400_000, 128: 100_000, 256: 25_000}
"""Images that a run of size small shows, by the side of an image; see `lookup`."""


@dataclass(frozen=True, kw_only=True)
class RecipeContext:
    """Facts about the dataset and the devices of a run, and the settings that its user gives.

    A recipe that takes a context calls `choose` for each setting that depends on a fact or on another setting. The
    dependent settings then follow the user's values, and the start of a run prints the reasons.
    """

    image_shape: tuple[int, int, int]
    """Height, width and channels of the images, including padding."""
    num_images: int
    """Number of images in an epoch."""
    num_classes: int = 1
    """Number of labels."""
    has_gpu: bool = False
    """True if the run uses GPUs."""
    device_memory_gib: float | None = None
    """Memory of the smallest GPU of this machine in GiB. None: unknown, or no GPU."""
    num_devices: int = 1
    """Number of devices on all machines, which share each batch."""
    size: str = Size.AUTO.value
    """Size of the networks and of the run; never `auto`, which is replaced by the size that fits the device."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that the user gives. They override those of the recipe."""
    reasons: dict[str, str] = field(default_factory=dict, compare=False)
    """Reasons for the values that `choose` returned, by setting."""

    def __post_init__(self) -> None:
        if self.size == Size.AUTO:
            size, reason = self._size_of_device()
            object.__setattr__(self, "size", size.value)
            self.reasons["size"] = reason

    def choose(self, name: str, value: Any, reason: str) -> Any:
        """Returns the value of a setting: the user's one, or else that of the recipe, whose reason is recorded.

        Args:
            name: Name of the setting.
            value: Value that the recipe chooses.
            reason: Reason for the value, without a period at its end.
        """
        if name in self.settings:
            return self.settings[name]
        self.reasons[name] = reason
        return value

    def keeps(self, name: str, value: Any) -> bool:
        """Returns whether a setting has the recipe's value, on which a choice depends: the user gives no other."""
        return self.settings.get(name, value) == value

    def choose_penalty_weight_end(self, weight: float) -> float:
        """Returns the penalty weight at the end of a run that begins with `weight`: a tenth of it, as in R3GAN."""
        return self.choose("penalty_weight_end", float(f"{weight / 10:.3g}"), "a tenth of penalty_weight")

    def choose_steps(self, batch: int, steps: int, reason: str) -> tuple[int | None, int]:
        """Returns the setting `steps`, and the number of steps of the run, at least 1.

        The setting is None if the user gives epochs, which then determine the number of steps.

        Args:
            batch: Number of images per step.
            steps: Number of steps that the recipe chooses.
            reason: Reason for the number, without a period at its end.
        """
        epochs = self.settings.get("epochs")
        if epochs is not None:
            return None, max(1, round(epochs * self.num_images / batch))
        setting = self.choose("steps", steps, reason)
        return setting, setting or 1

    def choose_intervals(self, steps: int, num_evaluations: int) -> dict[str, Any]:
        """Returns the intervals of evaluations, of twice as many sample grids and of four times as many checkpoints.

        Args:
            steps: Number of steps of the run.
            num_evaluations: Number of evaluations in the run.
        """
        counts = {
            "evaluate_every_steps": num_evaluations,
            "sample_every_steps": 2 * num_evaluations,
            "checkpoint_every_steps": 4 * num_evaluations,
        }
        return {
            name: self.choose(name, round_to_two_digits(steps / count), f"about {count} times")
            for name, count in counts.items()
        }

    @property
    def side(self) -> float:
        """Side of a square with as many pixels as an image."""
        height, width, _ = self.image_shape
        return math.sqrt(height * width)

    @property
    def resolution(self) -> int:
        """Power of two that is nearest to `side`."""
        return nearest_power_of_two(*self.image_shape[:2])

    def _size_of_device(self) -> tuple[Size, str]:
        memory = self.device_memory_gib
        if not self.has_gpu:
            return Size.SMALL, "no GPU"
        if memory is None:
            return Size.MEDIUM, "GPU of unknown memory"
        reason = f"GPU of {memory:.0f} GiB"
        if memory < _MEDIUM_GIB:
            return Size.SMALL, reason
        return (Size.MEDIUM if memory < _LARGE_GIB else Size.LARGE), reason


def lookup(table: Mapping[int, Value], side: float) -> Value:
    """Returns the value of the largest side in a table that is not above `side`, or else that of the smallest one."""
    return table[max((key for key in table if key <= side), default=min(table))]


def round_to_two_digits(number: float) -> int:
    """Returns a number of at least 1 whose digits after the first two are zeros."""
    return max(1, int(float(f"{number:.2g}")))
