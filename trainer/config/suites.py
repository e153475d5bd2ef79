"""The registry of metric suites: what a run needs to know of each before its class is imported."""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from trainer.config.choices import MetricSuite
from trainer.errors import ConfigError
from trainer.registry import Registry

Goal = Literal["MINIMIZE", "MAXIMIZE"]
_SuiteClass = TypeVar("_SuiteClass", bound=type)
_MANIFOLD = ("precision", "recall", "density", "coverage")


class MeasuredImages(enum.Enum):
    """Images of a model that a suite measures, with their description in messages."""

    GENERATED = "images generated from latents"
    TRANSLATED = "images translated there and back"
    PAIRED = "outputs of pairs"


@dataclass(frozen=True, kw_only=True)
class SuiteEntry:
    """Entry of the registry."""

    suite: str | type
    """Subclass of `trainer.metrics.suite.Suite`, or `MODULE.CLASS` of one that is imported on first use."""
    monitor: str
    """Metric that selects the best checkpoint, without the protocol in its name; smaller is better."""
    minimized: tuple[str, ...]
    """Metrics whose smallest value is the best, without the protocol in their names."""
    maximized: tuple[str, ...] = ()
    """Metrics whose greatest value is the best. A model reports the accuracy that fits its labels, or none."""
    measures: MeasuredImages = MeasuredImages.GENERATED
    """Kind of images that the suite measures."""
    num_samples: int | None = None
    """Default number of fake images. None: the suite generates no images, and its metrics name no protocol."""
    num_samples_on_gpu: int | None = None
    """Default number of fake images on machines with a GPU. None: `num_samples`."""
    num_real_images: int | None = None
    """Largest number of real images of a domain that the suite receives. None: as many as there are fake images."""
    min_images: int = 1
    """Smallest number of real images."""
    has_extractor: bool = False
    """True if the class takes an extractor, which `trainer.metrics.get_extractor` returns."""

    @property
    def goals(self) -> Mapping[str, Goal]:
        """The goal of each metric that the suite reports, by the metric's name without the protocol."""
        goals: dict[str, Goal] = dict.fromkeys(self.minimized, "MINIMIZE")
        return goals | dict.fromkeys(self.maximized, "MAXIMIZE")

    def default_num_samples(self, *, has_gpu: bool) -> int | None:
        """Returns the default number of fake images on this kind of machine; None if the suite generates none."""
        return self.num_samples_on_gpu or self.num_samples if has_gpu else self.num_samples


SUITES: Registry[SuiteEntry] = Registry("metric suite")
"""Entries by the name that `--metrics` accepts, besides `auto` and `none`."""


def register_suite(
    name: str,
    *,
    monitor: str,
    minimized: tuple[str, ...] = (),
    maximized: tuple[str, ...] = (),
    measures: MeasuredImages = MeasuredImages.GENERATED,
    num_samples: int | None = None,
    num_real_images: int | None = None,
) -> Callable[[_SuiteClass], _SuiteClass]:
    """Registers a subclass of `trainer.metrics.suite.Suite` under a name that `--metrics` accepts.

    The class is called with the real images of each domain, uint8 [N, H, W, C], and then with the number of fake
    images if the suite has one.

    Args:
        name: Name of the suite.
        monitor: Metric that selects the best checkpoint, one of `minimized`.
        minimized: Metrics whose smallest value is the best.
        maximized: Metrics whose greatest value is the best.
        measures: Kind of images that the suite measures.
        num_samples: Default number of fake images; the names of the metrics then end in the protocol, as
            `trainer.metrics.protocol_of` returns it. None: the suite generates no images.
        num_real_images: Largest number of real images of a domain. None: as many as there are fake images.

    Raises:
        ConfigError: If `monitor` is not one of `minimized`, both numbers are None, or the name is that of a suite of
            this package, `auto`, or `none`.
    """
    if name in (MetricSuite.AUTO, MetricSuite.NONE):
        raise ConfigError(f"metrics={name} has another meaning; register the metric suite under another name.")
    if monitor not in minimized:
        raise ConfigError(f"monitor={monitor} of metric suite {name} is not in minimized={minimized}; add it.")
    if num_samples is None and num_real_images is None:
        raise ConfigError(f"metric suite {name} has neither num_samples nor num_real_images; give at least one.")

    def register(suite: _SuiteClass) -> _SuiteClass:
        entry = SuiteEntry(
            suite=suite,
            monitor=monitor,
            minimized=minimized,
            maximized=maximized,
            measures=measures,
            num_samples=num_samples,
            num_real_images=num_real_images,
        )
        SUITES.add(name, entry, source=suite)
        return suite

    return register


def describe_default_numbers() -> str:
    """Returns the default numbers of fake images of all suites, for the help of a setting."""
    entries = {name: SUITES[name] for name in SUITES.names()}
    return "; ".join(
        f"{entry.num_samples:,} for {name}"
        + (f" ({entry.num_samples_on_gpu:,} with a GPU)" if entry.num_samples_on_gpu else "")
        for name, entry in entries.items()
        if entry.num_samples
    )


def _add_built_in(name: str, suite: str, **fields: Any) -> None:
    SUITES.add(name, SuiteEntry(suite=f"trainer.metrics.{suite}", **fields))


_add_built_in(
    "digits",
    "digits.DigitsMetrics",
    monitor="frechet",
    minimized=("frechet", "kid"),
    maximized=(*_MANIFOLD, "conditional_accuracy", "code_accuracy"),
    num_samples=5000,
    min_images=12,
)
_add_built_in(
    "stacked",
    "stacked.StackedMetrics",
    monitor="kl",
    minimized=("frechet", "kl"),
    maximized=("num_modes", "conditional_accuracy"),
    num_samples=26_000,
    num_real_images=128_000,  # trainer.data.stacked.NUM_IMAGES
    min_images=4,
)
_add_built_in(
    "cycle",
    "cycle.CycleMetrics",
    monitor="cycle_error",
    minimized=("cycle_error", "cycle_error_a", "cycle_error_b"),
    measures=MeasuredImages.TRANSLATED,
    num_real_images=500,
)
_add_built_in(
    "paired",
    "paired.PairedMetrics",
    monitor="paired_l1",
    minimized=("paired_l1",),
    maximized=("paired_psnr", "paired_ssim"),
    measures=MeasuredImages.PAIRED,
    num_real_images=500,
)
_add_built_in(
    "inception",
    "image_metrics.ImageMetrics",
    monitor="fid",
    minimized=("fid", "kid"),
    maximized=(*_MANIFOLD, "inception_score"),
    num_samples=5000,
    num_samples_on_gpu=50_000,
    min_images=12,
    has_extractor=True,
)
_add_built_in(
    "photos",
    "image_metrics.ImageMetrics",
    monitor="frechet",
    minimized=("frechet", "kid"),
    maximized=(*_MANIFOLD, "inception_score"),
    num_samples=5000,
    min_images=12,
    has_extractor=True,
)
