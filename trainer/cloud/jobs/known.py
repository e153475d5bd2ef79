"""What the trainer has, by name, for checks that must not import TensorFlow; tests hold it against the registries."""

from collections.abc import Mapping, Sequence

from trainer.config import TrainConfig
from trainer.config.compatibility import Traits

_LAYERS = ("leaky_slope", "batch_norm_momentum", "dropout", "initializer")
OPTIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "architecture": {
        "dcgan": (
            *("generator_filters", "generator_strides", "generator_activation", "generator_dense", "generator_stem"),
            *(
                "discriminator_filters",
                "discriminator_strides",
                "discriminator_activation",
                "discriminator_kernel_size",
            ),
            *("discriminator_batch_norm", "discriminator_dense", "discriminator_head", "spectral_norm", "kernel_size"),
            *_LAYERS,
        ),
        "mlp": (
            *("generator_units", "discriminator_units", "generator_activation", "discriminator_activation"),
            *_LAYERS,
        ),
        "r3gan": ("generator_filters", "discriminator_filters", "blocks_per_stage", "expansion", "group_size"),
        "resnet": (
            *("generator_filters", "discriminator_filters", "discriminator_downsamples", "spectral_norm"),
            *("batch_norm_momentum", "initializer"),
        ),
        "resnet_translator": (
            *("generator_filters", "residual_blocks", "downsamplings", "discriminator_filters", "discriminator_layers"),
            "initializer",
        ),
        "unet_translator": (
            *("generator_filters", "depth", "dropout", "discriminator_filters", "discriminator_layers", "initializer"),
        ),
        "upsampling": (
            *("generator_filters", "generator_activation", "upsampling_kernel_size", "transposed_kernel_size"),
            *("discriminator_filters", "discriminator_activation", "discriminator_kernel_size"),
            *_LAYERS,
        ),
    },
    "model": {
        "acgan": ("class_weight", "fake_class_weight"),
        "conditional": (),
        "cyclegan": ("cycle_weight", "identity_weight", "pool_size"),
        "gan": (),
        "infogan": ("num_categories", "num_continuous", "category_weight", "continuous_weight"),
    },
}
"""What `architecture_options` and `model_options` may hold, by the name that the config gives."""
PARTS: Mapping[str, tuple[str, ...]] = {
    "loss": (
        "hinge",
        "least_squares",
        "mean_squared_error",
        "minimax",
        "non_saturating",
        "relativistic",
        "wasserstein",
    ),
    **{kind: tuple(options) for kind, options in OPTIONS.items()},
    "penalty": ("gradient_penalty", "r1", "r2"),
    "augmentation": ("ada", "diffaugment"),
}
"""What a config names, by its kind."""
_TRANSLATORS = ("resnet_translator", "unet_translator")
_WITHOUT_PARTS = ("relativistic",)
_OF_DIFFERENCES = ("relativistic", "wasserstein")
_OF_FEATURES = ("frechet", "kid", "precision", "recall", "density", "coverage")
_ACCURACIES = {"conditional": "conditional_accuracy", "acgan": "conditional_accuracy", "infogan": "code_accuracy"}
"""Of the models whose samples have labels."""
_REPORTED = {
    "digits": (*_OF_FEATURES, "conditional_accuracy", "code_accuracy"),
    "stacked": ("frechet", "num_modes", "kl", "conditional_accuracy"),
    "cycle": ("cycle_error", "cycle_error_a", "cycle_error_b"),
    "none": (),
}
"""What each suite of metrics reports, where there are labels."""
SMALLER_IS_BETTER = ("frechet", "kid", "kl", "cycle_error", "cycle_error_a", "cycle_error_b")
"""Of what trials report; of all else more is better."""
REPORTED_METRICS = tuple(dict.fromkeys(name for names in _REPORTED.values() for name in names))
"""What a trial can be judged by: the `metricId` that a tuning job may name."""


def named(config: TrainConfig, kind: str) -> Sequence[str]:
    """The names of a kind that a config has."""
    if kind == "penalty":
        return config.penalties
    if kind == "augmentation":
        return () if config.augment is None else (config.augment,)
    return (getattr(config, kind),)


def traits(config: TrainConfig) -> Traits:
    """What the rules of `trainer.config.compatibility` ask of the parts of a config, which are known."""
    return Traits(
        translates=config.model == "cyclegan",
        loss=config.loss,
        loss_is_separable=config.loss not in _WITHOUT_PARTS,
        is_shift_invariant=config.loss in _OF_DIFFERENCES,
        maps={name: "images" if name in _TRANSLATORS else "latents" for name in PARTS["architecture"]},
    )


def reported(suite: str, model: str | None = None) -> tuple[str, ...]:
    """What a trial can be judged by.

    Args:
        suite: Of its metrics, or none.
        model: Of its networks. None: it is not known.
    """
    if model is None:
        return _REPORTED[suite]
    mine = _ACCURACIES.get(model)
    return tuple(name for name in _REPORTED[suite] if not name.endswith("_accuracy") or name == mine)
