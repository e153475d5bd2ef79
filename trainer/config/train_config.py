"""`TrainConfig`: the settings of a run with their methods."""

import dataclasses
import hashlib
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.config.choices import EmaSchedule, LearningRateDecay, MetricSuite, StrategyName, TrackerName
from trainer.config.dataset_names import DatasetPrefix, split_prefix
from trainer.config.fields import check, check_choice, plain
from trainer.config.settings import Settings
from trainer.config.web_address import check_web_address
from trainer.errors import ConfigError, count_of, quote
from trainer.storage import without_mount

_IN_STEPS_OR_EPOCHS = (
    ("steps", "epochs"),
    ("sample_every_steps", "sample_every_epochs"),
    ("checkpoint_every_steps", "checkpoint_every_epochs"),
)
"""Pairs of settings that state the same number in steps and in epochs."""
PAIRED_MODEL = "pix2pix"
"""Name of the model for which `metrics=auto` chooses the suite for pairs. A model of your own names the suite."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """All settings of a run. A recipe is a function that returns a `TrainConfig`."""

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            value = plain(getattr(self, spec.name))
            object.__setattr__(self, spec.name, value)
            check(spec, value)
        for name in self.track:
            check_choice("track", name, TrackerName.values())
        if self.inception_weights is not None:
            check_web_address("inception_weights", self.inception_weights)

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that must stay the same when a run resumes."""
        values = self.to_dict()
        return {spec.name: values[spec.name] for spec in dataclasses.fields(self) if not spec.metadata["resumable"]}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `identity`, in hexadecimal."""
        return self.fingerprint_of(self.identity)

    def fingerprint_of(self, names: Container[str]) -> str:
        """Returns the SHA-256 of some settings of `identity`, in hexadecimal: of those that an earlier version had."""
        values = {name: value for name, value in self.identity.items() if name in names}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def class_numbers(self) -> tuple[int, ...] | None:
        """The selected classes as numbers, or None for all classes.

        Raises:
            ConfigError: If a class is given by its name. `trainer.data.class_selection` replaces names with numbers.
        """
        if self.classes is None:
            return None
        numbers = tuple(label for label in self.classes if isinstance(label, int))
        if len(numbers) != len(self.classes):
            raise ConfigError(f"classes={','.join(map(str, self.classes))} has names; give the numbers of the classes.")
        return numbers

    @property
    def suite(self) -> str:
        """Name of the metric suite that the settings choose; may be `none`. `auto` on one machine also depends on it:
        see `trainer.training.complete_config.with_machine_settings`.
        """
        if self.metrics != MetricSuite.AUTO:
            return self.metrics
        prefix, source = split_prefix(self.dataset)
        if self.model == PAIRED_MODEL:
            suite = MetricSuite.PAIRED
        elif self.dataset_b is not None:
            suite = MetricSuite.CYCLE
        elif prefix == DatasetPrefix.STACKED:
            suite = MetricSuite.STACKED
        elif prefix in (None, DatasetPrefix.TINTED) and source in ("digits", "mnist"):
            suite = MetricSuite.DIGITS
        elif self.inception_weights is not None:
            suite = MetricSuite.INCEPTION
        else:
            suite = MetricSuite.PHOTOS
        return suite.value

    @property
    def has_metrics(self) -> bool:
        """True if the run evaluates a metric suite."""
        return self.suite != MetricSuite.NONE

    @property
    def num_virtual_replicas(self) -> int:
        """Number of virtual devices of a machine that share the batch."""
        return 1 if self.strategy == StrategyName.ONE_DEVICE else self.num_virtual_devices

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as plain JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def to_json(self) -> str:
        """Returns the config as indented JSON with one setting per line."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Returns the config that `to_dict` converted.

        Raises:
            ConfigError: If a name is not a setting, or a value is out of range.
        """
        unknown = sorted(set(values) - {spec.name for spec in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(
                f"{quote(unknown[0])} is not a setting of this version; use the version that wrote the config."
            )
        arguments: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**arguments)

    def override(self, **changes: Any) -> "TrainConfig":
        """Returns a copy with other values.

        A new value in steps removes the one in epochs. A new value of `epochs` removes that of `steps`; `resolve`
        replaces the other numbers of steps.

        Raises:
            ConfigError: If a value is out of range, or a number is given both in steps and in epochs.
        """
        for in_steps, in_epochs in _IN_STEPS_OR_EPOCHS:
            steps, epochs = changes.get(in_steps), changes.get(in_epochs)
            if steps is not None and epochs is not None:
                raise ConfigError(f"{in_steps}={steps} and {in_epochs}={epochs:g} set the same number; give one.")
            if steps is not None:
                changes[in_epochs] = None
        if changes.get("epochs") is not None:
            changes["steps"] = None
        return dataclasses.replace(self, **changes)

    def without_mounts(self) -> "TrainConfig":
        """Returns a copy that names each bucket with `gs://`, not by the folder `/gcs`, where Vertex AI mounts it."""
        paths = {spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self) if spec.metadata["is_path"]}
        changes: dict[str, Any] = {name: without_mount(path) for name, path in paths.items() if path is not None}
        return dataclasses.replace(self, **changes)

    def resolve(self, num_examples: int, num_replicas: int = 1) -> "TrainConfig":
        """Returns a copy whose open settings are filled in for a dataset.

        Args:
            num_examples: Number of images in an epoch.
            num_replicas: Number of replicas that share the batch.

        Raises:
            ConfigError: If the batch is larger than the dataset or is not divisible by the replicas, or if neither
                `steps` nor `epochs` is set.
        """
        check_batch(self.global_batch_size, num_examples, num_replicas)
        check_micro_batches(self.global_batch_size, self.accumulate_steps, num_replicas)
        steps_per_epoch = num_examples // self.global_batch_size
        steps = self.steps
        if steps is None:
            if self.epochs is None:
                raise ConfigError("neither steps nor epochs is set; set the length of the run, such as --steps=1000.")
            steps = max(1, round(self.epochs * steps_per_epoch))
        values: dict[str, Any] = {"steps": steps}
        values["job_dir"] = self.job_dir or f"runs/{self.recipe.rpartition(':')[2]}"
        if self.has_schedule and self.schedule_images is None:
            values["schedule_images"] = steps * self.global_batch_size
        for action in ("sample", "checkpoint"):
            every_epochs = getattr(self, f"{action}_every_epochs")
            if every_epochs is not None:
                every_steps = max(1, round(every_epochs * steps_per_epoch)) if every_epochs else 0
                values[f"{action}_every_steps"] = every_steps
        return dataclasses.replace(self, **values)

    @property
    def has_schedule(self) -> bool:
        """True if a setting changes during the run, until `schedule_images`."""
        ends = (self.beta_2_end, self.penalty_weight_end, self.augment_probability_end)
        return (
            self.learning_rate_decay != LearningRateDecay.NONE
            or self.ema_schedule == EmaSchedule.COSINE
            or any(end is not None for end in ends)
        )


def check_batch(global_batch_size: int, num_examples: int, num_replicas: int, name: str = "global_batch_size") -> None:
    """Checks that the dataset fills a batch and that the replicas can share it.

    Args:
        global_batch_size: Number of images in a batch of all replicas.
        num_examples: Number of images in an epoch.
        num_replicas: Number of replicas.
        name: Name of the setting or argument, for the message.

    Raises:
        ConfigError: If the batch is larger than the dataset, or is not divisible by the number of replicas.
    """
    if global_batch_size > num_examples:
        raise ConfigError(
            f"{name}={global_batch_size} exceeds the {count_of(num_examples, 'image')} of the dataset; give at most "
            f"{num_examples}."
        )
    check_divisible(global_batch_size, num_replicas, name)


def check_micro_batches(
    global_batch_size: int, accumulate_steps: int, num_replicas: int, name: str = "global_batch_size"
) -> None:
    """Checks that each replica can divide its part of a batch, which `check_batch` accepts, into equal micro-batches.

    Raises:
        ConfigError: If it cannot. The message suggests sizes.
    """
    unit = accumulate_steps * num_replicas
    if global_batch_size % unit:
        lower = global_batch_size // unit * unit
        sizes = [str(size) for size in (lower, lower + unit) if size]
        raise ConfigError(
            f"accumulate_steps={accumulate_steps} does not divide {name}={global_batch_size} of "
            f"{count_of(num_replicas, 'replica')} into equal micro-batches; give a {name} of {' or '.join(sizes)}, or "
            "another accumulate_steps."
        )


def check_divisible(global_batch_size: int, num_replicas: int, name: str = "global_batch_size") -> None:
    """Checks that the replicas can share a batch equally. The arguments are those of `check_batch`.

    Raises:
        ConfigError: If the batch is not divisible by the number of replicas. The message suggests sizes.
    """
    if global_batch_size % num_replicas:
        lower = global_batch_size // num_replicas * num_replicas
        sizes = [str(size) for size in (lower, lower + num_replicas) if size]
        raise ConfigError(
            f"{name}={global_batch_size} is not divisible by {count_of(num_replicas, 'replica')}; try "
            f"{' or '.join(sizes)}."
        )
