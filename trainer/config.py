"""The single source of every setting: its default, range, unit and help. Command-line flags are derived from it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainer.errors import ConfigError


def setting(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
    resumable: bool = False,
) -> Any:
    """Declares one field of `TrainConfig`.

    Args:
        default: The value when neither the recipe nor a flag gives one.
        help: What it does, its unit, and what `None` means. The flag's `--help` text.
        minimum: Smallest legal value.
        maximum: Largest legal value.
        choices: The legal words.
        resumable: Whether a run may go on with another value and still be the same run.
    """
    metadata = {"help": help, "minimum": minimum, "maximum": maximum, "choices": choices, "resumable": resumable}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run. A recipe is a function that returns one."""

    recipe: str = setting("digits", "Name of the recipe that gives the defaults of every other setting.")
    job_dir: str | None = setting(None, "Run directory. None: runs/RECIPE under the current directory.", resumable=True)

    dataset: str = setting(
        "digits",
        "What to train on: digits (5,000 MNIST digits inside the package), mnist, fashion_mnist, cifar10, "
        "or a directory that holds a prepared data set (dataset.json).",
    )
    classes: tuple[int, ...] | None = setting(None, "Train on these classes alone, as in 0,3. None: all of them.")
    image_range: str = setting(
        "-1..1",
        "Range that 8-bit pixels are mapped to, and that the generator's output is read in.",
        choices=("-1..1", "0..1", "0..255"),
    )

    wiring: str = setting("gan", "Which networks exist and which phases a step runs.", choices=("gan", "conditional"))
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
    discriminator_repeats: int = setting(1, "Discriminator updates a step, each on images of its own.", minimum=1)
    optimizer: str = setting("adam", "Optimizer of both networks.", choices=("adam", "rmsprop"))
    generator_learning_rate: float = setting(2e-4, "Learning rate of the generator.", minimum=0.0)
    discriminator_learning_rate: float = setting(2e-4, "Learning rate of the discriminator.", minimum=0.0)
    beta_1: float = setting(0.5, "Adam's decay of the first moment.", minimum=0.0, maximum=0.9999)
    beta_2: float = setting(0.999, "Adam's decay of the second moment.", minimum=0.0, maximum=0.999999)
    ema_half_life_images: float = setting(
        0.0,
        "Half-life, in images seen, of the moving average of the generator that samples, metrics and exports use. "
        "0: no average, the generator itself.",
        minimum=0.0,
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
    num_virtual_devices: int = setting(
        1, "Split the CPU into this many devices, to see several replicas on a laptop.", minimum=1, resumable=True
    )
    steps_per_window: int = setting(
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
    evaluate_every_steps: int = setting(
        0, "Steps between two evaluations. 0: only before and after learning.", minimum=0, resumable=True
    )
    keep_checkpoints: int = setting(
        3, "How many of the newest checkpoints to keep, beside the best one.", minimum=1, resumable=True
    )
    metrics: str = setting(
        "auto",
        "Which metrics to evaluate. auto: digits for the digits and mnist data sets, else none.",
        choices=("auto", "digits", "none"),
        resumable=True,
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
            _check(spec, getattr(self, spec.name))

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
        values = dict(values)
        if values.get("classes") is not None:
            values["classes"] = tuple(values["classes"])
        return cls(**values)

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
        """The config with `job_dir`, `steps` and `metrics` filled in for a data set of `num_examples` images.

        Raises:
            ConfigError: The batch is larger than the data set, or the replicas do not divide it.
        """
        batch = self.global_batch_size
        check_batch(batch, num_examples, num_replicas)
        steps = self.steps
        if steps is None:
            if self.epochs is None:
                raise ConfigError("neither steps nor epochs is given; say how long to train with --steps=1000.")
            steps = max(1, round(self.epochs * (num_examples // batch)))
        metrics = self.metrics
        if metrics == "auto":
            metrics = "digits" if self.dataset in ("digits", "mnist") else "none"
        return dataclasses.replace(self, job_dir=self.job_dir or f"runs/{self.recipe}", steps=steps, metrics=metrics)


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
    if global_batch_size % num_replicas:
        below = global_batch_size // num_replicas * num_replicas
        tries = [str(size) for size in (below, below + num_replicas) if size]
        raise ConfigError(
            f"global_batch_size={global_batch_size} must divide by {num_replicas} replicas; try {' or '.join(tries)}."
        )


def _check(spec: dataclasses.Field[Any], value: Any) -> None:
    """Checks one value against its declaration."""
    choices, minimum, maximum = (spec.metadata[key] for key in ("choices", "minimum", "maximum"))
    if choices and value not in choices:
        raise ConfigError(f"{spec.name}={value} is unknown; choose one of {', '.join(choices)}.")
    if value is None or isinstance(value, (str, tuple, Mapping)):
        return
    if minimum is not None and not value >= minimum:
        raise ConfigError(f"{spec.name}={value} is too small; the least is {minimum:g}.")
    if maximum is not None and not value <= maximum:
        raise ConfigError(f"{spec.name}={value} is too large; the most is {maximum:g}.")
