"""`GAN`: a generator and a discriminator, as the Keras model that users subclass.

Shapes: `B` images of a replica, `H W C` an image, `Z` latent size.
"""

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.callbacks import Checkpoint, Progress, Restore
from trainer.callbacks.base import by_priority
from trainer.config.choices import ImageRange, LatentDistribution
from trainer.config.compatibility import check_separate_updates, check_updates
from trainer.config.fields import check_choice, check_number
from trainer.data.pipeline.batching import Chunk
from trainer.data.pipeline.pixel_ranges import IMAGE_RANGES
from trainer.errors import NetworkError
from trainer.models import compiled_state, initial_weights, xla
from trainer.models.arrays import read_images
from trainer.models.augmenter import create_augmenter
from trainer.models.compiled_state import CompiledState
from trainer.models.compiled_step import CompiledStep
from trainer.models.discriminator_passes import PassInputs
from trainer.models.inference import SamplingModel
from trainer.models.keras_methods import (
    as_callbacks,
    check_arguments,
    check_can_compile,
    check_overrides,
)
from trainer.models.network_inputs import check_latent_dim
from trainer.models.objective import LossOutput, Objective
from trainer.models.optimizer_view import OptimizerView
from trainer.models.step_plan import step_plan
from trainer.models.training_inputs import count_steps, make_loader, set_image_range
from trainer.models.validation import as_fake_images, check_takes_images, trained_variables
from trainer.models.weight_limit import DEFAULT_MAX_WEIGHTS
from trainer.networks import NetworkPart
from trainer.training import transfer
from trainer.training.device_loop import DeviceLoop
from trainer.training.loop import TrainingLoop
from trainer.training.optimizers import build_optimizers
from trainer.training.plan import Losses, Metrics
from trainer.training.preemption import Preemption
from trainer.training.rng import StepRng
from trainer.training.schedules import ScheduleLike


class GAN(SamplingModel):
    """A generator and a discriminator that are trained against each other.

    Subclass it and override `get_generator` and `get_discriminator`, then `compile` and `fit` as with any Keras model:

        class MyGAN(GAN):
            def get_generator(self):  # [B, Z] -> [B, H, W, C]
                return keras.Sequential([...])

            def get_discriminator(self):  # [B, H, W, C] -> [B, 1]
                return keras.Sequential([...])

        gan = MyGAN(100)
        gan.compile(optimizer=keras.optimizers.Adam(2e-4, beta_1=0.5), loss="non_saturating")
        gan.fit(images, epochs=10, batch_size=64)

    Args:
        latent_dim: Number of latent variables, Z.
        input_dim: Another name of `latent_dim`; pass one of the two.
        networks: Functions that build networks, by name: those that the methods `get_*` of this class return.
        latent_distribution: `normal` for N(0, 1), or `uniform` for U[0, 1).
        image_range: Range of the images that the networks take and make: `-1..1`, `0..1` or `0..255`. 8-bit images are
            mapped to it; float images must lie in it, and are used as they are. With None, 8-bit images are mapped to
            `-1..1`, and float images are in the range that they fill: their smallest and largest values must lie
            within a tenth of its ends.
        name: Name of the model.

    Raises:
        ConfigError: If an argument is unknown, or the class overrides a method such as `train_step`.
    """

    num_classes = 0
    """Number of labels of a conditional model; 0 if there are no labels."""

    conditions: np.ndarray | None = None
    """Vector of conditions of each label, [num_classes, K]; None if the labels are classes."""

    labels_are_codes = False
    """True if labels of samples are codes whose meaning the model learns, instead of classes of the data."""

    discriminator_takes_labels = False
    """True if the discriminator takes the labels that the generator takes."""

    takes_targets = False
    """True if `fit` takes `y`: labels, or images of a second domain or of pairs."""

    ignores_labels = False
    """True if labels as `y` of `fit` serve only `balance_classes`."""

    allows_separate_updates = True
    """True if `discriminator_updates` may be `separate`."""

    needed_part: NetworkPart | None = None
    """Part of the networks that the model uses and not all architectures have; None for no such part."""

    def __init__(
        self,
        latent_dim: int | None = None,
        *,
        input_dim: int | None = None,
        networks: Mapping[str, Callable[[], keras.Model]] | None = None,
        latent_distribution: str = "normal",
        image_range: str | None = None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        check_overrides(type(self))
        check_choice("latent_distribution", latent_distribution, LatentDistribution)
        if image_range is not None:
            check_choice("image_range", image_range, ImageRange)
        self.latent_dim = self.input_dim = check_latent_dim(latent_dim, input_dim)
        self.latent_distribution = latent_distribution
        self.user_range = None if image_range is None else IMAGE_RANGES[image_range]
        self.image_range = self.user_range or IMAGE_RANGES[ImageRange.SIGNED_UNIT]
        self._factories = dict(networks or {})
        self.unused_factories = set(self._factories)
        self._compiled_step: CompiledStep | None = None
        self._preemption = Preemption()

    @property
    def label_size(self) -> int:
        """Size of the vector of a label; 0 without labels."""
        return self.num_classes

    @property
    def generator_penalty_every_steps(self) -> int:
        """Steps from one of the model's own penalties of the generator to the next; 1 if it has none."""
        return 1

    def architecture_sizes(self) -> tuple[int, int]:
        """Returns the sizes for which an architecture builds the networks.

        Returns:
            Size of the part of the generator's input that the discriminator does not take, such as latents and codes;
            and size of the labels that both take, 0 for none.
        """
        if self.discriminator_takes_labels:
            return self.network_latent_size, self.label_size
        return self.network_latent_size + self.label_size, 0

    # Methods that a subclass may override, like `generate` and `sample_latents` of the base class.

    def get_generator(self) -> keras.Model:
        """Returns a new generator: [B, Z] -> [B, H, W, C]. It is called inside the strategy's scope."""
        return self._build("generator")

    def get_discriminator(self) -> keras.Model:
        """Returns a new discriminator: [B, H, W, C] -> [B, 1]. It is called inside the strategy's scope."""
        return self._build("discriminator")

    def get_networks(self) -> dict[str, keras.layers.Layer]:
        """Returns all networks that are trained or hold state, by name."""
        return {"generator": self.get_generator(), "discriminator": self.get_discriminator()}

    def generate_for_training(self, latents: tf.Tensor, labels: tf.Tensor | None, rng: StepRng) -> tf.Tensor:
        """Returns the fake images [B, H, W, C] of a training step for latents [B, Z]."""
        return self.generate(latents, labels, self.generator, True)

    def discriminate(self, images: tf.Tensor, labels: tf.Tensor | None) -> Any:
        """Returns the discriminator's output for images [B, H, W, C]: [B, 1], or a pair of that and features [B, F]."""
        return self.discriminator(images, training=True)

    def sample_labels(self, rng: StepRng) -> tf.Tensor | None:
        """Returns random labels int32 [B] for fake images, or None in an unconditional model.

        A loss that compares pairs uses the labels of the real images instead.
        """
        return None

    def forward(
        self, real_images: tf.Tensor, labels: tf.Tensor | None, rng: StepRng, phases: tuple[str, ...]
    ) -> tuple[Losses, Metrics]:
        """Computes the losses of some phases for one batch.

        Args:
            real_images: float32 [B, H, W, C].
            labels: int32 [B], or None.
            rng: Random numbers of this step.
            phases: Names of the phases whose losses are needed.

        Returns:
            Per-example losses, float32 [B], by phase; and per-example values to log, by phase and name.
        """
        has_pairs = labels is not None and self.objective.loss.compares_pairs
        fake_labels = labels if has_pairs else self.sample_labels(rng)
        latents = self.sample_latents(rng)
        fake_images = as_fake_images(self.generate_for_training(latents, fake_labels, rng), real_images)
        real, fake = (real_images, labels), (fake_images, fake_labels)
        inputs = PassInputs(self.discriminate, self.discriminator, real, fake, rng, self.image_range)
        loss_output = self.objective(inputs, phases)
        self.add_losses(loss_output, latents)
        return loss_output.losses, loss_output.metrics

    def add_losses(self, loss_output: LossOutput, latents: tf.Tensor) -> None:
        """Adds a model's own terms to the losses; `latents` are those of the fake images. This class adds none."""

    def make_chunk(self, x: Any, y: Any) -> Chunk:
        """Returns the training data as a chunk. This class ignores labels."""
        (images,), image_range = read_images({"x": x}, self.user_range, self.image_range, is_trained=self.is_trained)
        return Chunk(images, None, image_range)

    def check_image_shape(self, shape: tuple[int, ...]) -> None:
        """Rejects images whose shape the networks do not take."""
        check_takes_images(self.discriminator, shape)

    # Methods of Keras.

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = "non_saturating",
        *,
        update_order: str = "alternating",
        discriminator_updates: str = "together",
        discriminator_repeats: int = 1,
        penalties: Sequence[Any] = (),
        penalty_weight: ScheduleLike = 10.0,
        penalty_every_steps: int = 1,
        augment: str | None = None,
        augment_probability: ScheduleLike | None = 1.0,
        ema_half_life_images: ScheduleLike = 0.0,
        jit_compile: bool | str = "auto",
        precision: str | None = None,
        max_weights: int = DEFAULT_MAX_WEIGHTS,
        freeze_discriminator_layers: int = 0,
        accumulate_steps: int = 1,
        seed: int = 0,
        strategy: tf.distribute.Strategy | None = None,
        **keras_arguments: Any,
    ) -> None:
        """Builds networks and optimizers inside the strategy's scope.

        A GAN is compiled once. A call that fails sets nothing, so that it can be corrected and repeated.

        Args:
            optimizer: A Keras optimizer, of which `generator` and `discriminator` each get a copy; or a dict with one
                optimizer for each of them.
            loss: A name in `trainer.losses`, an `AdversarialLoss` or a subclass of it, or a Keras loss
                `(y_true, y_pred)`, which is applied to the targets 1 and 0.
            update_order: `alternating` or `simultaneous`.
            discriminator_updates: `together`, `separate` (one update on real, then one on fake images) or
                `concatenated` (one batch of both).
            discriminator_repeats: Discriminator updates per step.
            penalties: Names in `trainer.penalties`, or functions with the signature `Penalty`; one or several.
            penalty_weight: Weight of each penalty; a number or a function of the step. Published weights are for images
                in -1..1.
            penalty_every_steps: Steps from one penalty to the next.
            augment: Name in `trainer.augment`; None for no augmentation.
            augment_probability: Probability of each transformation; a number, a function of the step, or None to adapt
                it.
            ema_half_life_images: Half-life in images of the generator's EMA, which is used for sampling; 0 for none. A
                number is ramped up early in training; a function of the step is used as it is.
            jit_compile: Whether to use XLA; `auto` uses it if the networks train faster with it.
            precision: `float32` or `bfloat16`; None for that of Keras's global dtype policy.
            max_weights: Largest number of weights of all networks together, EMA networks included. Larger networks are
                rejected before memory is taken for them.
            freeze_discriminator_layers: Number of layers with weights, counted from the image, that are not trained in
                each discriminator. Their weights, moments and singular vectors stay as they are. Only use it with
                weights of `init_from` or of your own.
            accumulate_steps: Number of micro-batches that each replica divides its batch into, to save memory. Their
                gradients are summed before the update. Networks must not use statistics of a batch.
            seed: Seed of weights, data order, latents, augmentation and dropout.
            strategy: Strategy to train under; None for the current strategy.
            **keras_arguments: Other arguments of `keras.Model.compile`, which are accepted at their defaults only.

        Raises:
            ConfigError: If a setting or a name is unknown, two settings exclude each other, or the model is compiled.
            NetworkError: If networks, loss and optimizers do not fit each other.
        """
        check_can_compile(self)
        check_arguments("compile", keras_arguments, inspect.signature(GAN.compile).parameters)
        self._check_updates(update_order, discriminator_updates, discriminator_repeats, penalties, penalty_every_steps)
        objective = Objective(
            loss,
            updates=discriminator_updates,
            penalties=penalties,
            weight=penalty_weight,
            every_steps=penalty_every_steps,
            augmenter=create_augmenter(augment, augment_probability),
        )
        strategy = tf.distribute.get_strategy() if strategy is None else strategy
        networks = compiled_state.build_networks(
            self,
            objective,
            ema_half_life_images=ema_half_life_images,
            precision=precision,
            max_weights=max_weights,
            freeze_discriminator_layers=freeze_discriminator_layers,
            seed=seed,
            strategy=strategy,
        )
        variables = trained_variables(self.optimizer_groups, networks)
        self._compiled_state = CompiledState(
            networks=networks,
            optimizers=build_optimizers(optimizer, variables, strategy),
            variables=variables,
            objective=objective,
            strategy=strategy,
            seed=int(seed),
            update_order=update_order,
            discriminator_repeats=discriminator_repeats,
            ema_half_life_images=ema_half_life_images,
            jit_compile=xla.resolve_jit_compile(jit_compile, networks.values(), precision),
            accumulate_steps=accumulate_steps,
        )
        self._set_keras_attributes()

    def init_from(self, source: str | os.PathLike[str]) -> None:
        """Sets the weights to those of another run, before the first step. Optimizers and `step` stay at their start.

        If the other run has an EMA, the generator and its EMA both start with it; the discriminator starts with the
        other discriminator. Both runs need networks with the same layers. The range of the images becomes that of the
        other run, unless the user has set one.

        Args:
            source: `RUN`, which is the best checkpoint of a run directory, `RUN@STEP` or `RUN@latest`; or the folder of
                a `trainer.callbacks.Checkpoint` in place of `RUN`, whose newest checkpoint is the best one. Local or
                `gs://BUCKET/NAME`.

        Raises:
            CheckpointError: If there is no such checkpoint, it is damaged, or it has other networks.
            ConfigError: If the model is not compiled or has taken steps, or the path is malformed.
            StorageError: If the bucket cannot be read.
        """
        self.require_compiled()
        initial_weights.assign(self, transfer.read(source))

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int | None = None,
        epochs: float = 1,
        steps: int | None = None,
        callbacks: Any = None,
        verbose: str | int = "auto",
        steps_per_execution: int = 20,
        balance_classes: bool = False,
        horizontal_flips: bool = False,
        handle_sigterm: bool = False,
        **keras_arguments: Any,
    ) -> keras.callbacks.History:
        """Trains from `self.step` on.

        Args:
            x: Images [N, H, W, C]: 8-bit, or float in the range of the generator's output; or a `StreamedDataset` of a
                prepared set, labels included. `trainer.models.in_memory` lists the datasets and data loaders of other
                libraries that are read into memory first, with or without labels.
            y: Labels: integers [N] or one-hot [N, K]; needed by conditional models. None if `x` has them. Models
                without labels take them only with `balance_classes`.
            batch_size: Global batch size; None for that of the batches of `x`, or 32 if `x` has none.
            epochs: Total number of passes over `x`, those of an earlier `fit` included; 0 takes no step.
            steps: Total number of generator updates; replaces `epochs`.
            callbacks: A Keras callback or a list of them, which run in the order of their `priority`. The methods
                `on_train_batch_*` run once per execution. Callbacks of Keras that set learning rates set those of both
                optimizers.
            verbose: 0 for no progress display; otherwise a bar on a terminal or in a notebook.
            steps_per_execution: Largest number of steps between two calls of the callbacks.
            balance_classes: Whether to show every class of `y` equally often: images of smaller classes come several
                times per epoch.
            horizontal_flips: Whether to mirror each real image with probability one half.
            handle_sigterm: Whether SIGTERM stops training after the current step; `preempted` is true then.
            **keras_arguments: Other arguments of `keras.Model.fit`, which are accepted at their defaults only.

        Returns:
            Keras's `History`; its `history` has a list of epoch means for each scalar. The last one may be of a part of
            an epoch.

        Raises:
            ConfigError: If the model is not compiled, a number is out of range, the batch is larger than the data, the
                replicas do not divide it, or there are several `Checkpoint` callbacks.
            DataError: If `x` and `y` do not fit each other or the model.
            NetworkError: If the networks do not fit the data, or a variable gets no gradient.
            DivergenceError: If losses or gradients are not finite in too many steps, and there is no earlier checkpoint
                to return to.
        """
        check_arguments("fit", keras_arguments, inspect.signature(GAN.fit).parameters)
        if batch_size is not None:
            check_number("batch_size", batch_size, whole=True, minimum=1)
        check_number("steps_per_execution", steps_per_execution, whole=True, minimum=1)
        check_choice("balance_classes", balance_classes, (True, False))
        check_choice("horizontal_flips", horizontal_flips, (True, False))
        check_choice("handle_sigterm", handle_sigterm, (True, False))
        check_choice("verbose", verbose, ("auto", 0, 1, 2))
        loader = make_loader(self, x, y, batch_size, balance_classes)
        batch_size = loader.global_batch_size
        num_steps = count_steps(epochs, steps, loader.steps_per_epoch)
        callback_list = keras.callbacks.CallbackList(
            self._with_default_callbacks(as_callbacks(callbacks), verbose),
            add_history=True,
            model=self,
            epochs=-(-num_steps // loader.steps_per_epoch),
            steps=loader.steps_per_epoch,
            verbose=int(verbose != 0),
            num_steps=num_steps,
            global_batch_size=batch_size,
        )
        with contextlib.closing(loader), self._preemption.listen(handle_sigterm):
            TrainingLoop(
                self,
                functools.partial(self._make_device_loop, batch_size, horizontal_flips),
                loader,
                callback_list,
                num_steps=num_steps,
                global_batch_size=batch_size,
                steps_per_execution=steps_per_execution,
                preemption=self._preemption,
            ).run()
        return next(callback for callback in callback_list.callbacks if isinstance(callback, keras.callbacks.History))

    # State.

    @property
    def preempted(self) -> bool:
        """True if SIGTERM has stopped `fit`."""
        return self._preemption.requested

    def set_network_factories(self, networks: Mapping[str, Callable[[], keras.Model]]) -> None:
        """Sets functions that build networks, by name, for methods `get_*` that are not overridden."""
        self._factories |= networks

    def _check_updates(self, order: str, updates: str, repeats: int, penalties: Sequence[Any], every: int) -> None:
        """Rejects settings of `compile` that do not work together, or not with this model."""
        check_updates(order, updates, repeats, penalties, every)
        check_separate_updates(type(self).__name__, updates, is_allowed=self.allows_separate_updates)

    def _set_keras_attributes(self) -> None:
        """Sets the attributes that Keras and its callbacks expect of a compiled model."""
        for name, network in self.networks.items():  # Keras saves the weights of layers that are attributes
            setattr(self, f"_{name}" if hasattr(type(self), name) else name, network)
        self.optimizer = OptimizerView(self.optimizers)
        self.built = self.compiled = True

    def _with_default_callbacks(
        self, callbacks: Sequence[keras.callbacks.Callback], verbose: str | int
    ) -> list[keras.callbacks.Callback]:
        """Adds the callbacks that restore checkpoints and show progress, and sorts all by priority."""
        restore = [Restore(callback) for callback in callbacks if isinstance(callback, Checkpoint)]
        progress = [] if verbose == 0 else [Progress()]
        return by_priority([*restore, *callbacks, *progress])

    def _build(self, name: str) -> keras.Model:
        if name not in self._factories:
            raise NetworkError(f"{type(self).__name__} has no {name}; override get_{name}() to return a keras.Model.")
        factory = self._factories[name]
        self.unused_factories.discard(name)
        if isinstance(factory, keras.layers.Layer) or not callable(factory):
            raise NetworkError(f"networks[{name!r}] is a {type(factory).__name__}; pass a function that builds it.")
        return factory()

    def _make_device_loop(self, batch_size: int, horizontal_flips: bool, chunk: Chunk) -> DeviceLoop:
        """Returns the compiled step for data like `chunk`: that of the last `fit` if nothing has changed."""
        set_image_range(self, chunk.image_range)  # a callback may have restored weights of another range
        plan = step_plan(self, batch_size, horizontal_flips)
        key = (batch_size, horizontal_flips, plan.salt, chunk.signature)
        if self._compiled_step is None or not self._compiled_step.fits(self, key):
            self._compiled_step = None  # frees its memory first
            device_loop = DeviceLoop(plan, chunk, self.compiled_state.strategy)
            compiled_state.check_no_other_state(self, self.networks)  # the first pass may have built weights
            self._compiled_step = CompiledStep(self, key, device_loop)
        else:
            self._compiled_step.device_loop.restart(chunk)
        return self._compiled_step.device_loop
