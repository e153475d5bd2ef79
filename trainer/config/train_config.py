"""The single source of every setting: its default, range, unit and help. Command-line flags are derived from it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.config.fields import check, setting
from trainer.errors import ConfigError

SUITES = ("digits", "stacked", "cycle")
"""The suites of `trainer.metrics`, by name."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run. A recipe is a function that returns one."""

    recipe: str = setting("digits", "Name of the recipe that gives the defaults of every other setting.")
    job_dir: str | None = setting(None, "Run directory. None: runs/RECIPE under the current directory.", resumable=True)

    dataset: str = setting(
        "digits",
        "What to train on: digits (5,000 MNIST digits inside the package), mnist, fashion_mnist, cifar10, "
        "or a folder, local or gs://, that holds a prepared data set (dataset.json); after stacked:, inverted: or "
        "tinted:, three digits an image as RGB, negatives, or gray images in colors.",
    )
    dataset_b: str | None = setting(
        None, "The other domain of model=cyclegan, named as --dataset is. None: there is no other."
    )
    padding: int = setting(
        0,
        "Pixels added on every side: black ones, and white ones where a set is inverted. 2 makes 28x28 into 32x32.",
        minimum=0,
    )
    classes: tuple[int, ...] | None = setting(None, "Train on these classes alone, as in 0,3. None: all of them.")
    balance_classes: bool = setting(
        False, "Show every class as often as any other: images of smaller classes come several times an epoch."
    )
    horizontal_flips: bool = setting(False, "Mirror every other real image, at random, left to right.")
    data_memory_mib: float | None = setting(
        None,
        "Memory for decoded images, MiB. A larger prepared set is cut into windows, of which two are in memory at a "
        "time. None: a quarter of the machine's.",
        minimum=0.001,
        resumable=True,
    )
    num_chunks: int | None = setting(
        None,
        "Windows that a prepared set is cut into. None: as few as data_memory_mib allows; a run that is resumed keeps "
        "its own, on any machine.",
        minimum=1,
    )
    cache_mib: float = setting(
        10_240.0, "What shards of data sets in buckets may take on the local disk, MiB.", minimum=0.0, resumable=True
    )
    image_range: str = setting(
        "-1..1",
        "Range that 8-bit pixels are mapped to, and that the generator's output is read in.",
        choices=("-1..1", "0..1", "0..255"),
    )

    model: str = setting(
        "gan",
        "Which networks exist and which phases a step runs: gan, conditional, acgan, infogan or cyclegan, or the name "
        "of one of your own.",
    )
    model_options: Mapping[str, Any] = setting(
        {}, 'Options of the model as a JSON object, such as {"cycle_weight": 10}.'
    )
    architecture: str = setting("dcgan", "Name of the function that builds the networks for an image shape.")
    architecture_options: Mapping[str, Any] = setting(
        {}, 'Options of the architecture as a JSON object, such as {"discriminator_filters": [64, 128]}.'
    )
    latent_dim: int = setting(100, "Number of latent variables of the generator.", minimum=1)
    latent_distribution: str = setting(
        "normal", "Distribution of the latents: N(0, 1) or U[0, 1).", choices=("normal", "uniform")
    )

    loss: str = setting("non_saturating", "Name of the adversarial loss.")
    update_order: str = setting(
        "alternating",
        "alternating: the generator's phase meets the updated discriminator with fresh latents. "
        "simultaneous: both gradients come from one forward pass.",
        choices=("alternating", "simultaneous"),
    )
    discriminator_updates: str = setting(
        "together",
        "together: one update on real and fake images. separate: one on real, then one on fake images. "
        "concatenated: one on a single batch of both, which batch normalization then sees as one.",
        choices=("together", "separate", "concatenated"),
    )
    discriminator_repeats: int = setting(1, "Discriminator updates a step, each on images of its own.", minimum=1)
    optimizer: str = setting("adam", "Optimizer of both networks.", choices=("adam", "rmsprop"))
    generator_learning_rate: float = setting(2e-4, "Learning rate of the generator.", minimum=0.0)
    discriminator_learning_rate: float = setting(2e-4, "Learning rate of the discriminator.", minimum=0.0)
    learning_rate_decay: str = setting("none", "How the learning rates go down.", choices=("none", "linear", "cosine"))
    learning_rate_end: float = setting(
        0.0, "Learning rates at the end of their decay, as a share of those at the start.", minimum=0.0, maximum=1.0
    )
    learning_rate_decay_begin: float = setting(
        0.0, "Where the decay begins, as a share of schedule_images.", minimum=0.0, maximum=0.999
    )
    beta_1: float = setting(0.5, "Adam's decay of the first moment.", minimum=0.0, maximum=0.9999)
    beta_2: float = setting(0.999, "Adam's decay of the second moment.", minimum=0.0, maximum=0.999999)
    beta_2_end: float | None = setting(
        None, "beta_2 at the end of its cosine schedule. None: it stays.", minimum=0.0, maximum=0.999999
    )
    epsilon: float = setting(1e-7, "Adam's and RMSprop's epsilon.", minimum=0.0)
    schedule_images: int | None = setting(
        None, "Images seen at which every schedule of the run ends. None: those of the whole run.", minimum=1
    )
    penalties: tuple[str, ...] = setting(
        (), "Regularizers of the discriminator, as in r1,r2 or gradient_penalty. Empty: none."
    )
    penalty_weight: float = setting(10.0, "Weight of each penalty; gamma of r1 and r2.", minimum=0.0)
    penalty_weight_end: float | None = setting(
        None, "The penalties' weight at the end of its cosine schedule. None: it stays.", minimum=0.0
    )
    penalty_every_steps: int = setting(
        1,
        "Steps between two penalties. Of k steps, a penalty weighs k times as much, and the discriminator's learning "
        "rate and betas are corrected by k/(k+1).",
        minimum=1,
    )
    augment: str | None = setting(None, "Augmentation of what the discriminator sees: diffaugment or ada. None: none.")
    augment_probability: float | None = setting(
        1.0, "Probability of each transformation. None: adapted to how well D knows its images.", minimum=0, maximum=1
    )
    augment_probability_end: float | None = setting(
        None, "The probability at the end of its cosine schedule. None: it stays.", minimum=0.0, maximum=1.0
    )
    ema_half_life_images: float = setting(
        0.0,
        "Half-life, in images seen, of the moving average of the generator that samples, metrics and exports use. "
        "0: no average, the generator itself.",
        minimum=0.0,
    )
    ema_schedule: str = setting(
        "early",
        "How the average's half-life grows. early: a twentieth of the images seen, up to its value. cosine: from 0 at "
        "the start to its value at schedule_images.",
        choices=("early", "cosine"),
    )

    global_batch_size: int = setting(64, "Real images a phase sees, over all replicas.", minimum=1)
    steps: int | None = setting(
        None, "Generator updates in all. None: as many as --epochs asks for.", minimum=1, resumable=True
    )
    epochs: float | None = setting(
        None, "Passes over the data in all. None: as many as --steps asks for.", minimum=0.0, resumable=True
    )
    seed: int = setting(0, "Decides weights, data order, latents and dropout.", minimum=0, maximum=2**31 - 1)

    strategy: str = setting(
        "auto",
        "auto: mirrored where there are several devices, multi_worker where TF_CONFIG lists several machines, "
        "else one_device.",
        choices=("auto", "one_device", "mirrored", "multi_worker"),
        resumable=True,
    )
    worker_timeout_secs: float = setting(
        600.0,
        "With several machines: how long one may keep the others waiting, or a step take, before all end, to be "
        "started again.",
        minimum=1.0,
        resumable=True,
    )
    num_virtual_devices: int = setting(
        1, "Split the CPU into this many devices, to see several replicas on a laptop.", minimum=1, resumable=True
    )
    steps_per_execution: int = setting(
        20, "Steps run on the device between two looks of the host.", minimum=1, resumable=True
    )
    jit_compile: str = setting(
        "auto",
        "Compile the phases with XLA. auto: for networks without convolutions, where it was measured to be faster.",
        choices=("auto", "on", "off"),
    )
    precision: str = setting(
        "float32", "Precision of the networks' arithmetic; weights stay float32.", choices=("float32", "bfloat16")
    )

    sample_every_steps: int = setting(
        500, "Steps between two sample grids. 0: only before and after learning.", minimum=0, resumable=True
    )
    checkpoint_every_steps: int = setting(
        500, "Steps between two checkpoints. 0: only at the end.", minimum=0, resumable=True
    )
    sample_every_epochs: float | None = setting(
        None, "Epochs between two sample grids, in place of --sample_every_steps.", minimum=0.0, resumable=True
    )
    checkpoint_every_epochs: float | None = setting(
        None, "Epochs between two checkpoints, in place of --checkpoint_every_steps.", minimum=0.0, resumable=True
    )
    evaluate_every_steps: int = setting(
        0, "Steps between two evaluations. 0: only before and after learning.", minimum=0, resumable=True
    )
    max_to_keep: int = setting(
        3, "How many of the newest checkpoints to keep, beside the best one.", minimum=1, resumable=True
    )
    metrics: str = setting(
        "auto",
        "Which metrics to evaluate. auto: digits for the digits and mnist data sets, stacked for stacked:SOURCE, cycle "
        "for model=cyclegan, else none.",
        choices=("auto", *SUITES, "none"),
        resumable=True,
    )
    export_model: bool = setting(
        True, "Write the best generator as a SavedModel when training ends, to be served.", resumable=True
    )
    allow_config_change: bool = setting(
        False,
        "Go on from a checkpoint although settings or data have changed since it was written.",
        resumable=True,
    )
    resume: str = setting(
        "auto",
        "auto: go on from the newest valid checkpoint of the run directory. never: refuse a directory that has any.",
        choices=("auto", "never"),
        resumable=True,
    )

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            check(spec, getattr(self, spec.name))

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that a run may not change when it is resumed."""
        kept = (spec.name for spec in dataclasses.fields(self) if not spec.metadata["resumable"])
        return {name: self.to_dict()[name] for name in kept}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `identity`, hexadecimal."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The config as plain JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def to_json(self) -> str:
        """The config as indented JSON, one setting a line."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """The config that `to_dict` wrote.

        Raises:
            ConfigError: A name is not a setting, or a value is out of range.
        """
        known = {spec.name for spec in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is not a setting of this version; the config comes from another one.")
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**plain)

    def override(self, **changes: Any) -> "TrainConfig":
        """A copy with `changes`; giving one of `steps` and `epochs` drops the other.

        Raises:
            ConfigError: A value is out of range, or both `steps` and `epochs` are given.
        """
        if changes.get("steps") is not None and changes.get("epochs") is not None:
            raise ConfigError(
                f"steps={changes['steps']} and epochs={changes['epochs']:g} both say how long to train; give one."
            )
        for given, other in (("steps", "epochs"), ("epochs", "steps")):
            if changes.get(given) is not None:
                changes.setdefault(other, None)
        return dataclasses.replace(self, **changes)

    def resolve(self, num_examples: int, num_replicas: int = 1) -> "TrainConfig":
        """The config with all that was left open filled in for a data set of `num_examples` images.

        Raises:
            ConfigError: The batch is larger than the data set, or the replicas do not divide it.
        """
        check_batch(self.global_batch_size, num_examples, num_replicas)
        steps_per_epoch = num_examples // self.global_batch_size
        steps = self.steps
        if steps is None:
            if self.epochs is None:
                raise ConfigError("neither steps nor epochs is given; say how long to train with --steps=1000.")
            steps = max(1, round(self.epochs * steps_per_epoch))
        filled: dict[str, Any] = {"steps": steps, "metrics": self.suite}
        filled["job_dir"] = self.job_dir or f"runs/{self.recipe.rpartition(':')[2]}"
        if self._has_schedule and self.schedule_images is None:
            filled["schedule_images"] = steps * self.global_batch_size
        for what in ("sample", "checkpoint"):
            every_epochs = getattr(self, f"{what}_every_epochs")
            if every_epochs is not None:
                filled[f"{what}_every_steps"] = max(1, round(every_epochs * steps_per_epoch)) if every_epochs else 0
        return dataclasses.replace(self, **filled)

    @property
    def _has_schedule(self) -> bool:
        ends = (self.beta_2_end, self.penalty_weight_end, self.augment_probability_end)
        return self.learning_rate_decay != "none" or self.ema_schedule == "cosine" or any(e is not None for e in ends)

    @property
    def suite(self) -> str:
        """The suite of metrics that `metrics` stands for, or none."""
        if self.metrics != "auto":
            return self.metrics
        if self.dataset_b is not None:
            return "cycle"
        if self.dataset.startswith("stacked:"):
            return "stacked"
        return "digits" if self.dataset.removeprefix("tinted:") in ("digits", "mnist") else "none"


def check_batch(global_batch_size: int, num_examples: int, num_replicas: int) -> None:
    """Refuses a batch that the data cannot fill or that the replicas do not divide.

    Raises:
        ConfigError: With the arithmetic, and sizes that work.
    """
    if global_batch_size > num_examples:
        raise ConfigError(
            f"global_batch_size={global_batch_size} is more than the {num_examples} images of the data set; "
            f"give a batch of at most {num_examples}."
        )
    check_shares(global_batch_size, num_replicas)


def check_shares(global_batch_size: int, num_replicas: int) -> None:
    """Refuses a batch that the replicas do not divide.

    Raises:
        ConfigError: With sizes that work.
    """
    if global_batch_size % num_replicas:
        below = global_batch_size // num_replicas * num_replicas
        tries = [str(size) for size in (below, below + num_replicas) if size]
        raise ConfigError(
            f"global_batch_size={global_batch_size} must divide by {num_replicas} replicas; try {' or '.join(tries)}."
        )
