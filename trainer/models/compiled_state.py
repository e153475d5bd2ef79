"""The result of `GAN.compile`: networks, optimizers, the objective, and the settings of a step."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import keras
import tensorflow as tf

from trainer.config.fields import check_number, check_seed
from trainer.errors import ConfigError, NetworkError, quote
from trainer.models.frozen_layers import freeze_layers
from trainer.models.objective import Objective
from trainer.models.validation import (
    all_layers,
    check_built,
    check_distinct,
    check_expects,
    check_optimizer_groups,
    check_scope,
    names_with_role,
    policy_of,
)
from trainer.models.weight_limit import limited_weights
from trainer.networks.layers import ImagePool
from trainer.training import optimizers, schedules
from trainer.training.checkpoint.state_file import AUGMENTER, EMA_PREFIX, OPTIMIZER_SUFFIX
from trainer.training.divergence import DivergenceState
from trainer.training.rng import seeded_initialization
from trainer.training.schedules import ScheduleLike

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CompiledState:
    """The compiled parts of a GAN.

    Attributes:
        networks: All networks by name, EMA networks and the augmenter included.
        optimizers: The optimizers `generator` and `discriminator`.
        variables: Variables that each optimizer was built for.
        objective: The losses.
        strategy: Strategy that the GAN trains under.
        seed: Seed of the run.
        update_order: `alternating` or `simultaneous`.
        discriminator_repeats: Discriminator updates per step.
        ema_half_life_images: Half-life of the EMA of the generator, in images; 0 for none.
        jit_compile: Whether to compile steps with XLA.
        divergence: Record of skipped steps and rollbacks.
        accumulate_steps: Micro-batches of each replica per update.

    Raises:
        ConfigError: If `accumulate_steps` is not a whole number from 1 up.
        NetworkError: If the networks cannot accumulate gradients.
    """

    networks: Mapping[str, keras.layers.Layer]
    optimizers: Mapping[str, keras.optimizers.Optimizer]
    variables: Mapping[str, list[keras.Variable]]
    objective: Objective
    strategy: tf.distribute.Strategy
    seed: int
    update_order: str
    discriminator_repeats: int
    ema_half_life_images: ScheduleLike
    jit_compile: bool
    accumulate_steps: int
    divergence: DivergenceState = field(init=False)

    def __post_init__(self) -> None:
        check_accumulation(self.accumulate_steps, self.networks)
        with self.strategy.scope():
            object.__setattr__(self, "divergence", DivergenceState())


class CompiledModel(keras.Model):
    """A Keras model of several networks, and access to its compiled parts."""

    optimizer_groups: Mapping[str, tuple[str, ...]] = {
        "discriminator": ("discriminator",),
        "generator": ("generator",),
    }
    """Names of the networks that each optimizer updates."""

    ema_networks: tuple[str, ...] = ("generator",)
    """Names of the generators that have an EMA, if EMA is enabled."""

    unused_factories: set[str]
    """Names in the argument `networks` whose functions no method `get_*` has called yet."""

    _compiled_state: CompiledState | None = None
    _step = 0
    initial_optimizer_settings: Mapping[str, str | float] = {}
    """The `optimizer_settings` before the first step. `record_optimizer_settings` sets them."""
    image_range: tuple[float, float]
    """Range of the images that the networks take and make."""
    user_range: tuple[float, float] | None
    """Range that the user has set; None if the data sets it."""
    is_range_known = True
    """False if the weights were loaded from a file that does not state the range of their images."""
    has_initial_weights = False
    """True if `init_from` has set the weights."""

    @property
    def step(self) -> int:
        """Number of training steps taken. `fit` continues from it.

        Raises:
            ConfigError: If it is set to anything but a whole number from 0 up.
        """
        return self._step

    @step.setter
    def step(self, value: int) -> None:
        check_number("step", value, whole=True)
        self._step = int(value)

    @property
    def is_trained(self) -> bool:
        """True if the weights have been trained: in this run, or in the one that it began with."""
        return self.step > 0 or self.has_initial_weights

    @property
    def compiled_state(self) -> CompiledState:
        """Networks, optimizers and settings.

        Raises:
            ConfigError: If the model is not compiled.
        """
        if self._compiled_state is None:
            raise ConfigError(f"{type(self).__name__} is not compiled; call compile(optimizer=..., loss=...) first.")
        return self._compiled_state

    def require_compiled(self) -> None:
        """Raises ConfigError if the model is not compiled."""
        _ = self.compiled_state

    @property
    def networks(self) -> Mapping[str, keras.layers.Layer]:
        """All networks by name, EMA networks and the augmenter included."""
        return self.compiled_state.networks

    @property
    def optimizers(self) -> Mapping[str, keras.optimizers.Optimizer]:
        """The optimizers `generator` and `discriminator`."""
        return self.compiled_state.optimizers

    @property
    def objective(self) -> Objective:
        """The losses."""
        return self.compiled_state.objective

    @property
    def divergence(self) -> DivergenceState:
        """The record of skipped steps and rollbacks."""
        return self.compiled_state.divergence

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.compiled_state.seed

    @property
    def state(self) -> dict[str, keras.Variable]:
        """All variables that training changes, by names that are the same in every process."""
        named: dict[str, keras.Variable] = {}
        for name, network in self.networks.items():
            named |= {f"{name}/{weight}": variable for weight, variable in weights_of(network).items()}
        for name, optimizer in self.optimizers.items():
            named |= {f"{name}{OPTIMIZER_SUFFIX}/{i:03d}": v for i, v in enumerate(optimizer.variables)}
        return named | dict(self.divergence.variables)

    @property
    def optimizer_settings(self) -> dict[str, str | float]:
        """Settings that `state` contains: kinds of the optimizers, and learning rates by their names in `state`."""
        settings: dict[str, str | float] = {}
        for name, optimizer in self.optimizers.items():
            rates = optimizers.learning_rates(optimizer)
            settings[f"{name}{OPTIMIZER_SUFFIX}"] = optimizers.kind(optimizer)
            settings |= {f"{name}{OPTIMIZER_SUFFIX}/{index:03d}": rate for index, rate in rates.items()}
        return settings

    def record_optimizer_settings(self) -> None:
        """Sets `initial_optimizer_settings`, unless the model has taken steps since they were set."""
        if self.step == 0 or not self.initial_optimizer_settings:
            self.initial_optimizer_settings = self.optimizer_settings

    def set_trained_range(self, stored: tuple[float, float] | None) -> None:
        """Sets the range of the images that restored weights were trained on.

        A range that the user has set stays, and a warning is logged if it is another one.

        Args:
            stored: Range (low, high). None: the file states none, because an earlier version has written it, so the
                data of the next `fit` sets it.
        """
        self.is_range_known = stored is not None or self.user_range is not None
        if stored is None or stored == self.image_range:
            return
        if self.user_range is None:
            self.image_range = stored
            return
        _logger.warning(
            f"The weights were trained on images in {stored[0]:g}..{stored[1]:g}, but image_range="
            f"{self.image_range[0]:g}..{self.image_range[1]:g} is set and used."
        )


def ema_name(name: str) -> str:
    """The name of the EMA of a network."""
    return EMA_PREFIX + name


def weights_of(network: keras.layers.Layer) -> dict[str, keras.Variable]:
    """Returns the weights of a network by their names in `state`, without the name of the network."""
    return {f"{index:03d}/{_state_name(weight)}": weight for index, weight in enumerate(network.weights)}


def build_networks(
    gan: CompiledModel,
    objective: Objective,
    *,
    ema_half_life_images: ScheduleLike,
    precision: str | None,
    max_weights: int,
    freeze_discriminator_layers: int,
    seed: int,
    strategy: tf.distribute.Strategy,
) -> dict[str, keras.layers.Layer]:
    """Builds all networks of a GAN, with weights that are a function of `seed`.

    Raises:
        ConfigError: If `precision`, `max_weights`, `freeze_discriminator_layers`, `seed`, `strategy`,
            `ema_half_life_images` or a global setting of Keras is not supported.
        NetworkError: If a network is not built, has no optimizer, does not fit the loss, or shares a variable with
            another one; if all of them have more weights than `max_weights`; or if the GAN has other state, or a
            function that builds no network.
    """
    check_number("max_weights", max_weights, whole=True, minimum=1)
    check_seed(seed)
    schedules.check("ema_half_life_images", ema_half_life_images)
    if not isinstance(strategy, tf.distribute.Strategy):
        raise ConfigError(f"strategy={quote(strategy)} is no tf.distribute.Strategy; pass one, or None.")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy_of(precision))
    try:
        with strategy.scope(), seeded_initialization(seed), limited_weights(max_weights):
            networks: dict[str, keras.layers.Layer] = gan.get_networks()
            for name, network in networks.items():
                check_built(name, network)
                check_scope(name, network, strategy)
            check_optimizer_groups(gan.optimizer_groups, networks)
            freeze_layers(gan.optimizer_groups["discriminator"], networks, freeze_discriminator_layers)
            if ema_half_life_images:
                networks |= {ema_name(name): _copy_of_generator(gan, networks[name]) for name in gan.ema_networks}
            check_distinct(networks)
    finally:
        keras.config.set_dtype_policy(policy)
    for name in names_with_role("discriminator", gan.optimizer_groups["discriminator"]):
        check_expects(objective.loss, networks[name])
    check_no_other_state(gan, networks)
    if gan.unused_factories:
        names = quote(sorted(gan.unused_factories))
        raise NetworkError(f"networks has {names}, which no method of {type(gan).__name__} uses; remove them.")
    return networks if objective.augmenter is None else networks | {AUGMENTER: objective.augmenter}


def check_no_other_state(gan: CompiledModel, networks: Mapping[str, keras.layers.Layer]) -> None:
    """Rejects layers, variables and seed generators that belong to a GAN but to none of its networks.

    Raises:
        NetworkError: If there are any: no optimizer would train them, and no checkpoint would hold them.
    """
    known = {id(variable) for network in networks.values() for variable in network.variables}
    other = [variable for variable in gan.variables if id(variable) not in known]
    if other:
        raise NetworkError(
            f"{type(gan).__name__} holds {other[0].path} outside of its networks; return the layer that owns it from "
            "get_networks(), and name it in optimizer_groups or set its trainable to False."
        )


def check_accumulation(accumulate_steps: int, networks: Mapping[str, keras.layers.Layer]) -> None:
    """Checks that the networks compute the same on micro-batches as on the whole batch.

    Args:
        accumulate_steps: Number of micro-batches of each replica.
        networks: All networks by name.

    Raises:
        ConfigError: If the number is not a whole number from 1 up.
        NetworkError: If a layer uses statistics of the batch, or keeps images of it.
    """
    check_number("accumulate_steps", accumulate_steps, whole=True, minimum=1)
    if accumulate_steps == 1:
        return
    for name, network in networks.items():
        for layer in all_layers([network]):
            if _uses_batch_statistics(layer):
                raise NetworkError(
                    f"accumulate_steps={accumulate_steps} changes the results of {layer.name} in {name}, a "
                    f"{type(layer).__name__} that depends on the whole batch; set accumulate_steps=1 and a smaller "
                    "batch, or choose a network without batch statistics, such as architecture=r3gan."
                )


def _uses_batch_statistics(layer: keras.layers.Layer) -> bool:
    """Returns whether the output of a layer for an image depends on other images, or on their order in time.

    A layer of this package or of a user declares it by the attribute `couples_samples`.
    """
    if isinstance(layer, keras.layers.BatchNormalization):
        return bool(layer.trainable)
    return (isinstance(layer, ImagePool) and layer.size > 0) or bool(getattr(layer, "couples_samples", False))


def _copy_of_generator(gan: CompiledModel, generator: keras.Model) -> keras.Model:
    """Returns another generator with the weights of the first, which may be pretrained."""
    copy = gan.get_generator()
    check_built("generator", copy)
    shapes = [[tuple(weight.shape) for weight in network.weights] for network in (generator, copy)]
    if shapes[0] != shapes[1]:
        raise NetworkError(
            "get_generator() returns networks with other weights in each call, so that the generator can have no EMA; "
            "return the same architecture, or set ema_half_life_images=0."
        )
    copy.set_weights(generator.get_weights())
    return copy


def _state_name(weight: keras.Variable) -> str:
    """The name of a weight, without the number that Keras adds to the default name."""
    return re.sub(r"^variable_\d+$", "variable", weight.name)
