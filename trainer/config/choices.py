"""The choices of every setting that takes one of a fixed set of words."""

import enum


class Choice(str, enum.Enum):
    """Base class of the choices of a setting. A member equals its plain string and prints as it."""

    def __str__(self) -> str:
        return self.value

    def __format__(self, format_spec: str) -> str:
        return format(self.value, format_spec)

    @classmethod
    def values(cls) -> tuple[str, ...]:
        """Returns the choices as plain strings, in order of definition."""
        return tuple(member.value for member in cls)


class ImageRange(Choice):
    """Range of pixel values that the networks work with."""

    SIGNED_UNIT = "-1..1"
    UNIT = "0..1"
    EIGHT_BIT = "0..255"


class ModelFormat(Choice):
    """Format of an exported model."""

    SAVED_MODEL = "savedmodel"
    KERAS = "keras"
    ONNX = "onnx"
    LITERT = "litert"


class LatentDistribution(Choice):
    """Distribution of the latents."""

    NORMAL = "normal"
    UNIFORM = "uniform"


class UpdateOrder(Choice):
    """Order of the discriminator's and the generator's updates within a step."""

    ALTERNATING = "alternating"
    SIMULTANEOUS = "simultaneous"


class DiscriminatorUpdates(Choice):
    """Use of real and fake images in discriminator updates."""

    TOGETHER = "together"
    SEPARATE = "separate"
    CONCATENATED = "concatenated"


class OptimizerName(Choice):
    """Optimizer of the networks."""

    ADAM = "adam"
    RMSPROP = "rmsprop"


class LearningRateDecay(Choice):
    """Shape of the learning rate schedule."""

    NONE = "none"
    LINEAR = "linear"
    COSINE = "cosine"


class EmaSchedule(Choice):
    """Growth of the EMA's half-life during training."""

    EARLY = "early"
    COSINE = "cosine"


class StrategyName(Choice):
    """Distribution strategy."""

    AUTO = "auto"
    ONE_DEVICE = "one_device"
    MIRRORED = "mirrored"
    MULTI_WORKER = "multi_worker"


class JitCompile(Choice):
    """Use of XLA."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Precision(Choice):
    """Precision of the networks' computations."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Size(Choice):
    """Size of the networks and of the run, for recipes that take a context."""

    AUTO = "auto"
    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class MetricSuite(Choice):
    """Values of `metrics` that the package treats specially. `AUTO` and `NONE` are no suites themselves;
    `trainer.config.suites.SUITES` has the suites.
    """

    AUTO = "auto"
    DIGITS = "digits"
    STACKED = "stacked"
    CYCLE = "cycle"
    PAIRED = "paired"
    INCEPTION = "inception"
    PHOTOS = "photos"
    NONE = "none"


class TrackerName(Choice):
    """Experiment tracker."""

    WANDB = "wandb"
    MLFLOW = "mlflow"
    VERTEX = "vertex"


class Resume(Choice):
    """Treatment of checkpoints that the run directory already has."""

    AUTO = "auto"
    NEVER = "never"
