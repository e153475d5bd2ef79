"""What the trainer has, by name, for checks that must not import TensorFlow; tests hold it against the registries."""

from collections.abc import Sequence

from trainer.config import TrainConfig

PARTS = {
    "loss": (
        "hinge",
        "least_squares",
        "mean_squared_error",
        "minimax",
        "non_saturating",
        "relativistic",
        "wasserstein",
    ),
    "architecture": (
        "dcgan",
        "mlp",
        "r3gan",
        "resnet",
        "resnet_translator",
        "unet_translator",
        "upsampling",
    ),
    "wiring": ("acgan", "conditional", "cyclegan", "gan", "infogan"),
    "penalty": ("gradient_penalty", "r1", "r2"),
    "augmentation": ("ada", "diffaugment"),
}
"""What a config names, by its kind."""
_OF_FEATURES = ("frechet", "kid", "precision", "recall", "density", "coverage")
_ACCURACIES = {"conditional": "conditional_accuracy", "acgan": "conditional_accuracy", "infogan": "code_accuracy"}
"""Of the wirings whose samples have labels."""
_REPORTED = {
    "digits": (*_OF_FEATURES, "conditional_accuracy", "code_accuracy"),
    "stacked": ("frechet", "num_modes", "kl", "conditional_accuracy"),
    "cycle": ("cycle_error", "cycle_error_a", "cycle_error_b"),
    "none": (),
}
"""What each suite of metrics reports, where there are labels."""
REPORTED_METRICS = tuple(dict.fromkeys(name for names in _REPORTED.values() for name in names))
"""What a trial can be judged by: the `metricId` that a tuning job may name."""


def named(config: TrainConfig, kind: str) -> Sequence[str]:
    """The names of a kind that a config has."""
    if kind == "penalty":
        return config.penalties
    if kind == "augmentation":
        return () if config.augment is None else (config.augment,)
    return (getattr(config, kind),)


def reported(suite: str, wiring: str | None = None) -> tuple[str, ...]:
    """What a trial can be judged by.

    Args:
        suite: Of its metrics, or none.
        wiring: Of its networks. None: it is not known.
    """
    if wiring is None:
        return _REPORTED[suite]
    if (suite == "cycle") != (wiring == "cyclegan"):
        return ()
    mine = _ACCURACIES.get(wiring)
    return tuple(name for name in _REPORTED[suite] if not name.endswith("_accuracy") or name == mine)
